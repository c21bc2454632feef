"""Our filters and paths against the server's own `find` and `aggregate`, on documents and filters made at random."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, dumps
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.database import Database

from changesource.mapping.filters import FIELD_OPERATORS, LOGICAL, TOP_LEVEL, compile_filter, is_operators
from changesource.mapping.paths import reader, split_path

Values = st.SearchStrategy[object]

OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    unicode_decode_error_handler="replace",
)
OPERATORS = (*FIELD_OPERATORS, *TOP_LEVEL)
FIELDS = ["a", "b", "0", "1"]
PATHS = ["a", "b", "a.b", "a.a", "b.a", "a.b.a"]
INDEXED_PATHS = ["a.0", "a.1", "a.0.b", "a.b.0", "b.1.a", "a.0.0"]

# Few values, so that they meet; of every class that compares, and at its edges.
NUMBERS = [
    0, 1, 2, -1, -5, 0.0, -0.0, 1.0, 1.5, 0.1, float("nan"), float("inf"), Int64(1), Int64(2**53 + 1), 2.0**53,
    Decimal128("1"), Decimal128("1.50"), Decimal128("NaN"), Decimal128("9007199254740993"),
]  # fmt: skip
BEYOND_DOUBLES = [Int64(2**53 + 1), Decimal128("9007199254740993")]
STRINGS = ["", "a", "b", "ab", "A\nb", "é", "\uffff", "\U00010000"]
OTHERS = [
    None, True, False,
    ObjectId("65f000000000000000000001"), ObjectId("65f000000000000000000002"),
    datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC), datetime(1960, 3, 1, tzinfo=UTC),
    b"", b"\1", b"\1\2", Binary(b"\2\2", 5), uuid.UUID(int=2**128 - 1), uuid.UUID(int=2**128 - 2),
    Timestamp(1, 1), Timestamp(1, 2),
]  # fmt: skip
# Those that mean the same to PCRE2 and to Python, whose the stand-in's are.
PATTERNS = ["a", "^a", "b$", "A", ".", "^.$", "^$", "[^a]", "a|\\d", "^b # x", "É", "(?i)B", "a(?!b)", "A.b"]
REGEX_OPTIONS = ["", "i", "m", "s", "x", "ims", "imsx"]
TYPES = [
    "double", "string", "object", "array", "binData", "objectId", "bool", "date", "null", "regex", "javascript",
    "javascriptWithScope", "int", "timestamp", "long", "decimal", "minKey", "maxKey", "number",
    1, 2, 3.0, Int64(4), 10, 16, 18, 19, -1, 127,
]  # fmt: skip
DIVISORS = [1, 2, 3, -2, 2.5, Int64(3), Decimal128("2.9")]
REMAINDERS = [0, 1, -1, 2, 1.0, Int64(0)]
# Where the stand-in errs; tests/unit/test_filters.py and test_rows.py hold what is right, and a MongoDB is asked all.
# 1. It takes "01" in a path for an index; MongoDB compares the component with the index as text ("1").
# 2. Null matches where an array lacks the index that a path names; MongoDB looks at elements that are there, and at
#    nothing where none is ("When the path refers to an array, the iteration logic does not return an EOO",
#    src/mongo/db/matcher/path_test.cpp).
# 3. The decimal 0.1 is the double 0.1; in MongoDB they differ (mongosh: "Data Types", "Equality and Sort Order").
# 4. Binary data compares by bytes first; MongoDB compares length, subtype, bytes (manual: "Comparison/Sort Order").
# 5. Aggregation's "$a.b" is missing where it enters an array; in MongoDB it is the array of what was found
#    (manual: "Field Paths").
# 6. `$all` wants one of the values that a path reaches to meet all members, and compares no array as a whole, no null
#    with what is missing, and no regular expression with a stored one; in MongoDB it is the `$and` of its members
#    (manual: "$all", "Equivalent to $and Operation", "Nested Array").
# 7. `$elemMatch` with a filter looks at no array in an array, and takes no filter of `$and`, `$or`, `$nor` alone; in
#    MongoDB an array's fields are its indexes (MatchesElementArray, src/mongo/db/matcher/expression_array_test.cpp),
#    and such a filter is one (parseElemMatch, src/mongo/db/matcher/expression_parser.cpp).
# 8. `$mod` computes with doubles, enters an array that is an element, and compares the remainder as it stands; MongoDB
#    computes with 64 bits and cuts fractions off (manual: "$mod"; ModMatchExpression,
#    src/mongo/db/matcher/expression_leaf.cpp).
# 9. It finds no field in a DBRef, and takes none for a document; in MongoDB a DBRef is a document (manual: "Database
#    References").
STAND_IN = "TEST_MONGODB_URI" not in os.environ
if not STAND_IN:
    INDEXED_PATHS.append("a.01")
    NUMBERS.append(Decimal128("0.1"))
    OTHERS.extend([uuid.UUID(int=1), Binary(b"\1", 5)])
    REMAINDERS.extend([1.5, Decimal128("1.9")])
    PATHS.extend(["a.$id", "b.$ref", "a.b.$id"])
    INDEXED_PATHS.append("a.0.$id")
# What a document may hold and no filter can name.
STRANGE: list[object] = [MinKey(), MaxKey(), Regex("a"), Regex("a", "i"), Code("a"), Code("a", {})]
if not STAND_IN:
    STRANGE.extend([DBRef("b", 1), DBRef("a", "b", "a")])


def nested(leaves: Values) -> Values:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
        ),
        max_leaves=5,
    )  # fmt: skip


LEAVES = st.sampled_from(NUMBERS) | st.sampled_from(STRINGS) | st.sampled_from(OTHERS)
VALUES = st.one_of(
    nested(LEAVES | st.sampled_from(STRANGE)),
    st.lists(LEAVES, max_size=3),
    st.lists(st.dictionaries(st.sampled_from(FIELDS), LEAVES, max_size=3), max_size=2),
)
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b"]), VALUES, min_size=1, max_size=2)
NOT_NULL = LEAVES.filter(lambda leaf: leaf is not None)
REGEXES = st.builds(Regex, st.sampled_from(PATTERNS), st.sampled_from(REGEX_OPTIONS))
# The stand-in is asked for `$all` at some paths only (6).
ANYWHERE = [operator for operator in FIELD_OPERATORS if not (STAND_IN and operator == "$all")]
LEAST = [operator for operator in ANYWHERE if operator not in ("$all", "$elemMatch", "$not")]


def parts(value: object, in_array: bool = False) -> Iterator[tuple[object, bool]]:
    """The value and all values inside it, each with whether it is an array's element."""
    yield value, in_array
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from parts(inner, isinstance(value, list))


