"""Rounding of doubles and decimals, to a whole number or to a place after or before the point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from bson.decimal128 import Decimal128

from changesource.mapping.expressions.nodes import ABSENT, Builder, EvaluationError, in_turn, is_null, unary
from changesource.mapping.expressions.numbers import (
    DECIMAL128,
    DIGITS,
    EXACT,
    LEAST_EXPONENT,
    decimal128,
    exact_decimal,
    fits_long,
    integer,
    kind,
    number,
    whole,
)

LEAST_PLACE, MOST_PLACE = -20, 100


def _whole(name: str, double: Callable[[float], int], rounding: str) -> Builder:
    def function(value: object) -> object:
        if is_null(value):
            return None
        found = number(value, name)
        if isinstance(found, Decimal128):
            # NaN for what has no 34 digits before the point, infinities included: MongoDB quantizes to exponent 0.
            return decimal128(found.to_decimal().quantize(Decimal(1), rounding, DECIMAL128))
        if isinstance(found, float) and math.isfinite(found):
            return math.copysign(float(double(found)), found)
        return found

    return unary(function)


def _to_place(name: str, rounding: str) -> Builder:
    def function(values: Iterator[object]) -> object:
        value, place = next(values), 0
        if is_null(value):
            return None
        found = number(value, name)
        given = next(values, ABSENT)
        if is_null(given):
            return None
        if given is not ABSENT:
            place = whole(given, f"the place of {name}")
        if not LEAST_PLACE <= place <= MOST_PLACE:
            raise EvaluationError(f"the place of {name} is not between {LEAST_PLACE} and {MOST_PLACE}")
        if isinstance(found, int):
            return found if place >= 0 else _integer_to_place(found, place, rounding)
        exact = found.to_decimal() if isinstance(found, Decimal128) else exact_decimal(found)
        if exact.is_infinite():
            return found
        result = _decimal_to_place(exact, place, rounding)
        return decimal128(result) if isinstance(found, Decimal128) else float(result)

    return in_turn(function, 1, 2)


def _decimal_to_place(exact: Decimal, place: int, rounding: str) -> Decimal:
    if exact and not exact.is_nan() and exact.adjusted() + place >= DIGITS:
        # There is nothing to round, and MongoDB gives the number with all its digits.
        return exact.quantize(Decimal(1).scaleb(max(exact.adjusted() - DIGITS + 1, LEAST_EXPONENT)), context=DECIMAL128)
    return exact.quantize(Decimal(1).scaleb(-place), rounding, DECIMAL128)


def _integer_to_place(value: int, place: int, rounding: str) -> int:
    result = int(Decimal(int(value)).quantize(Decimal(1).scaleb(-place), rounding, EXACT))
    if not fits_long(result):
        raise EvaluationError("the rounded number is beyond 64 bits")
    return integer(result, kind(value))


OPERATORS: dict[str, Builder] = {
    "$ceil": _whole("$ceil", math.ceil, ROUND_CEILING),
    "$floor": _whole("$floor", math.floor, ROUND_FLOOR),
    "$round": _to_place("$round", ROUND_HALF_EVEN),
    "$trunc": _to_place("$trunc", ROUND_DOWN),
}
