"""Numbers by BSON type: int (32 bits), long, double and decimal, and how they become one another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from typing import TypeAlias, TypeGuard

from bson.decimal128 import Decimal128, create_decimal128_context
from bson.int64 import Int64

from changesource.mapping.budget import DECIMAL as DECIMAL_STEPS
from changesource.mapping.budget import charge
from changesource.mapping.expressions.nodes import EvaluationError
from changesource.mapping.literals import INT32, INT64
from changesource.mapping.values import type_name

Number: TypeAlias = int | float | Decimal128  # a long is an Int64, which is an int

INT, LONG, DOUBLE, DECIMAL = range(4)
_KINDS: dict[type, int] = {int: INT, Int64: LONG, float: DOUBLE, Decimal128: DECIMAL}
DIGITS = 34
"""How many digits a decimal holds."""
LEAST_EXPONENT = -6176
DECIMAL128 = create_decimal128_context()
"""Computes as decimals do; what is not defined gives NaN, what is too large an infinity."""
EXACT = Context(prec=13_000, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_EVEN, traps=[])
"""Enough for any exact intermediate value of decimals."""


def is_number(value: object) -> TypeGuard[Number]:
    """Whether ``value`` is a number; booleans are none."""
    return type(value) in _KINDS


def number(value: object, name: str) -> Number:
    """``value``, which must be a number; ``name`` is the operator's, for the error."""
    if not is_number(value):
        raise EvaluationError(f"{name} takes numbers, not a value of type {type_name(value)}")
    return value


def kind(value: Number) -> int:
    """INT, LONG, DOUBLE or DECIMAL."""
    return _KINDS[type(value)]


def widest(numbers: Iterable[Number]) -> int:
    """The widest kind among ``numbers``, which is the kind of what is computed of them."""
    return max(map(kind, numbers), default=INT)


def fits_long(value: int) -> bool:
    """Whether 64 bits hold ``value``."""
    return -INT64 <= value < INT64


def integer(value: int, least: int = INT) -> int:
    """An integer of 64 bits as int where it fits and ``least`` allows, else as long."""
    return int(value) if least == INT and -INT32 <= value < INT32 else Int64(value)


def to_decimal(value: Number) -> Decimal:
    """A number as a decimal; doubles by their first 15 digits, as MongoDB converts them."""
    if isinstance(value, Decimal128):
        return value.to_decimal()
    if isinstance(value, float):
        return Decimal(f"{value:.14e}") if value and math.isfinite(value) else Decimal(value)
    return Decimal(int(value))


def exact_decimal(value: float) -> Decimal:
    """A double as a decimal with all the digits that a decimal holds."""
    return DECIMAL128.create_decimal(Decimal(value))


def decimal128(value: Decimal) -> Decimal128:
    """``value`` rounded to what a decimal holds."""
    charge(DECIMAL_STEPS)
    return Decimal128(DECIMAL128.create_decimal(value))


def is_zero(value: Number) -> bool:
    """Whether a number is zero."""
    return value.to_decimal().is_zero() if isinstance(value, Decimal128) else value == 0


def whole(value: object, what: str, bound: int = INT32) -> int:
    """``value``, which must be an integer of 32 bits (or within ``bound``); ``what`` names it in errors."""
    if not is_number(value):
        raise EvaluationError(f"{what} is of type {type_name(value)}, not a number")
    found = value.to_decimal() if isinstance(value, Decimal128) else value
    # A decimal of 6,000 digits would be made an integer.
    finite = found.is_finite() and found.adjusted() < DIGITS if isinstance(found, Decimal) else math.isfinite(found)
    if not finite or found != int(found) or not -bound <= found < bound:
        raise EvaluationError(f"{what} is no integer of {32 if bound == INT32 else 64} bits")
    return int(found)