def reached(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The paths that lead to something, with and without indexes, and what they lead to."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in inner:
        path = f"{prefix}.{name}".removeprefix(".")
        yield path, member
        yield from reached(member, path)
        if isinstance(value, list) and prefix:
            yield prefix, member
            yield from reached(member, prefix)


def is_literal(value: object) -> bool:
    """Whether a filter can name the value; one that is no regular expression."""
    strange = MinKey | MaxKey | Code | DBRef
    return not isinstance(value, Regex) and not any(isinstance(inner, strange) for inner, _ in parts(value))


def is_safe_member(value: object) -> bool:
    """Whether the stand-in compares a member of `$all` as MongoDB does (6)."""
    return value is not None and not isinstance(value, list | Regex)


def is_indexed(path: str) -> bool:
    return any(map(str.isdigit, path))


class Filters:
    """Draws filters for some documents: they name paths and values of the documents, and others."""

    def __init__(self, draw: st.DrawFn, documents: list[dict[str, object]]) -> None:
        self.draw = draw
        self.found: dict[str, list[object]] = defaultdict(list)
        self.elements: list[dict[str, object]] = []
        for path, value in (found for document in documents for found in reached(document)):
            if is_literal(value):
                self.found[path].append(value)
            if isinstance(value, list):
                self.elements.extend(element for element in value if isinstance(element, dict))
        self.paths = [list(self.found) or PATHS, ["a", "b"], [*PATHS, *INDEXED_PATHS]]

    @cached_property
    def of_elements(self) -> Filters:
        """Those for the documents in the documents' arrays."""
        return Filters(self.draw, self.elements)

    def choice(self, among: Sequence[Any]) -> Any:
        # Not by a strategy for each list: making it takes longer than the draw.
        return among[self.draw(CHOICES) % len(among)]

    def rarely(self) -> bool:
        return self.choice(range(8)) == 7

    def filter(self, operator: str) -> dict[str, object]:
        """A filter in which the operator occurs."""
        own = self.alone(operator)
        around = self.choice([None, None, None, "$or", "$or", "$or", "beside", "$and", "$nor"])
        if around is None:
            return own
        if around == "beside":
            return {**self.clause(), **own}
        others = [self.choice(OPERATORS) for _ in range(1 if around == "$and" else self.choice([1, 2, 3]))]
        return {around: [own, *map(self.alone, others)]}

    def alone(self, operator: str, depth: int = 2) -> dict[str, object]:
        """A filter of the operator, with what it takes."""
        if operator == "$expr":
            return {"$expr": self.draw(EXPRESSIONS)}
        if operator in LOGICAL:
            return {operator: [self.clause(None, depth) for _ in range(self.choice([1, 2]))]}
        if self.rarely():
            return {self.choice(["a", "b"]): {"$elemMatch": self.of_elements.clause(operator)}}
        return self.clause(operator)

    def clause(self, operator: str | None = None, depth: int = 2) -> dict[str, object]:
        """A path, and the operator beside it; another, or a value, where none is given."""
        at = ["a", "b"] if STAND_IN and operator == "$all" else self.choice(self.paths)
        path = self.choice(at)
        literal = self.literals(path)
        if operator is not None:
            return {path: self.conditions(operator, literal, depth)}
        kind = self.choice(["value", "regex", "operators", "operators"])
        if kind == "operators":
            return {path: self.some(literal, depth)}
        return {path: literal() if kind == "value" else self.draw(REGEXES)}

    def literals(self, path: str) -> Callable[[], object]:
        """Draws values: of the documents at this path, and others."""
        null = not (STAND_IN and is_indexed(path))  # 2
        others = LEAVES if null else NOT_NULL
        values = [value for value in self.found[path] if null or value is not None]
        return lambda: self.choice(values) if values and self.draw(st.booleans()) else self.draw(others)

    def conditions(self, operator: str, literal: Callable[[], object], depth: int) -> dict[str, object]:
        """An object of operators, among them the one that is given."""
        own = self.arguments(operator, literal, depth)
        others = self.arguments(self.choice(LEAST), literal, depth) if self.rarely() else {}
        return {**own, **others} if set(own).isdisjoint(others) else own

    def some(self, literal: Callable[[], object], depth: int) -> dict[str, object]:
        """An object of operators."""
        return self.conditions(self.choice(ANYWHERE if depth else LEAST), literal, depth)

    def arguments(self, operator: str, literal: Callable[[], object], depth: int) -> dict[str, object]:
        """The operator with what it takes; `$options` with `$regex`."""
        if operator == "$options":
            pair = {"$regex": self.choice(PATTERNS), "$options": self.choice(REGEX_OPTIONS)}
            return pair if self.draw(st.booleans()) else dict(reversed(pair.items()))
        own: object
        if operator in ARGUMENTS:
            own = self.draw(ARGUMENTS[operator])
        elif operator in ("$in", "$nin"):
            own = self.list_of(literal)
        elif operator == "$not":
            own = self.draw(REGEXES) if self.rarely() else self.some(literal, depth - 1)
        elif operator == "$elemMatch":
            own = self.of_element(literal, depth - 1)
        elif operator == "$all":
            own = self.members(literal, depth - 1)
        else:
            own = literal()
        return {operator: own}

    def list_of(self, literal: Callable[[], object]) -> list[object]:
        return [self.draw(REGEXES) if self.rarely() else literal() for _ in range(self.choice(range(4)))]

    def of_element(self, literal: Callable[[], object], depth: int) -> dict[str, object]:
        """What `$elemMatch` takes: operators, or a filter."""
        kind = self.choice(["empty", *["operators"] * 4, *["fields"] * 3, "logical"])
        if kind == "empty":
            return {}
        if kind == "operators":
            return self.some(literal, depth)
        fields = self.of_elements.clause(None, depth)
        if kind == "fields":
            return fields
        logical = self.of_elements.alone(self.choice(LOGICAL), depth)
        return {**fields, **logical} if STAND_IN or self.draw(st.booleans()) else logical  # 7

    def members(self, literal: Callable[[], object], depth: int) -> list[object]:
        """What `$all` takes; often the elements of an array."""
        if self.draw(st.booleans()):
            return [{"$elemMatch": self.of_element(literal, depth)} for _ in range(self.choice([1, 2]))]
        values = self.list_of(literal) if self.rarely() else literal()
        some = values if isinstance(values, list) else [values]
        return list(filter(is_safe_member, some)) if STAND_IN else some


@st.composite
def collections_and_filters(draw: st.DrawFn) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Documents, and for each operator a filter that holds it."""
    documents = draw(st.lists(DOCUMENTS, min_size=30, max_size=40))
    return documents, list(map(Filters(draw, documents).filter, OPERATORS))


CHOICES = st.integers(0, 9999)
ARGUMENTS: dict[str, Values] = {
    "$exists": st.booleans(),
    "$type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3),
    "$regex": st.sampled_from(PATTERNS) | REGEXES,
    "$mod": st.tuples(st.sampled_from(DIVISORS), st.sampled_from(REMAINDERS)).map(list),
    "$size": st.sampled_from([0, 1, 2, 3, 1.0, Int64(2)]),
}
OPERANDS = st.sampled_from(["$a", "$b"] if STAND_IN else ["$a", "$b", "$a.b", "$b.a"]) | LEAVES
COMPARISONS = st.one_of(
    st.fixed_dictionaries({operator: st.tuples(OPERANDS, OPERANDS).map(list)})
    for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
)
EXPRESSIONS = OPERANDS | st.recursive(
    COMPARISONS,
    lambda inner: (
        st.fixed_dictionaries({"$and": st.lists(inner, max_size=2)})
        | st.fixed_dictionaries({"$or": st.lists(inner, max_size=2)})
        | st.fixed_dictionaries({"$not": inner})
    ),
    max_leaves=3,
)
# No shrinking: a collection is large, and the message names the one filter and documents.
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


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_filters_pass_what_find_returns(collection, rounds):
    """An example is a filter with a collection; each operator is in fifty or more that pass some document."""
    passing: Counter[str] = Counter()
    done: Counter[str] = Counter()

    def compare(drawn, canonical):
        documents, queries = drawn
        if repr(documents) in done:
            return
        found = stored(collection, documents)
        options = (CANONICAL_JSON_OPTIONS if canonical else RELAXED_JSON_OPTIONS).with_options(
            uuid_representation=UuidRepresentation.STANDARD
        )
        for query in queries:
            matches = compile_filter(json.loads(dumps(query, json_options=options)), "filter")
            servers = {document["_id"] for document in collection.find(query, {"_id": 1})}
            asked = [document for document in found if not (STAND_IN and errs(query, document))]
            wrong = [document for document in asked if matches(document) != (document["_id"] in servers)]
            assert wrong == [], f"{query} passes these by us alone or by the server alone"
            done[repr(documents)] += 1
            if any(document["_id"] in servers for document in asked):
                passing.update({operator for operator, _ in operators_of(query)})

    # Beyond ten examples Hypothesis varies those that it had, and of a whole collection too little.
    tens = settings(EXAMPLES, max_examples=10)
    for number in range(rounds):
        seed(number)(tens(given(collections_and_filters(), st.booleans())(compare)))()
    assert done.total() >= 10_000 * rounds / 60
    assert {operator: passing[operator] for operator in OPERATORS if passing[operator] < 50} == {}


def operators_of(query: object) -> Iterator[tuple[str, object]]:
    """The operators that occur in a filter, with their arguments; not those of expressions."""
    if isinstance(query, dict):
        for key, value in query.items():
            if key in OPERATORS:
                yield key, value
            if key != "$expr":
                yield from operators_of(value)
    elif isinstance(query, list):
        for member in query:
            yield from operators_of(member)


def errs(query: dict[str, object], document: dict[str, object]) -> bool:
    """Whether the stand-in is known to err on this document (7, 8)."""
    counts = any(operator == "$mod" for operator, _ in operators_of(query))
    looks_inside = any(operator == "$elemMatch" and not is_operators(value) for operator, value in operators_of(query))
    for value, in_array in parts(document):
        if in_array and isinstance(value, list) and (counts or looks_inside):
            return True
        if counts and value in BEYOND_DOUBLES:
            return True
    return False


@EXAMPLES
@given(st.lists(DOCUMENTS, min_size=30, max_size=40))
def test_column_paths_read_what_aggregation_reads(collection, documents):
    found = stored(collection, documents)
    for path in PATHS + INDEXED_PATHS:
        own = split_path(path, "path")
        read = reader(own)
        servers = list(collection.aggregate([{"$sort": {"_id": 1}}, {"$project": {"v": f"${path}"}}]))
        for document, projected in zip(found, servers, strict=True):
            if STAND_IN and enters_array(document, own):
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
