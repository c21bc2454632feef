"""What each BSON value becomes in a column: the one place that says so.

| BSON | string | number | boolean | json |
| --- | --- | --- | --- | --- |
| string, symbol | itself | - | - | itself |
| objectId | 24 hex digits | - | - | 24 hex digits |
| UUID (binary, subtype 4) | canonical text | - | - | canonical text |
| other binary | base64 | - | - | base64 |
| bool | "true", "false" | - | itself | itself |
| int, long | decimal text | itself within 2^53 - 1 | - | itself within 2^53 - 1, else decimal text |
| double | shortest text, "1" for 1.0 | itself, 0 for -0.0 | - | itself, 0 for -0.0 |
| decimal | its text | the nearest double | - | its text |
| NaN, infinities (double, decimal) | null | null | - | null |
| date | ISO 8601, milliseconds, Z; years 1 to 9999 | ms since 1970 | - | ms since 1970, text beyond 2^53 - 1 |
| document | - | - | - | object |
| array | - | - | - | array |
| DBRef | - | - | - | {"$ref", "$id"}, with "$db" where it has one |
| timestamp | - | - | - | {"t", "i"} |
| regex | - | - | - | "/pattern/flags" |
| javascript | - | - | - | its text; with a scope {"code", "scope"} |
| minKey, maxKey | - | - | - | "MinKey", "MaxKey" |
| null, undefined, missing | null | null | null | null |

"-" does not fit. In all strings, names of nested fields among them, U+0000 and lone surrogates become U+FFFD.
What was replaced is counted: "nul" and "surrogate" by strings, "nan" by values.
"""

from __future__ import annotations

import base64
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeAlias, TypeVar, cast

from bson.binary import UUID_SUBTYPE, Binary
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
from bson.tz_util import utc

from changesource.mapping.comparison import EPOCH, milliseconds
from changesource.mapping.paths import MISSING, Missing
from changesource.mapping.spec import ColumnType, Json, LargeIntegers

T = TypeVar("T")
Converter: TypeAlias = Callable[[object, Counter[str]], Json]

MAX_SAFE_INTEGER = 2**53 - 1
MAX_DEPTH = 200
UUID_BYTES = 16
REPLACEMENT = "\ufffd"

_SURROGATES = re.compile("[\ud800-\udfff]")
_REGEX_FLAGS = {re.I: "i", re.L: "l", re.M: "m", re.S: "s", re.U: "u", re.X: "x"}
_TYPE_NAMES: dict[type, str] = {
    type(None): "null",
    Missing: "missing",
    str: "string",
    bool: "bool",
    int: "int",
    Int64: "long",
    float: "double",
    Decimal128: "decimal",
    dict: "document",
    list: "array",
    bytes: "binary",
    Binary: "binary",
    uuid.UUID: "UUID",
    ObjectId: "objectId",
    datetime: "date",
    DatetimeMS: "date",
    Timestamp: "timestamp",
    Regex: "regex",
    Code: "javascript",
    DBRef: "DBRef",
    MinKey: "minKey",
    MaxKey: "maxKey",
}


def type_name(value: object) -> str:
    """The BSON type of ``value``, as messages name it."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def clean(text: str, counts: Counter[str]) -> str:
    """``text`` without what PostgreSQL and JSON cannot carry."""
    if "\0" in text:
        counts["nul"] += 1
        text = text.replace("\0", REPLACEMENT)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            counts["surrogate"] += 1
            text = _SURROGATES.sub(REPLACEMENT, text)
    return text


def iso_text(value: datetime | DatetimeMS) -> str:
    """A date as ISO 8601 text, UTC with milliseconds; ``ValueError`` beyond the years 1 to 9999."""
    try:
        moment = EPOCH + timedelta(milliseconds=int(value)) if isinstance(value, DatetimeMS) else value.astimezone(utc)
    except OverflowError as exc:
        raise ValueError("the date is beyond the years 1 to 9999") from exc
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def float_text(value: float) -> str:
    """A finite double as the shortest text that reads back the same; without a fraction, as an integer."""
    return str(int(value)) if value.is_integer() else repr(value)


def _bool_text(value: bool, counts: Counter[str]) -> str:
    return "true" if value else "false"


def _int_text(value: int, counts: Counter[str]) -> str:
    return str(int(value))


def _float_text(value: float, counts: Counter[str]) -> str | None:
    return float_text(value) if _finite(value, counts) else None


def _date_text(value: datetime | DatetimeMS, counts: Counter[str]) -> str:
    return iso_text(value)


def _object_id_text(value: ObjectId, counts: Counter[str]) -> str:
    return str(value)


def _uuid_text(value: uuid.UUID, counts: Counter[str]) -> str:
    return str(value)


def _base64(value: bytes, counts: Counter[str]) -> str:
    return base64.b64encode(value).decode("ascii")


def uuid_of(value: Binary) -> uuid.UUID | None:
    """The UUID that a binary value is, None where it is something else: a subtype 4 may have any length."""
    return uuid.UUID(bytes=bytes(value)) if value.subtype == UUID_SUBTYPE and len(value) == UUID_BYTES else None


def _binary_text(value: Binary, counts: Counter[str]) -> str:
    found = uuid_of(value)
    return _base64(value, counts) if found is None else str(found)


def _decimal_text(value: Decimal128, counts: Counter[str]) -> str | None:
    return str(value) if _finite_decimal(value.to_decimal(), counts) else None


def _safe_int(value: int, counts: Counter[str]) -> int:
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return int(value)
    raise ValueError("the integer is beyond 2^53 - 1, which a number column cannot hold exactly")


def _rounded_int(value: int, counts: Counter[str]) -> int | float:
    number = int(value)
    return number if -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER else float(number)


def _double(value: float, counts: Counter[str]) -> float | None:
    # Adding zero makes -0.0 a plain one.
    return value + 0.0 if _finite(value, counts) else None


def _nearest_double(value: Decimal128, counts: Counter[str]) -> float | None:
    exact = value.to_decimal()
    if not _finite_decimal(exact, counts):
        return None
    number = float(exact)
    if math.isinf(number):
        raise ValueError("the decimal is beyond the range of a double")
    return number + 0.0


def _date_number(value: datetime | DatetimeMS, counts: Counter[str]) -> int:
    return _safe_int(milliseconds(value), counts)


def _itself(value: bool, counts: Counter[str]) -> bool:
    return value


def _json_int(value: int, counts: Counter[str]) -> int | str:
    return int(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(int(value))


def _json_date(value: datetime | DatetimeMS, counts: Counter[str]) -> int | str:
    return _json_int(milliseconds(value), counts)


def _json_regex(value: Regex[str], counts: Counter[str]) -> str:
    flags = "".join(letter for flag, letter in _REGEX_FLAGS.items() if value.flags & flag)
    return clean(f"/{value.pattern}/{flags}", counts)


def _json_timestamp(value: Timestamp, counts: Counter[str]) -> Json:
    return {"t": value.time, "i": value.inc}


def _type_text(value: MinKey | MaxKey, counts: Counter[str]) -> str:
    return type(value).__name__


def _null(value: None, counts: Counter[str]) -> None:
    return None


def _json(value: object, counts: Counter[str], depth: int = 0) -> Json:
    """A value of any type as JSON, ``depth`` levels below the column's value."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    # First, since most values are none of the others.
    convert_scalar = _JSON_SCALARS.get(type(value))
    if convert_scalar is not None:
        return convert_scalar(value, counts)
    if isinstance(value, dict):
        return {clean(name, counts): _json(inner, counts, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner, counts, depth + 1) for inner in value]
    if isinstance(value, DBRef):
        return _json(value.as_doc(), counts, depth)
    if isinstance(value, Code):
        text = clean(str(value), counts)
        return text if value.scope is None else {"code": text, "scope": _json(value.scope, counts, depth + 1)}
    return _JSON_SCALARS[type(value)](value, counts)


