"""Filters against what MongoDB's manual says of `find`; the server's own answers are in tests/integration."""

from __future__ import annotations

import time
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


def regex(pattern, options=""):
    return {"$regularExpression": {"pattern": pattern, "options": options}}


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
    # DBRefs: their fields may be named, but not first.
    ({"ref.$id": 5}, [{"ref": DBRef("c", 5)}, {"ref": [DBRef("c", 5)]}], [{"ref": DBRef("c", 6)}, {"ref": 5}]),
    ({"ref.$ref": "c", "ref.$db": None}, [{"ref": DBRef("c", 5)}], [{"ref": DBRef("c", 5, "d")}]),
    ({"ref.0.$id": 5}, [{"ref": [DBRef("c", 5)]}], [{"ref": [1, DBRef("c", 5)]}]),
    # $type: of an array the elements' and its own, never those of arrays in it.
    ({"a": {"$type": "string"}}, [{"a": ""}, {"a": [1, "x"]}], [{"a": Code("x")}, {"a": [["x"]]}, {"a": None}, {}]),
    ({"a": {"$type": 2}}, [{"a": ""}], [{"a": 2}]),
    ({"a": {"$type": {"$numberDouble": "2.0"}}}, [{"a": ""}], [{"a": 2}]),
    ({"a": {"$type": "array"}}, [{"a": []}, {"a": [1]}], [{"a": {}}, {}]),
    ({"a.0": {"$type": "array"}}, [{"a": [[]]}], [{"a": [1, []]}]),
    ({"a.0": {"$type": "int"}}, [{"a": [1]}], [{"a": [[1]]}]),
    (
        {"a": {"$type": "number"}},
        [{"a": v} for v in (1, Int64(1), 1.5, Decimal128("1"), NAN)],
        [{"a": True}, {"a": "1"}],
    ),
    ({"a": {"$type": "long"}}, [{"a": Int64(1)}], [{"a": 1}]),
    ({"a": {"$type": ["bool", 10]}}, [{"a": False}, {"a": None}], [{"a": 0}, {}]),
    ({"a": {"$type": -1}}, [{"a": MinKey()}], [{"a": MaxKey()}]),
    ({"a": {"$type": "javascript"}}, [{"a": Code("x")}], [{"a": Code("x", {})}, {"a": "x"}]),
    ({"a": {"$type": "date"}}, [{"a": DAY}, {"a": DatetimeMS(10**16)}], [{"a": Timestamp(1, 1)}]),
    ({"a": {"$type": "binData"}}, [{"a": b""}, {"a": Binary(b"", 5)}, {"a": IDENTITY}], [{"a": ""}]),
    (
        {"a": {"$type": ["object", "regex"]}},
        [{"a": {}}, {"a": DBRef("c", 1)}, {"a": Regex("x")}],
        [{"a": OID}, {"a": []}],
    ),
    # $size: of the array itself.
    (
        {"a": {"$size": 2}},
        [{"a": [1, 2]}, {"a": [[], None]}],
        [{"a": [1]}, {"a": [[1, 2]]}, {"a": {"0": 1, "1": 2}}, {}],
    ),
    ({"a": {"$size": 0}}, [{"a": []}], [{}, {"a": None}, {"a": [[]]}]),
    ({"a": {"$size": {"$numberLong": "1"}}}, [{"a": [1]}], [{"a": []}]),
    ({"a.b": {"$size": 1}}, [{"a": [{"b": []}, {"b": [1]}]}], [{"a": [{"b": 1}]}]),
    ({"a.0": {"$size": 1.0}}, [{"a": [[1]]}], [{"a": [1]}]),
    # $mod: fractions are cut off, and the remainder has the dividend's sign.
    (
        {"a": {"$mod": [4, 0]}},
        [{"a": 0}, {"a": 8.9}, {"a": [1, 12]}, {"a": Decimal128("-4.5")}],
        [{"a": 5}, {"a": "4"}],
    ),
    ({"a": {"$mod": [4, -1]}}, [{"a": -5}, {"a": Decimal128("-1")}], [{"a": 5}, {"a": 3}, {"a": -3}]),
    ({"a": {"$mod": [-4, 1]}}, [{"a": 5}, {"a": 1.7}], [{"a": -5}]),
    ({"a": {"$mod": [4.9, 1.9]}}, [{"a": 5}], [{"a": 0}]),
    ({"a": {"$mod": [{"$numberDecimal": "4.5"}, {"$numberLong": "1"}]}}, [{"a": 5}], [{"a": 4}]),
    ({"a": {"$mod": [2, 0]}}, [{"a": Int64(2**62)}], [{"a": False}, {"a": None}, {}, {"a": [[2]]}]),
    ({"a": {"$mod": [2, 1]}}, [{"a": Int64(2**53 + 1)}, {"a": Decimal128("9007199254740993")}], [{"a": 2.0**53}]),
    (
        {"a": {"$mod": [1, 0]}},
        [{"a": -(2.0**63)}, {"a": Decimal128("9223372036854775807.9")}],
        [{"a": v} for v in (NAN, float("-inf"), 2.0**63, Decimal128("NaN"), Decimal128("1E+6000"))],
    ),
    ({"a": {"$mod": [2**63 - 1, -1]}}, [{"a": Int64(-(2**63))}], [{"a": 1}]),
    # $all: the $and of its members.
    ({"a": {"$all": [1, 2]}}, [{"a": [2, 3, 1]}], [{"a": [1]}, {"a": 1}, {"a": [[1, 2]]}]),
    ({"a": {"$all": [1]}}, [{"a": 1}, {"a": [1]}], [{}]),
    ({"a": {"$all": [[1, 2]]}}, [{"a": [1, 2]}, {"a": [0, [1, 2]]}], [{"a": [[2, 1]]}, {"a": [1, 2, 3]}]),
    ({"a.b": {"$all": [1, 2]}}, [{"a": [{"b": 1}, {"b": 2}]}, {"a": {"b": [1, 2]}}], [{"a": [{"b": 1}]}]),
    ({"a": {"$all": [None]}}, [{}, {"a": None}, {"a": [None]}], [{"a": []}]),
    ({"a": {"$all": []}}, [], [{}, {"a": []}, {"a": [1]}]),
    ({"a": {"$not": {"$all": []}}}, [{}, {"a": []}, {"a": 1}], []),
    ({"a": {"$all": [regex("^x"), "xy"]}}, [{"a": "xy"}, {"a": ["xy"]}, {"a": ["xz", "xy"]}], [{"a": "x"}]),
    ({"a": {"$all": [regex("x", "i")]}}, [{"a": Regex("x", "i")}, {"a": [Regex("x", "i")]}], [{"a": Regex("x")}]),
    (
        {"a": {"$all": [{"$elemMatch": {"b": 1, "c": 1}}, {"$elemMatch": {"b": 2}}]}},
        [{"a": [{"b": 1, "c": 1}, {"b": 2}]}, {"a": [{"b": [1, 2], "c": 1}]}],
        [{"a": [{"b": 1}, {"b": 2, "c": 1}]}, {"a": {"b": 1, "c": 1}}],
    ),
    ({"a": {"$all": [{"$elemMatch": {"$gt": 1, "$lt": 4}}]}}, [{"a": [0, 3]}], [{"a": [0, 5]}, {"a": 3}]),
    # $elemMatch: one element meets everything.
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 4}}}, [{"a": [0, 3]}], [{"a": [0, 5]}, {"a": 3}, {"a": [[3]]}, {}]),
    ({"a": {"$elemMatch": {"$eq": [3]}}}, [{"a": [[3]]}], [{"a": [3]}]),
    ({"a": {"$elemMatch": {"$not": {"$gt": 1}}}}, [{"a": [2, 1]}, {"a": ["x"]}, {"a": [[2]]}], [{"a": [2]}, {"a": []}]),
    ({"a": {"$elemMatch": {"$ne": 1}}}, [{"a": [1, 2]}, {"a": [None]}], [{"a": [1]}, {"a": 2}]),
    ({"a": {"$elemMatch": {"$in": [None, 2]}}}, [{"a": [None]}, {"a": [2]}], [{"a": []}, {"a": [[2]]}, {}]),
    ({"a": {"$elemMatch": {"$nin": [1]}}}, [{"a": [1, 2]}], [{"a": [1]}]),
    ({"a": {"$elemMatch": {"$exists": True}}}, [{"a": [None]}], [{"a": []}]),
    ({"a": {"$elemMatch": {"$exists": False}}}, [], [{"a": []}, {"a": [1]}, {}]),
    ({"a": {"$elemMatch": {"$type": "array", "$size": 1}}}, [{"a": [[1]]}, {"a": [[[]]]}], [{"a": [1]}, {"a": [[]]}]),
    ({"a": {"$elemMatch": {"$elemMatch": {"$gt": 1}}}}, [{"a": [[0, 2]]}], [{"a": [2]}, {"a": [[[2]]]}]),
    ({"a": {"$elemMatch": {"$mod": [2, 1]}}}, [{"a": [2, 3]}], [{"a": [[3]]}]),
    ({"a": {"$elemMatch": {"$all": [[1]]}}}, [{"a": [[1]]}], [{"a": [[[1]]]}, {"a": [1]}]),
    ({"a": {"$elemMatch": {"$regex": "X", "$options": "i"}}}, [{"a": ["ax"]}], [{"a": "ax"}, {"a": [["ax"]]}]),
    (
        {"a": {"$elemMatch": {}}},
        [{"a": [{}]}, {"a": [[]]}, {"a": [1, {"b": 1}]}],
        [{"a": []}, {"a": [1, None]}, {"a": {}}],
    ),
    (
        {"a": {"$elemMatch": {"b": 1, "c": {"$gt": 1}}}},
        [{"a": [{"b": 1, "c": 2}]}, {"a": [0, {"b": [1], "c": [0, 2]}]}],
        [{"a": [{"b": 1}, {"c": 2}]}, {"a": {"b": 1, "c": 2}}, {"a": [[{"b": 1, "c": 2}]]}],
    ),
    (
        {"a": {"$elemMatch": {"b": None}}},
        [{"a": [{}]}, {"a": [{"b": None}]}, {"a": [[1]]}],
        [{"a": [1]}, {"a": [{"b": 1}]}],
    ),
    ({"a": {"$elemMatch": {"b.c": 1}}}, [{"a": [{"b": [{"c": 1}]}]}], [{"a": [{"b": {"c": 2}}]}]),
    ({"a": {"$elemMatch": {"$or": [{"b": 1}, {"c": 1}]}}}, [{"a": [{"c": 1}]}], [{"a": [1]}, {"c": 1}]),
    ({"a": {"$elemMatch": {"b": 1, "$nor": [{"c": 1}]}}}, [{"a": [{"b": 1}]}], [{"a": [{"b": 1, "c": 1}]}]),
    ({"a": {"$elemMatch": {"b": {"$elemMatch": {"c": 1}}}}}, [{"a": [{"b": [{"c": 1}]}]}], [{"a": [{"b": {"c": 1}}]}]),
    ({"a": {"$elemMatch": {"x": 5}}}, [{"a": [DBRef("c", 1, x=5)]}], [{"a": DBRef("c", 1, x=5)}]),
    # Of an array in an array the fields are the indexes.
    ({"a": {"$elemMatch": {"1": 5}}}, [{"a": [["s", 5.0]]}, {"a": [{"1": 5}]}], [{"a": [[5, 6]]}, {"a": [1, 5]}]),
    ({"a": {"$elemMatch": {"0.b": 1, "1": {"$exists": False}}}}, [{"a": [[{"b": 1}]]}], [{"a": [[{"b": 1}, 2]]}]),
    ({"a": {"$elemMatch": {"01": 5}}}, [{"a": [{"01": 5}]}], [{"a": [["s", 5]]}]),
    (
        {"a.b": {"$elemMatch": {"c": 1}}},
        [{"a": [{"b": [{"c": 1}]}, 1]}, {"a": {"b": [{"c": 1}]}}],
        [{"a": [{"b": {"c": 1}}]}],
    ),
    ({"a.0": {"$elemMatch": {"$gt": 1}}}, [{"a": [[2]]}], [{"a": [2]}, {"a": [1, [2]]}]),
    ({"a": {"$not": {"$elemMatch": {"$gt": 1}}}}, [{}, {"a": 2}, {"a": [1]}], [{"a": [2]}]),
    # Regular expressions: PCRE2's, without Unicode classes.
    (
        {"a": regex("^x")},
        [{"a": "xy"}, {"a": ["ax", "x"]}],
        [{"a": "ax"}, {"a": [["x"]]}, {"a": Code("x")}, {"a": 1}, {}],
    ),
    ({"a": {"$regex": "^x"}}, [{"a": "xy"}], [{"a": "ax"}, {"a": "a\nx"}]),
    ({"a": {"$regex": "X", "$options": "i"}}, [{"a": "x"}], [{"a": "y"}]),
    ({"a": {"$options": "i", "$regex": "É"}}, [{"a": "é"}, {"a": "É"}], [{"a": "e"}]),
    ({"a": {"$regex": "^x$", "$options": "m"}}, [{"a": "a\nx\nb"}], [{"a": "ax"}]),
    ({"a": {"$regex": "x$"}}, [{"a": "ax"}, {"a": "x\n"}], [{"a": "x\ny"}]),
    ({"a": {"$regex": "a.b"}}, [{"a": "axb"}, {"a": "aéb"}, {"a": "a\U0001f600b"}], [{"a": "a\nb"}, {"a": "ab"}]),
    ({"a": {"$regex": "a.b", "$options": "s"}}, [{"a": "a\nb"}], [{"a": "ab"}]),
    ({"a": {"$regex": "a b # c", "$options": "x"}}, [{"a": "ab"}], [{"a": "a b"}]),
    ({"a": {"$regex": "A.B", "$options": "imsxu"}}, [{"a": "a\nb"}], [{"a": "ab"}]),
    ({"a": {"$regex": "^\\w$"}}, [{"a": "x"}, {"a": "_"}], [{"a": "é"}, {"a": ""}]),
    ({"a": {"$regex": "^\\d$"}}, [{"a": "1"}], [{"a": "\u0663"}]),
    ({"a": {"$regex": "^[[:alpha:]]++\\z"}}, [{"a": "ab"}], [{"a": "ab\n"}, {"a": "1"}]),
    ({"a": {"$regex": "^(?:x|y)+$"}}, [{"a": "xy" * 100_000}], [{"a": "xy" * 100_000 + "z"}]),
    ({"a": {"$regex": "(?i)x(?!y)"}}, [{"a": "X"}, {"a": "xyX"}], [{"a": "xy"}]),
    ({"a": {"$regex": ""}}, [{"a": ""}, {"a": "x"}, {"a": Regex("")}], [{"a": None}, {"a": Regex("x")}]),
    (
        {"a": {"$regex": regex("X", "i")}},
        [{"a": "x"}, {"a": Regex("X", "i")}],
        [{"a": Regex("X")}, {"a": Regex("x", "i")}],
    ),
    ({"a": {"$regex": regex("X"), "$options": "i"}}, [{"a": "x"}, {"a": Regex("X", "i")}], [{"a": "y"}]),
    ({"a": {"$regex": "x", "$options": "mi"}}, [{"a": Regex("x", "im")}], [{"a": Regex("x", "i")}]),
    ({"a": {"$regex": "x", "$options": "u"}}, [{"a": Regex("x", "u")}, {"a": "x"}], [{"a": Regex("x")}]),
    ({"a": {"$regex": "x", "$ne": "xy"}}, [{"a": "x"}], [{"a": "xy"}]),
    ({"a": {"$in": [regex("^x"), "b", None]}}, [{"a": "xy"}, {"a": "b"}, {"a": ["x"]}, {}], [{"a": "ab"}, {"a": 1}]),
    ({"a": {"$in": [regex("x")]}}, [{"a": Regex("x")}], [{"a": Regex("x", "i")}, {}]),
    ({"a": {"$nin": [regex("^x")]}}, [{"a": "ax"}, {"a": 1}, {}], [{"a": "x"}, {"a": ["a", "x"]}]),
    ({"a": {"$not": regex("^x")}}, [{"a": "ax"}, {"a": 1}, {}], [{"a": "x"}, {"a": ["a", "x"]}]),
    ({"a": {"$not": {"$regex": "X", "$options": "i"}}}, [{"a": "y"}, {}], [{"a": "x"}]),
    # In a value they are equal to themselves alone.
    ({"a": {"b": regex("x")}}, [{"a": {"b": Regex("x")}}], [{"a": {"b": "x"}}, {"a": {"b": Regex("x", "i")}}]),
    ({"a": [regex("x", "mi")]}, [{"a": [Regex("x", "im")]}], [{"a": ["x"]}]),
    # $expr: an expression of the whole document, by the reading of aggregation.
    ({"$expr": {"$gt": ["$a", "$b"]}}, [{"a": 2, "b": 1}, {"a": "x", "b": 1}, {"a": 0}], [{"a": 1, "b": 1}, {}]),
    ({"$expr": {"$eq": ["$a.b", [1, 2]]}}, [{"a": [{"b": 1}, {"b": 2}]}, {"a": {"b": [1, 2]}}], [{"a": {"b": 1}}]),
    ({"$expr": {"$eq": ["$a", 1]}}, [{"a": 1.0}], [{"a": [1]}]),
    ({"$expr": {"$in": ["x", "$a"]}}, [{"a": ["x"]}], [{"a": []}]),
    (
        {"$expr": "$a"},
        [{"a": 1}, {"a": ""}, {"a": []}, {"a": NAN}],
        [{"a": 0}, {"a": Decimal128("0")}, {"a": None}, {}],
    ),
    ({"$expr": True}, [{}], []),
    ({"b": 1, "$nor": [{"$expr": {"$eq": ["$a", "$b"]}}]}, [{"b": 1}], [{"a": 1, "b": 1}, {"b": 2}]),
]

