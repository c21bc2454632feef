"""Our filters and paths against the server's own `find` and `aggregate`, on documents and filters made at random."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
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
from pymongo import MongoClient
from pymongo.collection import Collection

from changesource.mapping.filters import compile_filter
from changesource.mapping.paths import reader, split_path
from devtools.secantusdb import SecantusDB

OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    unicode_decode_error_handler="replace",
)
FIELDS = ["a", "b", "0", "1"]
PATHS = ["a", "b", "a.b", "a.a", "b.a", "a.0", "a.1", "a.0.b", "a.b.0", "b.1.a", "a.b.a", "a.0.0"]

# Few values, so that they meet; of every class that compares, and at its edges.
NUMBERS = [
    0, 1, 2, -1, 0.0, -0.0, 1.0, 1.5, 0.1, float("nan"), float("inf"), Int64(1), Int64(2**53 + 1), 2.0**53,
    Decimal128("1"), Decimal128("1.50"), Decimal128("NaN"), Decimal128("9007199254740993"),
]  # fmt: skip
OTHERS = [
    None, True, False, "", "a", "b", "é", "\uffff", "\U00010000",
    ObjectId("65f000000000000000000001"), ObjectId("65f000000000000000000002"),
    datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC), datetime(1960, 3, 1, tzinfo=UTC),
    b"", b"\1", b"\1\2", Binary(b"\1", 5), uuid.UUID(int=1), uuid.UUID(int=2), Timestamp(1, 1), Timestamp(1, 2),
]  # fmt: skip
STAND_IN = "TEST_MONGODB_URI" not in os.environ
if not STAND_IN:
    # Where the stand-in errs in `find`; tests/unit/test_filters.py holds what is right.
    # It takes "01" for an index; MongoDB compares the component with the index as text ("1").
    PATHS.append("a.01")
    # It takes the decimal 0.1 for the double 0.1; by MongoDB's manual ("NumberDecimal", "Use with Equality") they differ.
    NUMBERS.append(Decimal128("0.1"))
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
COMPARISONS = st.one_of(
    st.fixed_dictionaries({operator: LITERALS}) for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
)
MEMBERSHIPS = st.one_of(
    st.fixed_dictionaries({operator: st.lists(LITERALS, max_size=3)}) for operator in ("$in", "$nin")
)
EXISTENCE = st.fixed_dictionaries({"$exists": st.booleans()})
RANGES = st.fixed_dictionaries({"$gte": LITERALS, "$lt": LITERALS})
PLAIN = COMPARISONS | MEMBERSHIPS | EXISTENCE | RANGES
CONDITIONS = PLAIN | st.fixed_dictionaries({"$not": PLAIN}) | LITERALS
CLAUSES = st.dictionaries(st.sampled_from(PATHS), CONDITIONS, min_size=1, max_size=2)
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


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection[dict[str, object]]]:
    uri = os.environ.get("TEST_MONGODB_URI")
    server = None
    if not uri:
        server = SecantusDB(tmp_path_factory.mktemp("secantusdb"))
        server.start()
        uri = server.uri
    with MongoClient[dict[str, object]](uri) as client:
        name = f"filters_{uuid.uuid4().hex[:8]}"
        yield client.get_database(name, codec_options=OPTIONS)["documents"]
        client.drop_database(name)
    if server is not None:
        server.stop()


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


def without_empty(value: object) -> object:
    """``value`` without the empty arrays in it; None for an empty one."""
    if isinstance(value, list):
        return [inner for inner in map(without_empty, value) if inner != []] or None
    return value


@EXAMPLES
@given(st.lists(DOCUMENTS, min_size=30, max_size=40))
def test_column_paths_read_what_aggregation_reads(collection, documents):
    found = stored(collection, documents)
    for path in PATHS:
        if STAND_IN and any(part.isdigit() for part in path.split(".")):
            continue  # It takes numbers for indexes; in MongoDB's aggregation they are names of fields alone.
        read = reader(split_path(path, "path"))
        servers = list(collection.aggregate([{"$sort": {"_id": 1}}, {"$project": {"v": f"${path}"}}]))
        for document, projected in zip(found, servers, strict=True):
            ours, theirs = read(document), projected.get("v")
            if STAND_IN:
                # Where no element of an array has the rest of the path, it says missing and MongoDB an empty array.
                ours, theirs = without_empty(ours), without_empty(theirs)
            # As BSON, where a NaN is equal to itself and 1 is not 1.0.
            assert encoded(ours) == encoded(theirs), (path, document)


def encoded(value: object) -> bytes:
    return bson.encode({"v": value}, codec_options=OPTIONS)
