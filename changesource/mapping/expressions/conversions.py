"""Conversions between BSON types. Null stays null; what cannot be converted is an error, or ``onError``."""

from __future__ import annotations

import base64
import math
import re
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, Overflow, Underflow

from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.errors import InvalidId
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from changesource.exceptions import MappingError
from changesource.mapping.budget import DECIMAL, SHORT, BudgetSpent, charge, charge_text
from changesource.mapping.comparison import milliseconds
from changesource.mapping.expressions.logic import truth
from changesource.mapping.expressions.moments import instant, moment, parse_date, utc_text
from changesource.mapping.expressions.nodes import (
    Builder,
    Context,
    EvaluationError,
    Node,
    Scope,
    folded,
    is_null,
    members,
    unary,
)
from changesource.mapping.expressions.numbers import DECIMAL128, decimal128, is_number, to_decimal
from changesource.mapping.literals import INT32, INT64, literal
from changesource.mapping.paths import Missing
from changesource.mapping.spec import Json
from changesource.mapping.values import uuid_of

_NAMES: dict[type, str] = {
    Missing: "missing",
    type(None): "null",
    bool: "bool",
    int: "int",
    Int64: "long",
    float: "double",
    Decimal128: "decimal",
    str: "string",
    dict: "object",
    DBRef: "object",
    list: "array",
    bytes: "binData",
    Binary: "binData",
    uuid.UUID: "binData",
    ObjectId: "objectId",
    datetime: "date",
    DatetimeMS: "date",
    Timestamp: "timestamp",
    Regex: "regex",
    MinKey: "minKey",
    MaxKey: "maxKey",
}
TYPE_CODES = {
    "double": 1,
    "string": 2,
    "object": 3,
    "array": 4,
    "binData": 5,
    "undefined": 6,
    "objectId": 7,
    "bool": 8,
    "date": 9,
    "null": 10,
    "regex": 11,
    "dbPointer": 12,
    "javascript": 13,
    "symbol": 14,
    "javascriptWithScope": 15,
    "int": 16,
    "timestamp": 17,
    "long": 18,
    "decimal": 19,
    "minKey": -1,
    "maxKey": 127,
}
"""BSON types by name, as ``$type`` knows them."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|inf|infinity|nan)", re.I)
# No number is written in as many characters; what is, takes long to compute.
_LONGEST = 10_000
# More than any integer of 64 bits has: Python bounds what int() reads.
_MOST_DIGITS = 20
_OBJECT_ID_DIGITS = 24


def bson_type(value: object) -> str:
    """The name of a value's BSON type, as ``$type`` gives it."""
    if isinstance(value, Code):
        return "javascript" if value.scope is None else "javascriptWithScope"
    found = _NAMES.get(type(value))
    if found is None:
        found = next((_NAMES[base] for base in type(value).__mro__ if base in _NAMES), "")
    return found


def _refused(value: object, to: str) -> EvaluationError:
    return EvaluationError(f"a value of type {bson_type(value)} cannot be converted to {to}")


def _beyond(to: str) -> EvaluationError:
    return EvaluationError(f"the number is beyond the range of {to}")


def _integer(value: object, to: str, bound: int) -> int:
    """A boolean, number or string as an integer, without what is after the point."""
    if isinstance(value, int):
        found = int(value)
    elif isinstance(value, float | Decimal128):
        found = _truncated(value, to, bound)
    elif type(value) is str:
        _charge_digits(value, to)
        if not _INTEGER.fullmatch(value):
            raise EvaluationError(f"the string is no {to}")
        found = int(value) if len(value.lstrip("+-0")) < _MOST_DIGITS else INT64
    else:
        raise _refused(value, to)
    if not -bound <= found < bound:
        raise _beyond(to)
    return found


def _truncated(value: float | Decimal128, to: str, bound: int) -> int:
    if isinstance(value, Decimal128):
        charge(DECIMAL)
    exact = value.to_decimal() if isinstance(value, Decimal128) else value
    finite = exact.is_finite() if isinstance(exact, Decimal) else math.isfinite(exact)
    if not finite:
        raise EvaluationError(f"what is not finite cannot be converted to {to}")
    # A double must be within the range as it is, a decimal once it is cut.
    if isinstance(exact, float) and not -bound <= exact <= bound - 1:
        raise _beyond(to)
    # Before it is made an integer: a decimal may have 6,000 digits.
    if isinstance(exact, Decimal) and exact.adjusted() > _MOST_DIGITS:
        raise _beyond(to)
    return math.trunc(exact)


def _to_int(value: object) -> object:
    return _integer(value, "int", INT32)


def _to_long(value: object) -> object:
    if isinstance(value, datetime | DatetimeMS):
        return Int64(milliseconds(value))
    return Int64(_integer(value, "long", INT64))


def _to_double(value: object) -> object:
    if isinstance(value, Decimal128):
        return _double(value.to_decimal())
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, datetime | DatetimeMS):
        return float(milliseconds(value))
    if type(value) is str:
        return _double(_parsed(value, "double"))
    raise _refused(value, "double")


def _double(exact: Decimal) -> float:
    """The double nearest to ``exact``, which must not be beyond the range of doubles, nor too near to zero."""
    found = float(exact)
    if exact.is_finite():
        lost = abs(found) < sys.float_info.min and Decimal(found) != exact
        if math.isinf(found) or lost:
            raise _beyond("double")
    return found