# Filter, the place below the filter that is refused, words of the problem.
REFUSALS = [
    ({"tags": {"$slice": 1}}, "tags.$slice", "operator $slice is not supported; supported are $eq"),
    ({"a": {"$gt": 1, "$bitsAllSet": 1}}, "a.$bitsAllSet", "not supported"),
    ({"a": {"$geoWithin": {}}}, "a.$geoWithin", "not supported"),
    ({"a": {"$near": [0, 0]}}, "a.$near", "not supported"),
    ({"a": {"$nearSphere": [0, 0]}}, "a.$nearSphere", "not supported"),
    ({"a": {"$expr": True}}, "a.$expr", "not supported"),
    ({"a": {"$and": [{"$gt": 1}]}}, "a.$and", "not supported"),
    ({"a": {"$eq": {"$minKey": 1}}}, "a.$eq.$minKey", "not supported as a value; supported are $oid"),
    ({"a": {"$gt": 1, "b": 2}}, "a.b", "operator b is not supported"),
    ({"a": {"b": {"$gt": 1}}}, "a.b.$gt", "not supported as a value"),
    ({"a": {"b": 1, "$gt": 1}}, "a.$gt", "not supported inside a value"),
    ({"a": {"$ref": "c", "$id": 1}}, "a.$ref", "not supported"),
    ({"a": {"$options": "i"}}, "a.$options", "stands beside $regex only"),
    ({"a": {"$not": {"$options": "i", "$eq": "x"}}}, "a.$not.$options", "stands beside $regex only"),
    ({"a": {"$regex": "x", "$options": 1}}, "a.$options", "takes a string"),
    ({"a": {"$regex": "x", "$options": "ig"}}, "a.$options", "the option 'g' is none of i, m, s, x, u"),
    ({"a": {"$regex": regex("x", "i"), "$options": "m"}}, "a.$options", "has options of its own"),
    ({"a": {"$regex": 1}}, "a.$regex", "takes a string or a regular expression"),
    ({"a": {"$regex": "(x"}}, "a.$regex", "no valid regular expression: compilation failed at position 2"),
    ({"a": {"$regex": "x\0"}}, "a.$regex", "U+0000"),
    ({"a": {"$regex": regex("x", "g")}}, "a.$regex.$regularExpression", "the option 'g' is none of"),
    ({"a": regex("*")}, "a.$regularExpression", "no valid regular expression"),
    ({"a": regex("x", "l")}, "a.$regularExpression", "the option 'l' is none of"),
    ({"a": {"$regularExpression": {"pattern": "x"}}}, "a.$regularExpression", "no valid $regularExpression"),
    ({"a": {"$in": [1, regex("(")]}}, "a.$in.1.$regularExpression", "no valid regular expression"),
    ({"a": {"$in": [{"$regex": "x"}]}}, "a.$in.0.$regex", "not supported as a value"),
    ({"a": {"$eq": regex("x")}}, "a.$eq", "cannot be compared; use $regex"),
    ({"a": {"$ne": regex("x")}}, "a.$ne", "cannot be compared"),
    ({"a": {"$gte": regex("x")}}, "a.$gte", "cannot be compared"),
    ({"a": {"$not": regex("x", "g")}}, "a.$not.$regularExpression", "the option 'g' is none of"),
    ({"a": {"$type": "text"}}, "a.$type", "no BSON type; types are number, double, string"),
    ({"a": {"$type": 0}}, "a.$type", "no BSON type"),
    ({"a": {"$type": 2.5}}, "a.$type", "no BSON type"),
    ({"a": {"$type": True}}, "a.$type", "no BSON type"),
    ({"a": {"$type": {"b": 1}}}, "a.$type", "no BSON type"),
    ({"a": {"$type": ["int", "missing"]}}, "a.$type.1", "no BSON type"),
    ({"a": {"$type": []}}, "a.$type", "names no type"),
    ({"a": {"$type": "undefined"}}, "a.$type", "the deprecated type undefined cannot be told: it is read as null"),
    ({"a": {"$type": [14]}}, "a.$type.0", "the deprecated type symbol"),
    ({"a": {"$mod": [2, 0, 1]}}, "a.$mod", "a list of divisor and remainder"),
    ({"a": {"$mod": 2}}, "a.$mod", "a list of divisor and remainder"),
    ({"a": {"$not": {"$mod": [0, 0]}}}, "a.$not.$mod.0", "cannot be 0"),
    ({"a": {"$mod": [0.5, 0]}}, "a.$mod.0", "cannot be 0"),
    ({"a": {"$mod": [2, "0"]}}, "a.$mod.1", "a number of 64 bits"),
    ({"a": {"$mod": [{"$numberDouble": "NaN"}, 0]}}, "a.$mod.0", "a number of 64 bits"),
    ({"a": {"$mod": [{"$numberDecimal": "1E+6000"}, 0]}}, "a.$mod.0", "a number of 64 bits"),
    ({"a": {"$mod": [2, True]}}, "a.$mod.1", "a number of 64 bits"),
    ({"a": {"$size": -1}}, "a.$size", "an integer that is not negative"),
    ({"a": {"$size": 1.5}}, "a.$size", "an integer that is not negative"),
    ({"a": {"$size": "1"}}, "a.$size", "an integer that is not negative"),
    ({"a": {"$all": 1}}, "a.$all", "takes a list"),
    ({"a": {"$all": [{"$gt": 1}]}}, "a.$all.0.$gt", "not supported as a value"),
    ({"a": {"$all": [{"$elemMatch": {}}, 1]}}, "a.$all.1", "all are, and hold it alone"),
    ({"a": {"$all": [1, {"$elemMatch": {}}]}}, "a.$all.0", "all are, and hold it alone"),
    ({"a": {"$all": [{"$elemMatch": {}, "$gt": 1}]}}, "a.$all.0", "all are, and hold it alone"),
    ({"a": {"$all": [{"$elemMatch": {"$where": "x"}}]}}, "a.$all.0.$elemMatch.$where", "not supported"),
    ({"a": {"$elemMatch": 1}}, "a.$elemMatch", "takes an object"),
    ({"a": {"$elemMatch": {"$gt": 1, "$or": []}}}, "a.$elemMatch.$or", "operator $or is not supported"),
    ({"a": {"$elemMatch": {"b": 1, "$where": "x"}}}, "a.$elemMatch.$where", "not supported here"),
    ({"a": {"$elemMatch": {"b": {"$size": "x"}}}}, "a.$elemMatch.b.$size", "an integer"),
    ({"a": {"$elemMatch": {"$expr": True}}}, "a.$elemMatch.$expr", "cannot stand inside $elemMatch"),
    ({"a": {"$elemMatch": {"$or": [{"$expr": True}]}}}, "a.$elemMatch.$or.0.$expr", "cannot stand inside $elemMatch"),
    ({"a": {"$elemMatch": {"$id": 1}}}, "a.$elemMatch.$id", "not supported"),
    ({"$expr": {"$gt": ["$a", {"$rand": {}}]}}, "$expr.$gt.1.$rand", "not supported"),
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
    ({"a": {"$numberLong": str(2**63)}}, "a.$numberLong", "beyond 64 bits"),
    ({"a": {"$in": [{"$numberInt": str(-(2**63) - 1)}]}}, "a.$in.0.$numberInt", "beyond 64 bits"),
    ({"a": ["\ud800"]}, "a.0", "lone surrogate"),
    ({"a": {"b\0": 1}}, "a", "U+0000"),
    ({"$where": "true"}, "$where", "operator $where is not supported here; supported are $and, $or, $nor, $expr"),
    ({"$text": {"$search": "x"}}, "$text", "not supported here"),
    ({"$jsonSchema": {}}, "$jsonSchema", "not supported here"),
    ({"$sampleRate": 0.5}, "$sampleRate", "not supported here"),
    ({"$and": [{"$near": [0, 0]}]}, "$and.0.$near", "not supported here"),
    ({"$comment": "x"}, "$comment", "not supported here"),
    ({"$not": {"a": 1}}, "$not", "not supported here"),
    ({"$or": []}, "$or", "a list of at least one filter"),
    ({"$and": {"a": 1}}, "$and", "a list of at least one filter"),
    ({"$nor": [{"a": 1}, 5]}, "$nor.1", "a filter is an object"),
    ({"$or": [{"a": 1}, {"b": {"$rename": "c"}}]}, "$or.1.b.$rename", "not supported"),
    ({"": 1}, "", "the path is empty"),
    ({"a..b": 1}, "a..b", "empty component"),
    ({"a.$ids": 1}, "a.$ids", "starts with $"),
    ({"$id": 1}, "$id", "not supported here"),
    ({"a\0": 1}, "a\0", "U+0000"),
    ({"a\ud800": 1}, "a\ud800", "lone surrogate"),
]

# One of each class that compares, in BSON's order.
ORDER = [
    MinKey(), None, NAN, -1, 0.5, Decimal128("0.75"), Int64(2), "", "a", {}, {"a": 1}, {"b": 1}, {"a": "x"}, [], [1],
    b"", b"\1", Binary(b"\0", 5), IDENTITY, OID, False, True, DatetimeMS(-(10**16)), DAY, Timestamp(1, 1), Regex("x"),
    Regex("x", "i"), Regex("x", "im"), Regex("y"), Code("x"), Code("y"), Code("x", {}), Code("x", {"a": 1}), MaxKey(),
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


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "^(([a-z])+.)+[A-Z]$"])
def test_a_regular_expression_that_never_ends_is_an_error(pattern):
    matches = compile_filter({"a": {"$in": [regex(pattern)]}}, "filter")
    started = time.thread_time()
    with pytest.raises(ValueError, match="the regular expression takes too many steps"):
        matches({"a": ["a" * 50_000 + "!"]})
    assert time.thread_time() - started < 2


def test_values_sort_in_the_order_of_bson():
    keys = [order_key(value) for value in ORDER]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_what_is_no_bson_value_has_no_class():
    with pytest.raises(TypeError, match="set is no BSON type"):
        bson_class({1})
