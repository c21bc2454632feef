"""Sums, averages and extremes: of the arguments, or of one array's members where it is the only argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

from bson.decimal128 import Decimal128
from bson.int64 import Int64

from changesource.mapping.budget import DECIMAL as DECIMAL_STEPS
from changesource.mapping.budget import PART, charge
from changesource.mapping.comparison import order_key
from changesource.mapping.expressions.nodes import Builder, in_turn, is_null
from changesource.mapping.expressions.numbers import (
    DECIMAL,
    DECIMAL128,
    DOUBLE,
    Number,
    decimal128,
    exact_decimal,
    fits_long,
    integer,
    is_number,
    widest,
)


class _Compensated:
    """A sum of doubles with the part that rounding took from it: Knuth's TwoSum and Dekker's Fast2Sum."""

    def __init__(self, numbers: Iterable[int | float]) -> None:
        self.total = self._lost = self._plain = 0.0
        for each in numbers:
            # Longs in two halves, which doubles hold exactly.
            high = abs(each) >> 32 << 32 if isinstance(each, Int64) else 0
            if high:
                high = -high if each < 0 else high
                self._add(float(each - high))
            self._add(float(high or each))

    def _add(self, value: float) -> None:
        self._plain += value
        raised = value + self._lost
        self._lost -= raised - value
        total = self.total + raised
        kept = total - raised
        self._lost += (self.total - kept) + (raised - (total - kept))
        self.total = total

    def double(self) -> float:
        """The sum; compensation makes NaN of infinities, so that then the plain sum counts."""
        return self._plain if math.isnan(self.total) else self.total

    def decimal(self) -> Decimal:
        """The sum with all the digits that a decimal holds."""
        if not math.isfinite(self.total):
            return Decimal(self._plain)
        return DECIMAL128.add(exact_decimal(self.total), exact_decimal(self._lost))


def _total(numbers: Sequence[Number]) -> Number:
    wide = widest(numbers)
    others = [each for each in numbers if not isinstance(each, Decimal128)]
    if wide == DECIMAL:
        added = Decimal(0)
        charge(DECIMAL_STEPS * len(numbers))
        for each in numbers:
            if isinstance(each, Decimal128):
                added = DECIMAL128.add(added, each.to_decimal())
        return decimal128(DECIMAL128.add(added, _Compensated(others).decimal()))
    if wide == DOUBLE:
        return _Compensated(others).double()
    exact = sum(int(each) for each in others)
    return integer(exact, wide) if fits_long(exact) else float(exact)


def _sum(values: Sequence[object]) -> object:
    return _total([value for value in values if is_number(value)])


def _avg(values: Sequence[object]) -> object:
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return None
    total = _total(numbers)
    if isinstance(total, Decimal128):
        return decimal128(DECIMAL128.divide(total.to_decimal(), Decimal(len(numbers))))
    return float(total) / len(numbers)


def _min(values: Sequence[object]) -> object:
    return min((value for value in values if not is_null(value)), key=order_key, default=None)


def _max(values: Sequence[object]) -> object:
    return max((value for value in values if not is_null(value)), key=order_key, default=None)


def over(function: Callable[[Sequence[object]], object]) -> Builder:
    """An operator that takes any number of arguments, or one array of them."""

    def of(values: Iterator[object]) -> object:
        found = list(values)
        members = found[0] if len(found) == 1 and isinstance(found[0], list) else found
        charge(PART * len(members))
        return function(members)

    return in_turn(of, 0)


OPERATORS: dict[str, Builder] = {
    "$sum": over(_sum),
    "$avg": over(_avg),
    "$min": over(_min),
    "$max": over(_max),
}