def _finite(value: float, counts: Counter[str]) -> bool:
    if math.isfinite(value):
        return True
    counts["nan"] += 1
    return False


def _finite_decimal(value: Decimal, counts: Counter[str]) -> bool:
    # Its own method: math.isfinite would take a large decimal for an infinity.
    if value.is_finite():
        return True
    counts["nan"] += 1
    return False


class Converters(dict[type, Converter]):
    """A column type's converters, by the exact Python type of the value; for any other, one that refuses it."""

    def __init__(self, column_type: ColumnType, *entries: tuple[type, Converter]) -> None:
        super().__init__(entries)
        self.column_type = column_type

    def __missing__(self, kind: type) -> Converter:
        return self._misfit

    def _misfit(self, value: object, counts: Counter[str]) -> Json:
        raise ValueError(f"a value of type {type_name(value)} does not fit a {self.column_type} column")


def _on(kind: type[T], converter: Callable[[T, Counter[str]], Json]) -> tuple[type, Converter]:
    # The cast is sound, since Converters hands over values of exactly this type.
    return kind, cast("Converter", converter)


_TEXTS = (
    _on(str, clean),
    _on(ObjectId, _object_id_text),
    _on(uuid.UUID, _uuid_text),
    _on(Decimal128, _decimal_text),
    _on(bytes, _base64),
    _on(Binary, _binary_text),
)
_JSON_SCALARS = Converters(
    "json",
    *_TEXTS,
    _on(type(None), _null),
    _on(bool, _itself),
    _on(int, _json_int),
    _on(Int64, _json_int),
    _on(float, _double),
    _on(datetime, _json_date),
    _on(DatetimeMS, _json_date),
    _on(Timestamp, _json_timestamp),
    _on(Regex, _json_regex),
    _on(MinKey, _type_text),
    _on(MaxKey, _type_text),
)
CONVERTERS: dict[ColumnType, Converters] = {
    "string": Converters(
        "string",
        *_TEXTS,
        _on(bool, _bool_text),
        _on(int, _int_text),
        _on(Int64, _int_text),
        _on(float, _float_text),
        _on(datetime, _date_text),
        _on(DatetimeMS, _date_text),
    ),
    "number": Converters(
        "number",
        _on(int, _safe_int),
        _on(Int64, _safe_int),
        _on(float, _double),
        _on(Decimal128, _nearest_double),
        _on(datetime, _date_number),
        _on(DatetimeMS, _date_number),
    ),
    "boolean": Converters("boolean", _on(bool, _itself)),
    "json": Converters("json", *_JSON_SCALARS.items(), *((kind, _json) for kind in (dict, list, DBRef, Code))),
}


ROUNDED_NUMBERS = Converters(
    "number",
    *CONVERTERS["number"].items(),
    _on(int, _rounded_int),
    _on(Int64, _rounded_int),
)
"""Those of number columns that take an integer beyond 2^53 - 1 as the nearest double."""


def converters_of(type: ColumnType, large_integers: LargeIntegers) -> Converters:
    """The converters of a column of ``type`` in a table that treats integers beyond 2^53 - 1 so."""
    return ROUNDED_NUMBERS if type == "number" and large_integers == "round" else CONVERTERS[type]


def convert(value: object, type: ColumnType, counts: Counter[str]) -> Json:
    """``value`` as a column of ``type`` holds it; null for null, missing, NaN and the infinities.

    ``ValueError`` says why it does not fit, without its content; ``counts`` counts what was replaced.
    """
    if value is None or value is MISSING:
        return None
    return CONVERTERS[type][value.__class__](value, counts)
