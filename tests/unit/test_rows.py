"""Documents to rows: keys, paths, the error policy, and every refusal of a mapping."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from changesource.exceptions import MappingError, RowRejected
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import ColumnSpec, TableSpec

OID = ObjectId("65f000000000000000000001")
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")
DAY = datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)
ID = ColumnSpec("id", "string", "_id")
NUMERIC_ID = ColumnSpec("id", "number", "_id")
BODY = ColumnSpec("body", "string", "content")
SPEC = TableSpec(name="message", collection="messages", columns=(ID, BODY), primary_key=("id",))


def table(*columns: ColumnSpec, **changes: object):
    return compile_table(replace(SPEC, columns=columns or SPEC.columns, **changes))


def row(made, document):
    return made.row_with_errors(document)[0]


def test_row_has_the_columns_with_the_key_first():
    made = table(BODY, ID, ColumnSpec("size", "number", "meta.size", optional=True))
    assert made.name == "message"
    assert made.key_columns == ("id",)
    assert made.column_names == ("id", "body", "size")
    found = row(made, {"_id": OID, "content": "hello", "meta": {"size": Int64(3)}, "more": 1})
    assert found == {"id": str(OID), "body": "hello", "size": 3}
    assert tuple(found) == made.column_names


def test_a_document_that_the_filter_leaves_out_has_no_row():
    made = table(filter={"kind": "text"})
    assert row(made, {"_id": 1, "kind": "image"}) is None
    assert made.row_with_errors({"_id": 1, "kind": "image"}) == (None, ())
    assert row(made, {"_id": 1, "kind": "text", "content": "a"}) == {"id": "1", "body": "a"}


def test_replacements_are_counted_for_the_table():
    made = table()
    row(made, {"_id": 1, "content": "a\0"})
    row(made, {"_id": 2, "content": "\0"})
    assert made.counts == {"nul": 2}


PATHS = [
    ("a", {"a": [1]}, [1]),
    ("a.b", {"a": {"b": 1}}, 1),
    ("a.b", {"a": {"b": None}}, None),
    ("a.b", {"a": {}}, None),
    ("a.b", {"a": 5}, None),
    ("a.b", {}, None),
    ("a.b", {"a": [{"b": 1}, {}, 5, {"b": None}, {"b": [2]}]}, [1, None, [2]]),
    ("a.b", {"a": []}, []),
    ("a.b", {"a": [[{"b": 1}]]}, []),
    ("a.b.c", {"a": [{"b": [{"c": 1}, {"c": 2}]}, {"b": {"c": 3}}, {"b": 4}]}, [[1, 2], 3]),
    ("a.0", {"a": [7]}, []),
    ("a.0", {"a": {"0": 7}}, 7),
    ("a.0", {"a": [{"0": 7}]}, [7]),
    ("a.x", {"a": DBRef("c", 1, x=5)}, 5),
    ("a.x", {"a": [DBRef("c", 1, x=5)]}, [5]),
]


@pytest.mark.parametrize(("path", "document", "expected"), PATHS)
def test_paths_are_read_as_aggregation_reads_them(path, document, expected):
    made = table(ID, ColumnSpec("v", "json", path, optional=True))
    assert row(made, {"_id": 1, **document}) == {"id": "1", "v": expected}


@pytest.mark.parametrize("value", [{}, {"content": None}])
def test_missing_and_null_are_null_where_they_may_be(value):
    optional = table(ID, replace(BODY, optional=True), error_policy="skip")
    assert optional.row_with_errors({"_id": 1, **value}) == ({"id": "1", "body": None}, ())
    with pytest.raises(RowRejected, match="column body: missing or null"):
        row(table(), {"_id": 1, **value})


def test_coerce_makes_a_misfit_null_and_tells():
    made = table(ID, replace(BODY, optional=True), ColumnSpec("n", "number", "n", optional=True))
    found, errors = made.row_with_errors({"_id": 1, "content": {"secret": 1}, "n": 2**60})
    assert found == {"id": "1", "body": None, "n": None}
    assert [(error.column, error.reason) for error in errors] == [
        ("body", "a value of type document does not fit a string column"),
        ("n", "the integer is beyond 2^53 - 1, which a number column cannot hold exactly"),
    ]
    assert row(made, {"_id": 1, "content": {"secret": 1}, "n": 3}) == {"id": "1", "body": None, "n": 3}


@pytest.mark.parametrize(("optional", "policy"), [(True, "skip"), (False, "coerce"), (False, "skip")])
def test_a_misfit_leaves_the_row_out_otherwise(optional, policy):
    made = table(ID, replace(BODY, optional=optional), error_policy=policy)
    with pytest.raises(RowRejected) as caught:
        made.row_with_errors({"_id": 1, "content": []})
    assert (caught.value.column, caught.value.reason) == ("body", "a value of type array does not fit a string column")


def test_nan_is_null_where_it_may_be_and_no_error():
    number = ColumnSpec("n", "number", "n", optional=True)
    made = table(ID, number, error_policy="skip")
    assert made.row_with_errors({"_id": 1, "n": float("nan")}) == ({"id": "1", "n": None}, ())
    assert made.counts == {"nan": 1}
    with pytest.raises(RowRejected, match="column n: NaN"):
        row(table(ID, replace(number, optional=False)), {"_id": 1, "n": Decimal128("Infinity")})


# Declared type of _id, type of the key column, _id, key.
KEYS = [
    ("objectId", "string", OID, str(OID)),
    ("string", "string", "a é", "a é"),
    ("string", "string", "", ""),
    ("uuid", "string", IDENTITY, str(IDENTITY)),
    ("date", "string", DAY, "2024-03-01T12:00:00.005Z"),
    ("date", "string", DatetimeMS(0), "1970-01-01T00:00:00.000Z"),
    ("date", "number", DAY, 1709294400005),
    ("date", "number", DatetimeMS(10**15), 10**15),
    ("number", "string", 1, "1"),
    ("number", "string", 1.0, "1"),
    ("number", "string", Int64(1), "1"),
    ("number", "string", Decimal128("1.00"), "1"),
    ("number", "string", Decimal128("1E+3"), "1000"),
    ("number", "string", -0.0, "0"),
    ("number", "string", Decimal128("-0"), "0"),
    ("number", "string", 0.5, "0.5"),
    ("number", "string", Decimal128("0.50"), "0.5"),
    ("number", "string", 0.1, "0.1"),
    ("number", "string", 2.0**60, "1152921504606846976"),
    ("number", "string", Int64(2**60 + 1), "1152921504606846977"),
    ("number", "string", Decimal128("12345678901234567890123"), "12345678901234567890123"),
    ("number", "number", 1.0, 1),
    ("number", "number", Int64(1), 1),
    ("number", "number", Decimal128("1.0"), 1),
    ("number", "number", -0.0, 0),
    ("number", "number", 0.1, 0.1),
    ("number", "number", Decimal128("0.25"), 0.25),
    ("number", "number", 2**53 - 1, 2**53 - 1),
]


@pytest.mark.parametrize(("id_type", "column_type", "document_id", "expected"), KEYS)
@pytest.mark.parametrize("declared", [True, False])
def test_key_is_an_image_of_the_id(id_type, column_type, document_id, expected, declared):
    made = table(replace(ID, type=column_type), id_type=id_type if declared else "")
    key = made.key(document_id)
    assert key == {"id": expected}
    assert type(key["id"]) is type(expected)
    assert row(made, {"_id": document_id}) == key


BAD_KEYS = [
    ("", "string", None, "_id is of type null, a string key column takes objectId, string, number, uuid, date"),
    ("", "string", True, "_id is of type bool"),
    ("", "string", {"a": 1}, "_id is of type document"),
    ("", "string", b"\1", "_id is of type binary"),
    ("", "string", Binary(IDENTITY.bytes, 3), "the key is a binary value that is no UUID"),
    ("", "string", Timestamp(1, 1), "_id is of type timestamp"),
    ("", "string", Code("x"), "_id is of type javascript"),
    ("", "number", "1", "_id is of type string, a number key column takes number, date"),
    ("", "number", OID, "_id is of type objectId"),
    ("objectId", "string", "a", "_id is of type string, declared is objectId"),
    ("string", "string", 1, "_id is of type int, declared is string"),
    ("number", "number", DAY, "_id is of type date, declared is number"),
    ("number", "number", True, "_id is of type bool, declared is number"),
    ("uuid", "string", Binary(b"\1", 4), "the key is a binary value that is no UUID"),
    ("string", "string", "a\0", "U+0000"),
    ("string", "string", "a\ud800", "lone surrogate"),
    ("string", "string", "a\ufffd", "U+FFFD"),
    ("number", "string", float("nan"), "not a finite number"),
    ("number", "string", Decimal128("Infinity"), "not a finite number"),
    ("number", "string", Decimal128("sNaN"), "not a finite number"),
    ("number", "string", Decimal128("0.1"), "a decimal that no double holds exactly"),
    ("number", "string", Decimal128("1E-6000"), "a decimal that no double holds exactly"),
    ("number", "string", Decimal128("1E+6000"), "a decimal beyond the range of a double"),
    ("number", "number", Int64(2**53), "beyond 2^53 - 1"),
    ("number", "number", 2.0**60, "beyond 2^53 - 1"),
    ("date", "number", DatetimeMS(2**53), "beyond 2^53 - 1"),
    ("date", "string", DatetimeMS(10**15), "the date is beyond the years 1 to 9999"),
]


@pytest.mark.parametrize(("id_type", "column_type", "document_id", "words"), BAD_KEYS)
def test_an_id_that_gives_no_sure_key_is_rejected(id_type, column_type, document_id, words):
    made = table(replace(ID, type=column_type), id_type=id_type)
    for attempt in (lambda: made.key(document_id), lambda: row(made, {"_id": document_id})):
        with pytest.raises(RowRejected) as caught:
            attempt()
        assert caught.value.column == "id"
        assert words in caught.value.reason


def test_a_document_without_an_id_is_rejected():
    with pytest.raises(RowRejected, match="_id is missing, a string key column takes"):
        row(table(), {"content": "a"})


DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(Int64), st.integers(-3, 3), DOUBLES, st.integers(-3, 3).map(float),
    st.integers(50, 1000).map(lambda power: 2.0**power),
    st.integers(50, 100).map(lambda power: Decimal128(str(2**power))),
    st.decimals(-4, 4, places=2).map(Decimal128),
)  # fmt: skip


def _value(number: float | Decimal128) -> Decimal:
    return number.to_decimal() if isinstance(number, Decimal128) else Decimal(number)


def _key_or_none(key: Callable[[object], dict[str, object]], number: object) -> object:
    try:
        return key(number)["id"]
    except RowRejected:
        return None


@given(st.lists(NUMBERS, max_size=12), st.sampled_from([ID, NUMERIC_ID]))
def test_number_keys_are_equal_exactly_where_the_numbers_are(numbers, column):
    made = table(column, id_type="number")
    keys = [(_value(number), _key_or_none(made.key, number)) for number in numbers]
    for (left, left_key), (right, right_key) in itertools.combinations(keys, 2):
        if left == right:
            assert left_key == right_key
        elif left_key is not None:
            assert left_key != right_key


@given(st.lists(NUMBERS, max_size=12))
def test_only_decimals_may_have_no_text_key(numbers):
    made = table(ID, id_type="number")
    assert all(made.key(number) for number in numbers if not isinstance(number, Decimal128))


REFUSALS = [
    ({"name": ""}, "", "a table's name is letters"),
    ({"name": "a.b"}, "", "a table's name is letters"),
    ({"name": "a\n"}, "", "a table's name is letters"),
    ({"name": "a" * 64}, "", "at most 63 characters"),
    ({"name": "_zero_x"}, "", "reserved"),
    ({"name": "SQLite_x"}, "", "reserved"),
    ({"collection": ""}, ".collection", "missing"),
    ({"collection": "system.users"}, ".collection", "system collections"),
    ({"collection": "a$b"}, ".collection", "cannot hold $"),
    ({"collection": "a\0"}, ".collection", "cannot hold $ or U+0000"),
    ({"pipeline": ({"$group": {}},)}, ".pipeline.0.$group", "the stage $group is not supported; supported are $match"),
    ({"pipeline": ({"$match": {}, "$set": {}},)}, ".pipeline.0", "a stage is an object of one key"),
    ({"error_policy": "ignore"}, ".errorPolicy", "'ignore' is not supported; supported are coerce, skip, stop"),
    ({"large_integers": "no"}, ".largeIntegers", "'no' is not supported; supported are reject, round"),
    ({"columns": ()}, ".columns", "at least one column"),
    ({"columns": (ID, replace(BODY, name=""))}, ".columns.", "a column's name is letters"),
    ({"columns": (ID, replace(BODY, name="a b"))}, ".columns.a b", "a column's name is letters"),
    ({"columns": (ID, replace(BODY, name="b" * 64))}, ".columns." + "b" * 64, "at most 63"),
    ({"columns": (ID, replace(BODY, name="_0_version"))}, ".columns._0_version", "reserved"),
    ({"columns": (ID, replace(BODY, name="_zeroed"))}, ".columns._zeroed", "reserved"),
    ({"columns": (ID, replace(BODY, name="__proto__"))}, ".columns.__proto__", "reserved"),
    ({"columns": (ID, BODY, BODY)}, ".columns.body", "two columns have this name"),
    ({"columns": (ID, BODY, replace(BODY, name="Body"))}, ".columns.Body", "two columns have this name"),
    ({"columns": (ID, replace(BODY, type="date"))}, ".columns.body.type", "'date' is not supported; supported are str"),
    ({"columns": (ID, replace(BODY, path=""))}, ".columns.body.path", "the path is empty"),
    ({"columns": (ID, replace(BODY, path="a."))}, ".columns.body.path", "empty component"),
    ({"columns": (ID, replace(BODY, path="$a.b"))}, ".columns.body.path", "starts with $; write field names alone"),
    ({"columns": (ID, replace(BODY, expression={"$toUpper": "$a"}))}, ".columns.body.expression", "beside a path"),
    (
        {"columns": (ID, ColumnSpec("body", "string", expression={"$lookup": 1}))},
        ".columns.body.expression.$lookup",
        "the expression $lookup is not supported",
    ),
    ({"primary_key": ()}, ".primaryKey", "names no column"),
    ({"primary_key": ("id", "id")}, ".primaryKey", "names id twice"),
    ({"primary_key": ("key",)}, ".primaryKey", "there is no column key"),
    (
        {"primary_key": ("body",), "columns": (ColumnSpec("body", "string", expression={"$toLower": "$a"}),)},
        ".primaryKey",
        "two documents could have one key",
    ),
    ({"columns": (ID, replace(BODY, key_type="string"))}, ".columns.body.keyType", "only a column of the primary key"),
    ({"columns": (replace(ID, type="json"),)}, ".columns.id.type", "a primary key is a string or a number, not json"),
    ({"columns": (replace(ID, type="boolean"),)}, ".columns.id.type", "not boolean"),
    ({"columns": (replace(ID, optional=True),)}, ".columns.id.optional", "cannot be optional"),
    ({"id_type": "int"}, ".idType", "'int' is not supported; supported are objectId"),
    ({"columns": (NUMERIC_ID,), "id_type": "objectId"}, ".idType", "objectId does not fit a number key column"),
    ({"columns": (NUMERIC_ID,), "id_type": "string"}, ".idType", "string does not fit a number key column"),
    ({"columns": (NUMERIC_ID,), "id_type": "uuid"}, ".idType", "uuid does not fit a number key column"),
    ({"filter": {"tags": {"$near": {}}}}, ".filter.tags.$near", "operator $near is not supported"),
]


@pytest.mark.parametrize(("changes", "place", "words"), REFUSALS)
def test_a_wrong_mapping_is_refused_at_its_place(changes, place, words):
    spec = replace(SPEC, **changes)
    with pytest.raises(MappingError) as caught:
        compile_table(spec)
    assert caught.value.place == f"tables.{spec.name}{place}"
    assert words in caught.value.problem


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"filter": {"a": deep(400)}}, ".filter", "nested deeper than 100 levels"),
        ({"pipeline": ({"$set": {"a": deep(5000)}},)}, ".pipeline", "nested deeper than 100 levels"),
        (
            {"columns": (ID, ColumnSpec("v", "json", expression={"$literal": deep(400)}))},
            ".columns.v.expression",
            "deep",
        ),
        ({"filter": {"a": {"$ne": "$x\0y"}}}, ".filter.a.$ne", "U+0000"),
        ({"filter": {"$expr": {"$toBool": {"$numberDecimal": "sNaN"}}}}, None, ""),
    ],
)
def test_what_no_file_could_hold_is_refused_from_elsewhere_too(changes, place, words):
    spec = replace(SPEC, **changes)
    if place is None:
        compile_table(spec)
        return
    with pytest.raises(MappingError) as caught:
        compile_table(spec)
    assert caught.value.place.startswith(f"tables.message{place}")
    assert words in caught.value.problem
