"""BSON's order: values as plain tuples that Python compares and hashes as MongoDB compares the values."""

from __future__ import annotations

import math
import operator
import uuid
from collections.abc import Callable
from datetime import datetime

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
from bson.tz_util import utc

from changesource.mapping.budget import DECIMAL, PART, SHORT, charge, charge_compared
from changesource.mapping.paths import MISSING, Missing, Test, as_document
from changesource.mapping.regexes import options_of

# In the driver's own time zone object: two dates that share it are subtracted twice as fast.
EPOCH = datetime(1970, 1, 1, tzinfo=utc)

NULL = 5
NUMBER = 10
STRING = 15
OBJECT = 20
ARRAY = 25
BINARY = 30
OBJECT_ID = 35
BOOLEAN = 40
DATE = 45
TIMESTAMP = 47
CODE = 60
CODE_WITH_SCOPE = 65

# The classes in which values compare with each other at all, in BSON's order. A symbol reaches us as a string.
_CLASSES: dict[type, int] = {
    MinKey: -1,
    Missing: 0,
    type(None): NULL,
    int: NUMBER,
    Int64: NUMBER,
    float: NUMBER,
    Decimal128: NUMBER,
    str: STRING,
    dict: OBJECT,
    DBRef: OBJECT,
    list: ARRAY,
    bytes: BINARY,
    Binary: BINARY,
    uuid.UUID: BINARY,
    ObjectId: OBJECT_ID,
    bool: BOOLEAN,
    datetime: DATE,
    DatetimeMS: DATE,
    Timestamp: TIMESTAMP,
    Regex: 50,
    Code: CODE,
    MaxKey: 127,
}


def bson_class(value: object) -> int:
    """The class of BSON types that ``value`` belongs to; only values of one class compare in a query."""
    found = _CLASSES.get(type(value))
    if found is None:
        found = next((_CLASSES[base] for base in type(value).__mro__ if base in _CLASSES), None)
        if found is None:
            raise TypeError(f"{type(value).__name__} is no BSON type")
    if found == CODE and isinstance(value, Code) and value.scope is not None:
        return CODE_WITH_SCOPE
    return found


def milliseconds(value: datetime | DatetimeMS) -> int:
    """A BSON date as milliseconds since the epoch."""
    if isinstance(value, DatetimeMS):
        return int(value)
    since = value - EPOCH
    # By parts: dividing by a timedelta takes three times as long.
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def order_key(value: object) -> tuple[object, ...]:  # noqa: PLR0911 - one for each class
    """``value`` as a tuple that begins with its class: tuples of one class compare and hash as the values do.

    Numbers of all types compare exactly, NaN equals NaN and is the least; strings compare as their UTF-8 does
    (which is the order of code points), documents field by field in their order, regular expressions by pattern and
    options, code by its text and scope.
    """
    kind = bson_class(value)
    if kind in (STRING, BOOLEAN):
        if isinstance(value, str) and len(value) > SHORT:
            charge_compared(len(value))
        return (kind, value)
    if kind == NUMBER:
        return _number_key(value)
    if kind == ARRAY and isinstance(value, list):
        charge(2 * PART * (1 + len(value)))
        return (kind, tuple(map(order_key, value)))
    if kind == OBJECT:
        found = as_document(value) or {}
        charge(2 * PART * (1 + len(found)))
        fields = ((name, order_key(inner)) for name, inner in found.items())
        # MongoDB compares the classes of two fields before their names.
        return (kind, tuple((key[0], name, key[1:]) for name, key in fields))
    if isinstance(value, uuid.UUID):
        return (kind, 16, 4, value.bytes)
    if isinstance(value, bytes):
        charge_compared(len(value))
        return (kind, len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value))
    if isinstance(value, ObjectId):
        return (kind, value.binary)
    if isinstance(value, datetime | DatetimeMS):
        return (kind, milliseconds(value))
    if isinstance(value, Timestamp):
        return (kind, value.time, value.inc)
    if isinstance(value, Regex):
        charge_compared(len(value.pattern))
        return (kind, str(value.pattern), options_of(value))
    if isinstance(value, Code):
        charge_compared(len(value))
        return (kind, str(value), () if value.scope is None else order_key(value.scope))
    return (kind,)


def _number_key(value: object) -> tuple[object, ...]:
    if isinstance(value, Decimal128):
        charge(DECIMAL)
        exact = value.to_decimal()
        return NAN_KEY if exact.is_nan() else (NUMBER, 1, exact)
    return NAN_KEY if isinstance(value, float) and math.isnan(value) else (NUMBER, 1, value)


NAN_KEY = (NUMBER, 0)


# A value against one that a filter names.

ORDERED: dict[str, Callable[[tuple[object, ...], tuple[object, ...]], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def equals(wanted: object) -> Test:
    """Whether a value equals ``wanted``, as `find` compares: null equals what is missing too."""
    if wanted is None:
        return lambda value: value is None or value is MISSING
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, str):
        # By exact type: the driver shows JavaScript code as a subclass of str.
        return lambda value: type(value) is str and value == wanted
    kind, key = bson_class(wanted), order_key(wanted)
    return lambda value: bson_class(value) == kind and order_key(value) == key


def one_of(wanted: list[object]) -> Test:
    """Whether a value equals one of ``wanted``."""
    null = None in wanted
    keys = frozenset(order_key(one) for one in wanted)
    kinds = {key[0] for key in keys}

    def test(value: object) -> bool:
        if value is MISSING:
            return null
        return bson_class(value) in kinds and order_key(value) in keys

    return test


def ordered(name: str, wanted: object) -> Test:
    """Whether a value is of the class of ``wanted`` and stands to it as ``name``, one of ``ORDERED``, says."""
    if wanted is None or order_key(wanted) == NAN_KEY:
        # Null and NaN are equal to themselves and in no order with anything.
        return equals(wanted) if name in ("$gte", "$lte") else lambda value: False
    compare, kind, key = ORDERED[name], bson_class(wanted), order_key(wanted)

    def test(value: object) -> bool:
        if bson_class(value) != kind:
            return False
        own = order_key(value)
        return own != NAN_KEY and compare(own, key)

    return test
