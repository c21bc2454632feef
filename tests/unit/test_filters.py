"""Filters against what MongoDB's manual says of `find`; the server's own answers are in tests/integration."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from changesource.exceptions import MappingError
from changesource.mapping.comparison import bson_class, order_key
from changesource.mapping.filters import compile_filter

NAN = float("nan")
OID = ObjectId("65f000000000000000000001")
DAY = datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")

# Filter, documents that pass, documents that do not.
CASES = [
    ({}, [{}, {"a": 1}], []),
    ({"a": 1}, [{"a": 1}, {"a": 1.0}, {"a": Int64(1)}, {"a": Decimal128("1.0")}], [{"a": True}, {"a": "1"}, {}]),
    ({"a": True}, [{"a": True}], [{"a": 1}, {"a": False}]),
    ({"a": 0.0}, [{"a": -0.0}, {"a": 0}], [{"a": False}]),
    ({"a": "x"}, [{"a": "x"}, {"a": ["y", "x"]}], [{"a": ["y", ["x"]]}, {"a": Code("x")}, {"a": "X"}]),
    ({"a": None}, [{}, {"a": None}, {"a": [1, None]}], [{"a": 0}, {"a": []}, {"a": ""}]),
    ({"a.b": None}, [{}, {"a": 4}, {"a": {}}, {"a": [{}, {"b": 1}]}], [{"a": []}, {"a": [1]}, {"a": [{"b": 1}]}]),
    # Arrays: one element, or the whole.
    ({"a": [1, 2]}, [{"a": [1, 2]}, {"a": [[1, 2], 3]}], [{"a": [2, 1]}, {"a": [1, 2, 3]}, {"a": 1}]),
    ({"a": []}, [{"a": []}, {"a": [[]]}], [{"a": None}, {}]),
    ({"a": {"$gt": 5, "$lt": 3}}, [{"a": [1, 9]}], [{"a": 4}, {"a": [4]}]),
    # Embedded documents: field order counts.
    ({"a": {"b": 1, "c": 2}}, [{"a": {"b": 1, "c": 2.0}}], [{"a": {"c": 2, "b": 1}}, {"a": {"b": 1}}]),
    ({"a": {}}, [{"a": {}}], [{"a": {"b": 1}}, {}, {"a": None}]),
    ({"a": {"$gt": {"b": 1}}}, [{"a": {"b": 2}}, {"a": {"c": 0}}, {"a": {"b": "x"}}], [{"a": {"b": None}}, {"a": {}}]),
    ({"a": {"$lt": [1, 2]}}, [{"a": [1]}, {"a": [0, 9]}, {"a": [[0]]}], [{"a": [2]}, {"a": 0}]),
    # Dotted paths.
    ({"a.b": 1}, [{"a": {"b": 1}}, {"a": [{"b": 0}, {"b": [1]}]}], [{"a": [[{"b": 1}]]}, {"a": 1}, {}]),
    ({"a.1": 7}, [{"a": [5, 7]}, {"a": {"1": 7}}, {"a": [{"1": 7}]}], [{"a": [7]}, {"a": [5, [7]]}]),
    ({"a.1": [7]}, [{"a": [5, [7]]}], [{"a": [[7], 5]}]),
    ({"a.01": 7}, [{"a": {"01": 7}}], [{"a": [5, 7]}]),
    ({"a.1.b": 4}, [{"a": [5, {"b": 4}]}, {"a": [5, [{"b": 4}]]}, {"a": [{"1": {"b": 4}}]}], [{"a": [{"b": 4}]}]),
    ({"a.0.0": 4}, [{"a": [[4]]}], [{"a": [4]}, {"a": [[[4]]]}]),
    ({"a.0.b": None}, [{"a": [{"b": 4}]}, {"a": [{}]}], [{"a": [4]}, {"a": [[]]}]),
    ({"ref.x": 5}, [{"ref": DBRef("c", 1, x=5)}, {"ref": [DBRef("c", 1, x=5)]}], [{"ref": DBRef("c", 5)}]),
    # $exists.
    ({"a": {"$exists": True}}, [{"a": None}, {"a": []}], [{}]),
    ({"a": {"$exists": 0}}, [{}], [{"a": None}]),
    ({"a.b": {"$exists": False}}, [{}, {"a": []}, {"a": [1]}, {"a": [{}]}], [{"a": [{}, {"b": None}]}]),
    ({"a.2": {"$exists": True}}, [{"a": [0, 0, 0]}], [{"a": [0, 0]}]),
    # Type bracketing.
    (
        {"a": {"$gt": 1}},
        [{"a": 1.5}, {"a": Decimal128("1.1")}],
        [{"a": "2"}, {"a": True}, {}, {"a": NAN}, {"a": MaxKey()}],
    ),
    ({"a": {"$lt": "b"}}, [{"a": "a"}, {"a": ""}], [{"a": 0}, {"a": None}, {"a": "b"}, {"a": MinKey()}]),
    ({"a": {"$gt": "\uffff"}}, [{"a": "\U00010000"}], [{"a": "\uffff"}]),
    ({"a": {"$gt": False}}, [{"a": True}], [{"a": 1}, {"a": False}]),
    ({"a": {"$gte": None}}, [{}, {"a": None}], [{"a": 0}]),
    ({"a": {"$gt": None}}, [], [{}, {"a": None}, {"a": 0}]),
    # Numbers are exact, across types.
    ({"a": {"$gt": 9007199254740992}}, [{"a": Int64(9007199254740993)}], [{"a": 9007199254740992.0}]),
    ({"a": {"$numberDecimal": "0.1"}}, [{"a": Decimal128("0.10")}], [{"a": 0.1}]),
    ({"a": {"$numberDecimal": "0.5"}}, [{"a": 0.5}], [{"a": 0.51}]),
    ({"a": {"$lt": {"$numberDouble": "Infinity"}}}, [{"a": Decimal128("1E+6000")}], [{"a": float("inf")}, {"a": NAN}]),
    # NaN is equal to itself and in no order.
    (
        {"a": {"$numberDouble": "NaN"}},
        [{"a": NAN}, {"a": Decimal128("NaN")}, {"a": Decimal128("sNaN")}],
        [{"a": 0}, {}],
    ),
    ({"a": {"$lte": {"$numberDecimal": "NaN"}}}, [{"a": NAN}], [{"a": -1}]),
    ({"a": {"$lt": {"$numberDouble": "NaN"}}}, [], [{"a": NAN}, {"a": -1}]),
    ({"a": {"$in": [{"$numberDouble": "NaN"}]}}, [{"a": NAN}], [{"a": 1}]),
    # Negations are those of the whole match.
    ({"a": {"$ne": 1}}, [{}, {"a": 2}, {"a": [2]}, {"a": "1"}], [{"a": 1}, {"a": [2, 1]}]),
    ({"a": {"$ne": None}}, [{"a": 0}, {"a": []}], [{}, {"a": None}]),
    ({"a": {"$in": [1, "x"]}}, [{"a": 1.0}, {"a": ["x"]}], [{"a": 2}, {}, {"a": [["x"]]}]),
    ({"a": {"$in": [None, [2]]}}, [{}, {"a": None}, {"a": [2]}, {"a": [[2]]}], [{"a": 2}]),
    ({"a": {"$in": []}}, [], [{}, {"a": 1}]),
    ({"a": {"$nin": [1, None]}}, [{"a": 2}, {"a": []}], [{}, {"a": [1]}, {"a": None}]),
    ({"a": {"$not": {"$gt": 5}}}, [{"a": 5}, {}, {"a": "9"}, {"a": [1]}], [{"a": 6}, {"a": [1, 6]}]),
    ({"a": {"$not": {"$gt": 5, "$lt": 9}}}, [{"a": 9}], [{"a": 6}, {"a": [1, 99]}]),
    ({"a": {"$not": {"$not": {"$eq": 1}}}}, [{"a": 1}], [{"a": 2}]),
    # Logic.
    ({"a": 1, "b": 2}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
    ({"$and": [{"a": 1}, {"b": 2}]}, [{"a": 1, "b": 2}], [{"a": 1}]),
    ({"$or": [{"a": 1}, {"$and": [{"b": 2}]}]}, [{"a": 1}, {"b": 2}], [{"a": 2}]),
    ({"$nor": [{"a": 1}, {"b": 2}]}, [{}, {"a": 2}], [{"a": 1}, {"b": 2, "a": 3}]),
    # Extended JSON.
    ({"a": {"$oid": str(OID)}}, [{"a": OID}, {"a": [OID]}], [{"a": str(OID)}]),
    ({"a": {"$date": "2024-03-01T12:00:00.005Z"}}, [{"a": DAY}], [{"a": DAY.replace(microsecond=6000)}]),
    ({"a": {"$gte": {"$date": {"$numberLong": "1709294400005"}}}}, [{"a": DAY}], [{"a": DatetimeMS(-(10**15))}]),
    ({"a": {"$lt": {"$date": {"$numberLong": "9000000000000000"}}}}, [{"a": DAY}], [{"a": DatetimeMS(9 * 10**15)}]),
    ({"a": {"$gt": {"$date": "2024-03-01T14:00:00+02:00"}}}, [{"a": DAY}, {"a": DatetimeMS(10**16)}], [{"a": 10**15}]),
    ({"a": {"$numberLong": "5"}}, [{"a": 5}], [{"a": "5"}]),
    ({"a": {"$numberInt": "5"}}, [{"a": 5}], [{"a": "5"}]),
    ({"a": {"$uuid": str(IDENTITY)}}, [{"a": IDENTITY}], [{"a": str(IDENTITY)}]),
    (
        {"a": {"$binary": {"base64": "AQI=", "subType": "00"}}},
        [{"a": b"\1\2"}],
        [{"a": Binary(b"\1\2", 5)}, {"a": b"\1"}],
    ),
    (
        {"a": {"$gt": {"$binary": {"base64": "/w==", "subType": "00"}}}},
        [{"a": b"\0\0"}, {"a": Binary(b"\0", 5)}],
        [{"a": b"\1"}],
    ),
    ({"a": {"$gt": {"$timestamp": {"t": 5, "i": 1}}}}, [{"a": Timestamp(5, 2)}], [{"a": Timestamp(5, 1)}, {"a": DAY}]),
    ({"a": {"b": {"$oid": str(OID)}}}, [{"a": {"b": OID}}], [{"a": {"b": None}}]),
    ({"_id": {"$in": [{"$oid": str(OID)}, 7]}}, [{"_id": OID}, {"_id": 7}], [{"_id": 8}]),
]

# Filter, the place below the filter that is refused, words of the problem.
REFUSALS = [
    ({"tags": {"$elemMatch": {"a": 1}}}, "tags.$elemMatch", "operator $elemMatch is not supported; supported are $eq"),
    ({"a": {"$regex": "x"}}, "a.$regex", "not supported"),
    ({"a": {"$regularExpression": {"pattern": "x", "options": ""}}}, "a.$regularExpression", "not supported"),
    ({"a": {"$in": [{"$regularExpression": {"pattern": "x", "options": ""}}]}}, "a.$in.0.$regularExpression", "value"),
    ({"a": {"$eq": {"$minKey": 1}}}, "a.$eq.$minKey", "not supported as a value; supported are $oid"),
    ({"a": {"$type": "string"}}, "a.$type", "not supported"),
    ({"a": {"$size": 1}}, "a.$size", "not supported"),
    ({"a": {"$gt": 1, "b": 2}}, "a.b", "operator b is not supported"),
    ({"a": {"b": {"$gt": 1}}}, "a.b.$gt", "not supported as a value"),
    ({"a": {"b": 1, "$gt": 1}}, "a.$gt", "not supported inside a value"),
    ({"a": {"$ref": "c", "$id": 1}}, "a.$ref", "not supported"),
    ({"a": {"$not": {"$mod": [2, 0]}}}, "a.$not.$mod", "not supported"),
    ({"a": {"$not": 5}}, "a.$not", "takes an object of operators"),
    ({"a": {"$not": {}}}, "a.$not", "takes an object of operators"),
    ({"a": {"$exists": "yes"}}, "a.$exists", "takes true or false"),
    ({"a": {"$in": 1}}, "a.$in", "takes a list"),
    ({"a": {"$nin": {"b": 1}}}, "a.$nin", "takes a list"),
    ({"a": {"$oid": "xyz"}}, "a.$oid", "no valid $oid"),
    ({"a": {"$oid": str(OID), "b": 1}}, "a.$oid", "no valid $oid"),
    ({"a": {"$date": "yesterday"}}, "a.$date", "no valid $date"),
    ({"a": {"$numberLong": "1.5"}}, "a.$numberLong", "no valid $numberLong"),
    ({"a": {"$numberDecimal": "x"}}, "a.$numberDecimal", "no valid $numberDecimal"),
    ({"a": {"$timestamp": 5}}, "a.$timestamp", "no valid $timestamp"),
    ({"a": {"$uuid": "5"}}, "a.$uuid", "no valid $uuid"),
    ({"a": {"$binary": "AQI="}}, "a.$binary", "no valid $binary"),
    ({"a": 2**63}, "a", "beyond 64 bits"),
    ({"a": ["\ud800"]}, "a.0", "lone surrogate"),
    ({"a": {"b\0": 1}}, "a", "U+0000"),
    ({"$expr": {"$eq": [1, 1]}}, "$expr", "operator $expr is not supported here; supported are $and, $or, $nor"),
    ({"$where": "true"}, "$where", "not supported here"),
    ({"$comment": "x"}, "$comment", "not supported here"),
    ({"$not": {"a": 1}}, "$not", "not supported here"),
    ({"$or": []}, "$or", "a list of at least one filter"),
    ({"$and": {"a": 1}}, "$and", "a list of at least one filter"),
    ({"$nor": [{"a": 1}, 5]}, "$nor.1", "a filter is an object"),
    ({"$or": [{"a": 1}, {"b": {"$all": [1]}}]}, "$or.1.b.$all", "not supported"),
    ({"": 1}, "", "the path is empty"),
    ({"a..b": 1}, "a..b", "empty component"),
    ({"a.$id": 1}, "a.$id", "starts with $"),
    ({"a\0": 1}, "a\0", "U+0000"),
    ({"a\ud800": 1}, "a\ud800", "lone surrogate"),
]

# One of each class that compares, in BSON's order.
ORDER = [
    MinKey(), None, NAN, -1, 0.5, Decimal128("0.75"), Int64(2), "", "a", {}, {"a": 1}, {"b": 1}, {"a": "x"}, [], [1],
    b"", b"\1", Binary(b"\0", 5), IDENTITY, OID, False, True, DatetimeMS(-(10**16)), DAY, Timestamp(1, 1), Regex("x"),
    Code("x"), MaxKey(),
]  # fmt: skip


@pytest.mark.parametrize(("query", "passing", "failing"), CASES, ids=[str(case[0]) for case in CASES])
def test_filter_passes_what_find_returns(query, passing, failing):
    matches = compile_filter(query, "filter")
    assert [document for document in passing if not matches(document)] == []
    assert [document for document in failing if matches(document)] == []


@pytest.mark.parametrize(("query", "place", "words"), REFUSALS, ids=[ascii(case[0]) for case in REFUSALS])
def test_what_is_not_supported_is_refused_at_its_place(query, place, words):
    with pytest.raises(MappingError) as caught:
        compile_filter(query, "tables.message.filter")
    assert caught.value.place == f"tables.message.filter.{place}"
    assert words in caught.value.problem


def test_values_sort_in_the_order_of_bson():
    keys = [order_key(value) for value in ORDER]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_what_is_no_bson_value_has_no_class():
    with pytest.raises(TypeError, match="set is no BSON type"):
        bson_class({1})
