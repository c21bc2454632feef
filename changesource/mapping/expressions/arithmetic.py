"""Arithmetic: the wider type wins, integers grow from int to long to double, null makes null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from changesource.mapping.budget import charge
from changesource.mapping.comparison import milliseconds
from changesource.mapping.expressions.moments import moment
from changesource.mapping.expressions.nodes import Builder, EvaluationError, binary, in_turn, is_null, unary
from changesource.mapping.expressions.numbers import (
    DECIMAL128,
    EXACT,
    INT,
    Number,
    decimal128,
    fits_long,
    integer,
    is_zero,
    kind,
    number,
    to_decimal,
    widest,
)
from changesource.mapping.literals import INT64

# Of a division with all the digits that two decimals may have between them.
_EXACT_STEPS = 1000


def _add(values: Iterator[object]) -> object:
    """From left to right, so that each step overflows or rounds as MongoDB's does."""
    total: Number = 0
    date: int | None = None
    for value in values:
        if is_null(value):
            return None
        if isinstance(value, datetime | DatetimeMS):
            if date is not None:
                raise EvaluationError("$add takes one date at most")
            date = _milliseconds(total) + milliseconds(value)
        elif date is None:
            total = _sum_of_two(total, number(value, "$add"))
        else:
            date += _milliseconds(number(value, "$add"))
    return _settled(total) if date is None else moment(date)


def _settled(result: Number) -> Number:
    """A result whose steps may have gone beyond an int's range without making it a long."""
    return integer(result, kind(result)) if isinstance(result, int) else result


def _sum_of_two(left: Number, right: Number) -> Number:
    if isinstance(left, Decimal128) or isinstance(right, Decimal128):
        return decimal128(DECIMAL128.add(to_decimal(left), to_decimal(right)))
    if isinstance(left, float) or isinstance(right, float):
        return float(left) + float(right)
    exact = int(left) + int(right)
    if not fits_long(exact):
        return float(left) + float(right)
    return exact if widest((left, right)) == INT else Int64(exact)


def _milliseconds(value: Number) -> int:
    """By how many milliseconds a number moves a date: doubles round half away from zero, decimals half to even."""
    if isinstance(value, int):
        return int(value)
    exact = value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)
    if not exact.is_finite() or not -INT64 <= exact < INT64:
        raise EvaluationError("a date cannot be moved as far")
    return int(exact.to_integral_value(ROUND_HALF_EVEN if isinstance(value, Decimal128) else ROUND_HALF_UP))


def _subtract(left: object, right: object) -> object:
    if is_null(left) or is_null(right):
        return None
    if isinstance(left, datetime | DatetimeMS):
        if not isinstance(right, datetime | DatetimeMS):
            return moment(milliseconds(left) - _milliseconds(number(right, "$subtract")))
        apart = milliseconds(left) - milliseconds(right)
        if not fits_long(apart):
            raise EvaluationError("the dates are too far apart for $subtract")
        return Int64(apart)
    one, other = number(left, "$subtract"), number(right, "$subtract")
    if isinstance(one, Decimal128) or isinstance(other, Decimal128):
        return decimal128(DECIMAL128.subtract(to_decimal(one), to_decimal(other)))
    if isinstance(one, float) or isinstance(other, float):
        return float(one) - float(other)
    exact = int(one) - int(other)
    return integer(exact, widest((one, other))) if fits_long(exact) else float(one) - float(other)


def _multiply(values: Iterator[object]) -> object:
    product: Number = 1
    as_double = 1.0
    for value in values:
        if is_null(value):
            return None
        factor = number(value, "$multiply")
        if isinstance(product, Decimal128) or isinstance(factor, Decimal128):
            product = decimal128(DECIMAL128.multiply(to_decimal(product), to_decimal(factor)))
            continue
        # Beyond 64 bits the product goes on as the double that was computed all along.
        as_double *= float(factor)
        if isinstance(product, float) or isinstance(factor, float):
            product = as_double
        else:
            exact = int(product) * int(factor)
            wide = widest((product, factor))
            product = as_double if not fits_long(exact) else exact if wide == INT else Int64(exact)
    return _settled(product)


def _divide(left: object, right: object) -> object:
    if is_null(left) or is_null(right):
        return None
    one, other = number(left, "$divide"), number(right, "$divide")
    if is_zero(other):
        raise EvaluationError("$divide by zero")
    if isinstance(one, Decimal128) or isinstance(other, Decimal128):
        return decimal128(DECIMAL128.divide(to_decimal(one), to_decimal(other)))
    return float(one) / float(other)


def _mod(left: object, right: object) -> object:
    """The remainder, with the sign of the dividend."""
    if is_null(left) or is_null(right):
        return None
    one, other = number(left, "$mod"), number(right, "$mod")
    if is_zero(other):
        raise EvaluationError("$mod by zero")
    if isinstance(one, Decimal128) or isinstance(other, Decimal128):
        charge(_EXACT_STEPS)
        return decimal128(EXACT.remainder(to_decimal(one), to_decimal(other)))
    if isinstance(one, float) or isinstance(other, float):
        return math.nan if math.isinf(one) else math.fmod(one, other)
    remainder = abs(int(one)) % abs(int(other))
    return integer(-remainder if one < 0 else remainder, widest((one, other)))


def _abs(value: object) -> object:
    if is_null(value):
        return None
    found = number(value, "$abs")
    if isinstance(found, Decimal128):
        return decimal128(found.to_decimal().copy_abs())
    if isinstance(found, float):
        return abs(found)
    if found == -INT64:
        raise EvaluationError("$abs of the least long")
    return integer(abs(int(found)), kind(found))


OPERATORS: dict[str, Builder] = {
    "$add": in_turn(_add, 0),
    "$subtract": binary(_subtract),
    "$multiply": in_turn(_multiply, 0),
    "$divide": binary(_divide),
    "$mod": binary(_mod),
    "$abs": unary(_abs),
}
