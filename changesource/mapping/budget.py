"""How much work one evaluation may be: steps are counted where a mapping can make much of little.

A step is about 20 ns of one processor, so ``STEPS`` are less than 0.1 s: for so long a document may hold up the event
loop that all replicas share. What counts does so by what it is going to do (``charge``), before it does it, and by
sizes alone, never by the clock: the same document is refused everywhere or nowhere. An evaluation that takes more ends
with ``BudgetSpent``, which is a row error like any other.

Counted are loops over elements, by the size of what is evaluated for each; regular expressions; long texts and large
arrays that are made, so that memory is bounded too. What takes a constant time is not: so the paths that are taken for
every document cost nothing. Outside of ``bounded`` nothing is counted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

STEPS: Final = 4_000_000
"""What one expression or filter may take for one document."""
ALL_STEPS: Final = 20_000_000
"""What a document may take in all: that a pipeline makes rows of, or for the filter and the columns of one row."""
BLOCK_STEPS: Final = 8_000_000
"""What documents may take that are mapped together; less than one alone, so that none is spared what bounds it."""
PART: Final = 25
"""The steps of evaluating one operator or path."""
DECIMAL: Final = 300
"""The steps of computing with one decimal."""
SHORT: Final = 256
"""Text and arrays up to this length are not counted."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class BudgetSpent(ValueError):
    """An evaluation takes more steps than it may."""

    def __init__(self) -> None:
        super().__init__("it takes more steps, or makes more data, than one document may")


class Exhausted(Exception):
    """Several evaluations took more steps than they may together. No fault of a value: what deals with those passes it
    on."""


class _Meter(threading.local):
    """What is ``left`` of this thread's evaluation, and of those that go ``together``; infinite where there is none."""

    left: float = math.inf
    together: float = math.inf


_meter = _Meter()


def charge(steps: int) -> None:
    """Count ``steps`` that are going to be taken; ``BudgetSpent`` where they are not left."""
    left = _meter.left - steps
    _meter.left = left
    if left < 0:
        raise BudgetSpent


def charge_text(length: int) -> None:
    """Count a text of ``length`` characters that is read or made."""
    if length > SHORT:
        charge(length >> 4)


def charge_compared(length: int) -> None:
    """Count a text or bytes of ``length`` that are copied or compared as they are, which is ten times as fast."""
    if length > SHORT:
        charge(length >> 7)


def charge_elements(count: int) -> None:
    """Count ``count`` elements or fields that are gone over or copied, without an expression of them."""
    if count > SHORT:
        charge(count)


def bounded(run: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """``run`` with ``STEPS`` to take; within an evaluation that is bounded already, with what it has left.

    ``Exhausted`` where what goes ``together`` has taken more than it may.
    """

    def within_bounds(argument: Argument) -> Result:
        if _meter.left != math.inf:
            return run(argument)
        if _meter.together < 0:
            raise Exhausted
        _meter.left = STEPS
        try:
            return run(argument)
        finally:
            _meter.together -= STEPS - _meter.left
            _meter.left = math.inf

    return within_bounds


class Together:
    """A context in which what is bounded takes so many ``steps`` in all; the evaluation after that is ``Exhausted``."""

    __slots__ = ("_outer", "_steps")

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._outer = math.inf

    def __enter__(self) -> None:
        self._outer, _meter.together = _meter.together, self._steps

    def __exit__(self, *exc: object) -> None:
        _meter.together = self._outer


class Allowance:
    """Steps that several calls share."""

    def __init__(self, steps: int = ALL_STEPS) -> None:
        self._left: float = steps

    @property
    def is_spent(self) -> bool:
        """Whether a call took more than was left."""
        return self._left < 0

    def spend(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call ``function`` with what is left."""
        outer, _meter.left = _meter.left, self._left
        try:
            return function(*args, **kwargs)
        finally:
            self._left, _meter.left = _meter.left, outer
