"""Values as they stand in filters and expressions: JSON and extended JSON to what the driver would decode."""

from __future__ import annotations

import json

from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.int64 import Int64
from bson.json_util import JSONOptions, loads

from changesource.exceptions import MappingError
from changesource.mapping.paths import is_unicode
from changesource.mapping.spec import Json

VALUES = (
    "$oid",
    "$date",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$timestamp",
    "$regularExpression",
)
"""The keys that begin a value of extended JSON."""

INT32 = 2**31
INT64 = 2**63
TOO_LARGE = "the number is beyond 64 bits; write it as $numberDecimal or $numberDouble"
_EXTENDED_JSON = JSONOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.STANDARD,
)


def is_extended(value: Json) -> bool:
    """Whether ``value`` is written as extended JSON."""
    return isinstance(value, dict) and next(iter(value), "") in VALUES


def literal(value: Json, place: str) -> object:
    """The value that ``value`` stands for; ``MappingError`` names what is no value, and its place."""
    if isinstance(value, str) and not is_unicode(value):
        raise MappingError(place, "a string cannot hold a lone surrogate")
    if isinstance(value, int) and not isinstance(value, bool):
        if not -INT64 <= value < INT64:
            raise MappingError(place, TOO_LARGE)
        return value if -INT32 <= value < INT32 else Int64(value)
    if isinstance(value, list):
        return [literal(member, f"{place}.{index}") for index, member in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if next(iter(value), "").startswith("$"):
        return _extended(value, place)
    document = {}
    for key, member in value.items():
        if key.startswith("$"):
            raise MappingError(f"{place}.{key}", f"{key} is not supported inside a value")
        document[field_name(key, place)] = literal(member, f"{place}.{key}")
    return document


def field_name(name: str, place: str) -> str:
    """``name``, where it can be a field's name at all."""
    if "\0" in name or not is_unicode(name):
        raise MappingError(place, "a field name cannot hold U+0000 or a lone surrogate")
    return name


def _extended(value: dict[str, Json], place: str) -> object:
    kind = next(iter(value))
    if kind not in VALUES:
        raise MappingError(f"{place}.{kind}", f"{kind} is not supported as a value; supported are {', '.join(VALUES)}")
    try:
        decoded: object = loads(json.dumps(value), json_options=_EXTENDED_JSON)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, BSONError) as exc:
        raise MappingError(f"{place}.{kind}", f"this is no valid {kind}") from exc
    if isinstance(decoded, int) and not -INT64 <= decoded < INT64:
        raise MappingError(f"{place}.{kind}", TOO_LARGE)  # json_util takes any, and the driver sends none such
    if isinstance(decoded, dict):
        raise MappingError(f"{place}.{kind}", f"this is no valid {kind}")
    return decoded
