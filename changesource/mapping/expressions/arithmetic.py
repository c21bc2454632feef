"""Arithmetic: the wider type wins, integers grow from int to long to double, null makes null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from changesource.mapping.comparison import milliseconds
from changesource.mapping.expressions.moments import moment
from changesource.mapping.expressions.nodes import Builder, EvaluationError, binary, in_turn, is_null, unary
from changesource.mapping.expressions.numbers import (
    DECIMAL,
    DECIMAL128,
    DOUBLE,
    EXACT,
    Number,
    decimal128,
    fits_long,
    integer,
    is_zero,
    kind,
    number,
    to_decimal,
    to_float,
    widest,
)
from changesource.mapping.literals import INT64


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
    return total if date is None else moment(date)


def _sum_of_two(left: Number, right: Number) -> Number:
    wide = widest((left, right))
    if wide == DECIMAL:
        return decimal128(DECIMAL128.add(to_decimal(left), to_decimal(right)))
    if wide == DOUBLE:
        return to_float(left) + to_float(right)
    exact = _int(left) + _int(right)
    return integer(exact, wide) if fits_long(exact) else to_float(left) + to_float(right)


def _int(value: Number) -> int:
    """The value of an int or a long."""
    return int(value) if isinstance(value, int) else 0


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
    wide = widest((one, other))
    if wide == DECIMAL:
        return decimal128(DECIMAL128.subtract(to_decimal(one), to_decimal(other)))
    exact = _int(one) - _int(other)
    if wide == DOUBLE or not fits_long(exact):
        return to_float(one) - to_float(other)
    return integer(exact, wide)


def _multiply(values: Iterator[object]) -> object:
    product: Number = 1
    as_double = 1.0
    for value in values:
        if is_null(value):
            return None
        factor = number(value, "$multiply")
        wide = widest((product, factor))
        if wide == DECIMAL:
            product = decimal128(DECIMAL128.multiply(to_decimal(product), to_decimal(factor)))
            continue
        # Beyond 64 bits the product goes on as the double that was computed all along.
        as_double *= to_float(factor)
        exact = _int(product) * _int(factor)
        product = as_double if wide == DOUBLE or not fits_long(exact) else integer(exact, wide)
    return product


def _divide(left: object, right: object) -> object:
    if is_null(left) or is_null(right):
        return None
    one, other = number(left, "$divide"), number(right, "$divide")
    if is_zero(other):
        raise EvaluationError("$divide by zero")
    if widest((one, other)) == DECIMAL:
        return decimal128(DECIMAL128.divide(to_decimal(one), to_decimal(other)))
    return to_float(one) / to_float(other)


def _mod(left: object, right: object) -> object:
    """The remainder, with the sign of the dividend."""
    if is_null(left) or is_null(right):
        return None
    one, other = number(left, "$mod"), number(right, "$mod")
    if is_zero(other):
        raise EvaluationError("$mod by zero")
    wide = widest((one, other))
    if wide == DECIMAL:
        return decimal128(EXACT.remainder(to_decimal(one), to_decimal(other)))
    if wide == DOUBLE:
        dividend = to_float(one)
        return math.nan if math.isinf(dividend) else math.fmod(dividend, to_float(other))
    remainder = abs(_int(one)) % abs(_int(other))
    return integer(-remainder if _int(one) < 0 else remainder, wide)


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
