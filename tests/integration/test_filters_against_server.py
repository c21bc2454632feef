"""Our filters and paths against the server's own `find` and `aggregate`, on documents and filters made at random."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, dumps
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.database import Database

from changesource.mapping.filters import compile_filter
from changesource.mapping.paths import reader, split_path

OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    unicode_decode_error_handler="replace",
)
FIELDS = ["a", "b", "0", "1"]
PATHS = ["a", "b", "a.b", "a.a", "b.a", "a.b.a"]
INDEXED_PATHS = ["a.0", "a.1", "a.0.b", "a.b.0", "b.1.a", "a.0.0"]

# Few values, so that they meet; of every class that compares, and at its edges.
NUMBERS = [
    0, 1, 2, -1, 0.0, -0.0, 1.0, 1.5, 0.1, float("nan"), float("inf"), Int64(1), Int64(2**53 + 1), 2.0**53,
    Decimal128("1"), Decimal128("1.50"), Decimal128("NaN"), Decimal128("9007199254740993"),
]  # fmt: skip
OTHERS = [
    None, True, False, "", "a", "b", "é", "\uffff", "\U00010000",
    ObjectId("65f000000000000000000001"), ObjectId("65f000000000000000000002"),
    datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC), datetime(1960, 3, 1, tzinfo=UTC),
    b"", b"\1", b"\1\2", Binary(b"\1", 5), uuid.UUID(int=2**128 - 1), uuid.UUID(int=2**128 - 2),
    Timestamp(1, 1), Timestamp(1, 2),
]  # fmt: skip
# Where the stand-in errs; tests/unit/test_filters.py and test_rows.py hold what is right, and a MongoDB is asked all.
# 1. It takes "01" in a path for an index; MongoDB compares the component with the index as text ("1").
# 2. Null matches where an array lacks the index that a path names; MongoDB looks at elements that are there, and at
#    nothing where none is ("When the path refers to an array, the iteration logic does not return an EOO",
#    src/mongo/db/matcher/path_test.cpp).
# 3. The decimal 0.1 is the double 0.1; in MongoDB they differ (mongosh: "Data Types", "Equality and Sort Order").
# 4. Binary data compares by bytes first; MongoDB compares length, subtype, bytes (manual: "Comparison/Sort Order").
# 5. Aggregation's "$a.b" is missing where it enters an array; in MongoDB it is the array of what was found
#    (manual: "Field Paths").
STAND_IN = "TEST_MONGODB_URI" not in os.environ
if not STAND_IN:
    INDEXED_PATHS.append("a.01")
    NUMBERS.append(Decimal128("0.1"))
    OTHERS.append(uuid.UUID(int=1))
# What a document may hold and no filter can name.
STRANGE = [MinKey(), MaxKey(), Regex("a")]


def nested(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
        ),
        max_leaves=5,
    )  # fmt: skip


LITERALS = nested(st.sampled_from(NUMBERS) | st.sampled_from(OTHERS))
VALUES = nested(st.sampled_from(NUMBERS) | st.sampled_from(OTHERS) | st.sampled_from(STRANGE))
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2)


def conditions(literals: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """What may stand beside a path: a value, or operators."""
    comparisons = [
        st.fixed_dictionaries({operator: literals}) for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
    ]
    memberships = [st.fixed_dictionaries({operator: st.lists(literals, max_size=3)}) for operator in ("$in", "$nin")]
    ranges = st.fixed_dictionaries({"$gte": literals, "$lt": literals})
    plain = st.one_of(*comparisons, *memberships, ranges, st.fixed_dictionaries({"$exists": st.booleans()}))
    return plain | st.fixed_dictionaries({"$not": plain}) | literals


NOT_NULL = LITERALS.filter(lambda literal: literal is not None)
CLAUSES = st.one_of(
    st.dictionaries(st.sampled_from(PATHS), conditions(LITERALS), min_size=1, max_size=2),
    st.dictionaries(
        st.sampled_from(INDEXED_PATHS), conditions(NOT_NULL if STAND_IN else LITERALS), min_size=1, max_size=2
    ),
)
FILTERS = st.recursive(
    CLAUSES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({operator: st.lists(inner, min_size=1, max_size=2)})
        for operator in ("$and", "$or", "$nor")
    ),
    max_leaves=3,
)
# No shrinking: an example is a whole collection, and the message names the one filter and documents.
EXAMPLES = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def collection(mongo: Database[dict[str, object]]) -> Collection[dict[str, object]]:
    return mongo.get_collection("documents", codec_options=OPTIONS)


def stored(collection: Collection[dict[str, object]], documents: list[dict[str, object]]) -> list[dict[str, object]]:
    """The documents as the collection gives them back, it holding nothing else."""
    collection.delete_many({})
    collection.insert_many([{"_id": index, **document} for index, document in enumerate(documents)])
    return list(collection.find().sort("_id"))


@EXAMPLES
@given(st.lists(DOCUMENTS, min_size=30, max_size=40), st.lists(FILTERS, min_size=12, max_size=16), st.booleans())
def test_filters_pass_what_find_returns(collection, documents, filters, canonical):
    found = stored(collection, documents)
    options = (CANONICAL_JSON_OPTIONS if canonical else RELAXED_JSON_OPTIONS).with_options(
        uuid_representation=UuidRepresentation.STANDARD
    )
    for query in filters:
        matches = compile_filter(json.loads(dumps(query, json_options=options)), "filter")
        ours = [document["_id"] for document in found if matches(document)]
        servers = sorted(document["_id"] for document in collection.find(query, {"_id": 1}))
        wrong = [document for document in found if document["_id"] in set(ours) ^ set(servers)]
        assert ours == servers, f"{query} on {wrong}: ours {ours}, the server's {servers}"


@EXAMPLES
@given(st.lists(DOCUMENTS, min_size=30, max_size=40))
def test_column_paths_read_what_aggregation_reads(collection, documents):
    found = stored(collection, documents)
    for path in PATHS + INDEXED_PATHS:
        parts = split_path(path, "path")
        read = reader(parts)
        servers = list(collection.aggregate([{"$sort": {"_id": 1}}, {"$project": {"v": f"${path}"}}]))
        for document, projected in zip(found, servers, strict=True):
            if STAND_IN and enters_array(document, parts):
                continue
            # As BSON, where a NaN is equal to itself and 1 is not 1.0.
            assert encoded(read(document)) == encoded(projected.get("v")), (path, document)


def enters_array(document: dict[str, object], path: tuple[str, ...]) -> bool:
    value: object = document
    for part in path:
        if isinstance(value, list):
            return True
        value = value.get(part) if isinstance(value, dict) else None
    return False


def encoded(value: object) -> bytes:
    return bson.encode({"v": value}, codec_options=OPTIONS)
