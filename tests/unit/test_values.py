"""What each BSON value becomes in a column of each type."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from changesource.mapping.paths import MISSING
from changesource.mapping.values import CONVERTERS, MAX_DEPTH, convert

OID = ObjectId("65f000000000000000000001")
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")
DAY = datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)
DAY_MS = 1709294400005
FAR = DatetimeMS(10**15)
BEYOND = DatetimeMS(2**53)
SAFE = 2**53 - 1
NAN = float("nan")
INFINITY = float("inf")
REFUSED = object()

# Value, then what it is in a column of type string, number, boolean, json.
TABLE = [
    ("text", "text", REFUSED, REFUSED, "text"),
    ("", "", REFUSED, REFUSED, ""),
    ("5", "5", REFUSED, REFUSED, "5"),
    (OID, str(OID), REFUSED, REFUSED, str(OID)),
    (IDENTITY, str(IDENTITY), REFUSED, REFUSED, str(IDENTITY)),
    (b"\1\2", "AQI=", REFUSED, REFUSED, "AQI="),
    (Binary(b"\1\2", 5), "AQI=", REFUSED, REFUSED, "AQI="),
    (Binary(IDENTITY.bytes, 3), "EjRWeBI0VngSNFZ4EjRWeA==", REFUSED, REFUSED, "EjRWeBI0VngSNFZ4EjRWeA=="),
    (True, "true", REFUSED, True, True),
    (False, "false", REFUSED, False, False),
    (0, "0", 0, REFUSED, 0),
    (-7, "-7", -7, REFUSED, -7),
    (Int64(7), "7", 7, REFUSED, 7),
    (Int64(SAFE), str(SAFE), SAFE, REFUSED, SAFE),
    (Int64(SAFE + 1), "9007199254740992", REFUSED, REFUSED, "9007199254740992"),
    (Int64(-SAFE - 1), "-9007199254740992", REFUSED, REFUSED, "-9007199254740992"),
    (Int64(2**63 - 1), "9223372036854775807", REFUSED, REFUSED, "9223372036854775807"),
    (1.0, "1", 1, REFUSED, 1),
    (-0.0, "0", 0, REFUSED, 0),
    (0.1, "0.1", 0.1, REFUSED, 0.1),
    (2.0**60, "1152921504606846976", 2.0**60, REFUSED, 2.0**60),
    (5e-324, "5e-324", 5e-324, REFUSED, 5e-324),
    (NAN, None, None, REFUSED, None),
    (-INFINITY, None, None, REFUSED, None),
    (Decimal128("1.10"), "1.10", 1.1, REFUSED, "1.10"),
    (Decimal128("-0"), "-0", 0, REFUSED, "-0"),
    (Decimal128("1E-6000"), "1E-6000", 0, REFUSED, "1E-6000"),
    (Decimal128("1E+6000"), "1E+6000", REFUSED, REFUSED, "1E+6000"),
    (Decimal128("NaN"), None, None, REFUSED, None),
    (Decimal128("sNaN"), None, None, REFUSED, None),
    (Decimal128("-Infinity"), None, None, REFUSED, None),
    (DAY, "2024-03-01T12:00:00.005Z", DAY_MS, REFUSED, DAY_MS),
    (DatetimeMS(DAY_MS), "2024-03-01T12:00:00.005Z", DAY_MS, REFUSED, DAY_MS),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z", -62135596800000, REFUSED, -62135596800000),
    (datetime(1969, 12, 31, 23, 59, 59, 999000, UTC), "1969-12-31T23:59:59.999Z", -1, REFUSED, -1),
    (DAY.astimezone(timezone(timedelta(hours=2))), "2024-03-01T12:00:00.005Z", DAY_MS, REFUSED, DAY_MS),
    (FAR, REFUSED, 10**15, REFUSED, 10**15),
    (BEYOND, REFUSED, REFUSED, REFUSED, str(2**53)),
    ({"a": OID, "b": [1, None, {}]}, REFUSED, REFUSED, REFUSED, {"a": str(OID), "b": [1, None, {}]}),
    ({"a.b": 1, "$c": 2, "": 3}, REFUSED, REFUSED, REFUSED, {"a.b": 1, "$c": 2, "": 3}),
    ([], REFUSED, REFUSED, REFUSED, []),
    ([NAN, -0.0, Int64(2**60)], REFUSED, REFUSED, REFUSED, [None, 0, str(2**60)]),
    (DBRef("c", OID), REFUSED, REFUSED, REFUSED, {"$ref": "c", "$id": str(OID)}),
    (DBRef("c", 1, "d", x=DAY), REFUSED, REFUSED, REFUSED, {"$ref": "c", "$id": 1, "$db": "d", "x": DAY_MS}),
    (Timestamp(5, 6), REFUSED, REFUSED, REFUSED, {"t": 5, "i": 6}),
    (Regex("^a/b", re.I | re.M), REFUSED, REFUSED, REFUSED, "/^a/b/im"),
    (Regex("a", "xs"), REFUSED, REFUSED, REFUSED, "/a/sx"),
    (Code("f()"), REFUSED, REFUSED, REFUSED, "f()"),
    (Code("f()", {"x": OID}), REFUSED, REFUSED, REFUSED, {"code": "f()", "scope": {"x": str(OID)}}),
    (MinKey(), REFUSED, REFUSED, REFUSED, "MinKey"),
    (MaxKey(), REFUSED, REFUSED, REFUSED, "MaxKey"),
    (None, None, None, None, None),
    (MISSING, None, None, None, None),
]
CELLS = [
    pytest.param(value, column_type, expected, id=f"{type(value).__name__} {value} in {column_type}")
    for value, *row in TABLE
    for column_type, expected in zip(CONVERTERS, row, strict=True)
]


@pytest.mark.parametrize(("value", "column_type", "expected"), CELLS)
def test_value_in_a_column(value, column_type, expected):
    if expected is REFUSED:
        with pytest.raises(ValueError, match=r"does not fit|beyond"):
            convert(value, column_type, Counter())
        return
    result = convert(value, column_type, Counter())
    assert result == expected
    assert (type(result) is bool) == (type(expected) is bool)
    # No minus before a zero, no subclass of the driver's: as text it is what it must be.
    assert "-0.0" not in json.dumps(result)


@pytest.mark.parametrize(
    ("value", "column_type", "words"),
    [
        ({"secret": 1}, "string", "a value of type document does not fit a string column"),
        ("secret", "number", "a value of type string does not fit a number column"),
        (Timestamp(1, 1), "string", "a value of type timestamp does not fit a string column"),
        (Code("secret"), "string", "a value of type javascript does not fit a string column"),
        (1, "boolean", "a value of type int does not fit a boolean column"),
        (Int64(2**53), "number", "the integer is beyond 2^53 - 1"),
        (Decimal128("1E+400"), "number", "the decimal is beyond the range of a double"),
        (FAR, "string", "the date is beyond the years 1 to 9999"),
        ({1, 2}, "json", "a value of type set does not fit a json column"),
    ],
)
def test_a_refusal_names_the_type_and_never_the_content(value, column_type, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        convert(value, column_type, Counter())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "column_type", "expected", "counted"),
    [
        ("a\0b\0", "string", "a\ufffdb\ufffd", {"nul": 1}),
        ("a\ud800\udc00b", "string", "a\ufffd\ufffdb", {"surrogate": 1}),
        ("\0\ud800", "json", "\ufffd\ufffd", {"nul": 1, "surrogate": 1}),
        ("é😀\ufffd", "string", "é😀\ufffd", {}),
        ({"a\udfff": ["\0", {"\ud83d": NAN}]}, "json", {"a\ufffd": ["\ufffd", {"\ufffd": None}]},
         {"nul": 1, "surrogate": 2, "nan": 1}),
        (Code("\0", {"x": "\0"}), "json", {"code": "\ufffd", "scope": {"x": "\ufffd"}}, {"nul": 2}),
        (Regex("\ud800"), "json", "/\ufffd/", {"surrogate": 1}),
        (DBRef("c\0", "\0"), "json", {"$ref": "c\ufffd", "$id": "\ufffd"}, {"nul": 2}),
        (NAN, "number", None, {"nan": 1}),
        (INFINITY, "string", None, {"nan": 1}),
        (Decimal128("Infinity"), "number", None, {"nan": 1}),
        ([Decimal128("NaN"), INFINITY], "json", [None, None], {"nan": 2}),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_replaced_and_counted(value, column_type, expected, counted):
    counts: Counter[str] = Counter()
    assert convert(value, column_type, counts) == expected
    assert counts == counted


@pytest.mark.parametrize("kind", [dict, list, DBRef, Code])
def test_nesting_is_bounded(kind):
    wrap = {
        dict: lambda inner: {"a": inner},
        list: lambda inner: [inner],
        DBRef: lambda inner: DBRef("c", inner),
        Code: lambda inner: Code("", {"a": inner}),
    }[kind]

    def nested(levels):
        value = 1
        for _ in range(levels):
            value = wrap(value)
        return value

    assert convert(nested(100), "json", Counter()) is not None
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH} levels"):
        convert(nested(MAX_DEPTH + 1), "json", Counter())


def test_bytes_that_are_no_utf8_and_far_dates_come_through_the_decoder():
    raw = bson.encode({"text": "ab", "at": DatetimeMS(2**62)}).replace(b"ab\0", b"a\xff\0")
    options = CodecOptions(
        datetime_conversion=DatetimeConversion.DATETIME_AUTO,
        tz_aware=True,
        uuid_representation=UuidRepresentation.STANDARD,
        unicode_decode_error_handler="replace",
    )
    assert convert(bson.decode(raw, options), "json", Counter()) == {"text": "a\ufffd", "at": str(2**62)}


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=8), st.uuids(),
    st.text(st.characters(), max_size=8), st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
    st.decimals(-(10**9), 10**9, places=3).map(Decimal128),
    st.sampled_from([OID, DAY, Timestamp(1, 2), MinKey(), Regex("a"), Code("b")]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_always_clean(value):
    text = json.dumps(convert(value, "json", Counter()), allow_nan=False, ensure_ascii=False)
    assert text.encode()
    assert "\\u0000" not in text
    numbers = re.findall(r"(?<![\w.\"-])-?\d+(?![\w.\"])", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))
    assert all(abs(int(number)) <= SAFE for number in numbers)