def _charge_digits(text: str, to: str) -> None:
    """Count a text that is read as a number."""
    if len(text) > _LONGEST:
        raise EvaluationError(f"the string is no {to}")
    if len(text) > SHORT:
        charge(2 * len(text))


def _parsed(text: str, to: str) -> Decimal:
    _charge_digits(text, to)
    if not _REAL.fullmatch(text):
        raise EvaluationError(f"the string is no {to}")
    try:
        return Decimal(text)
    except ArithmeticError as exc:
        raise _beyond(to) from exc


def _to_decimal(value: object) -> object:
    if isinstance(value, Decimal128):
        return value
    if isinstance(value, bool):
        return Decimal128(Decimal(value))
    if is_number(value):
        return decimal128(to_decimal(value))
    if isinstance(value, datetime | DatetimeMS):
        return Decimal128(Decimal(milliseconds(value)))
    if type(value) is str:
        context = DECIMAL128.copy()
        context.clear_flags()
        found = context.create_decimal(_parsed(value, "decimal"))
        if context.flags[Overflow] or context.flags[Underflow]:
            raise _beyond("decimal")
        return Decimal128(found)
    raise _refused(value, "decimal")


def _to_bool(value: object) -> object:
    return truth(value)


def double_text(value: float) -> str:
    """A double as MongoDB 8 converts it: the shortest text that reads back the same, without a fraction of zero."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value).removesuffix(".0")


def _to_string(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Decimal128 | ObjectId):
        return str(value)
    if isinstance(value, datetime | DatetimeMS):
        return utc_text(milliseconds(value))
    if type(value) is str:
        return value
    raise _refused(value, "string")


def _to_text(value: object) -> object:
    """What ``$toString`` adds to ``$convert``, which wants a format for binary data: a UUID's text, else base64."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        found = uuid_of(value) if isinstance(value, Binary) else None
        charge_text(len(value))
        return str(found) if found else base64.b64encode(value).decode("ascii")
    return _to_string(value)


def _to_date(value: object) -> object:
    if isinstance(value, datetime | DatetimeMS):
        return value
    if isinstance(value, ObjectId | Timestamp):
        return moment(instant(value))
    if isinstance(value, Int64 | float | Decimal128):
        return moment(_integer(value, "date", INT64))
    if type(value) is str:
        return moment(parse_date(value))
    raise _refused(value, "date")


def _to_object_id(value: object) -> object:
    if isinstance(value, ObjectId):
        return value
    if type(value) is str:
        try:
            return ObjectId(value[: _OBJECT_ID_DIGITS + 1])  # the driver's error has all of it
        except InvalidId as exc:
            raise EvaluationError("the string is no ObjectId: 24 hexadecimal digits") from exc
    raise _refused(value, "objectId")


CONVERSIONS: dict[str, Callable[[object], object]] = {
    "int": _to_int,
    "long": _to_long,
    "double": _to_double,
    "decimal": _to_decimal,
    "bool": _to_bool,
    "string": _to_string,
    "date": _to_date,
    "objectId": _to_object_id,
}


def _conversion(convert: Callable[[object], object]) -> Builder:
    return unary(lambda value: None if is_null(value) else convert(value))


def _convert(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("input", "to"), ("onError", "onNull"))
    convert = CONVERSIONS.get(_target(given["to"], f"{place}.to"))
    if convert is None:
        raise MappingError(f"{place}.to", f"must be one of {', '.join(CONVERSIONS)}")
    source = context.compile(given["input"], f"{place}.input")
    on_null = context.compile(given.get("onNull"), f"{place}.onNull")
    on_error = context.compile(given["onError"], f"{place}.onError") if "onError" in given else None

    def run(scope: Scope) -> object:
        value = source.run(scope)
        if is_null(value):
            return on_null.run(scope)
        try:
            return convert(value)
        except ValueError as exc:
            if on_error is None or isinstance(exc, BudgetSpent):
                raise
            return on_error.run(scope)

    return folded(run, [source, on_null, *([on_error] if on_error else [])], place)


def _target(to: Json, place: str) -> str:
    """The type that a value is converted to, by its name, its number, or an object of one of these."""
    if isinstance(to, dict) and set(to) == {"type"}:
        to = to["type"]
    found = literal(to, place)
    if isinstance(found, str):
        return found
    return next((name for name, code in TYPE_CODES.items() if code == found and not isinstance(found, bool)), "")


OPERATORS: dict[str, Builder] = {
    "$toInt": _conversion(CONVERSIONS["int"]),
    "$toLong": _conversion(CONVERSIONS["long"]),
    "$toDouble": _conversion(CONVERSIONS["double"]),
    "$toDecimal": _conversion(CONVERSIONS["decimal"]),
    "$toBool": _conversion(CONVERSIONS["bool"]),
    "$toString": _conversion(_to_text),
    "$toDate": _conversion(CONVERSIONS["date"]),
    "$toObjectId": _conversion(CONVERSIONS["objectId"]),
    "$convert": _convert,
    "$type": unary(bson_type),
    "$isNumber": unary(is_number),
}
