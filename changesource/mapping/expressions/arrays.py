"""Arrays. Indexes count from 0, and from the end where they are negative."""

from __future__ import annotations

from collections.abc import Iterator

from changesource.mapping.budget import PART, charge, charge_elements
from changesource.mapping.comparison import order_key
from changesource.mapping.expressions.logic import truth
from changesource.mapping.expressions.nodes import ABSENT, Builder, EvaluationError, binary, in_turn, is_null, unary
from changesource.mapping.expressions.numbers import whole
from changesource.mapping.paths import MISSING
from changesource.mapping.values import type_name

# More than fit a document: an expression that doubles an array again and again would fill the memory.
MAX_ELEMENTS = 2_000_000


def array(value: object, name: str) -> list[object]:
    """``value``, which must be an array; ``name`` is the operator's, for the error."""
    if not isinstance(value, list):
        raise EvaluationError(f"{name} takes an array, not a value of type {type_name(value)}")
    return value


def _size(value: object) -> object:
    return len(array(value, "$size"))


def _element(value: object, index: object) -> object:
    if is_null(value) or is_null(index):
        return None
    elements, at = array(value, "$arrayElemAt"), whole(index, "the index of $arrayElemAt")
    return elements[at] if -len(elements) <= at < len(elements) else MISSING


def _end(name: str, at: int) -> Builder:
    def function(value: object) -> object:
        if is_null(value):
            return None
        elements = array(value, name)
        return elements[at] if elements else MISSING

    return unary(function)


def _in(wanted: object, value: object) -> object:
    elements, key = array(value, "$in"), order_key(wanted)
    charge(PART * len(elements))
    return any(order_key(element) == key for element in elements)


def _concatenated(values: Iterator[object]) -> object:
    elements: list[object] = []
    for value in values:
        if is_null(value):
            return None
        more = array(value, "$concatArrays")
        charge_elements(len(more))
        elements += more
        if len(elements) > MAX_ELEMENTS:
            raise EvaluationError(f"$concatArrays gives an array of more than {MAX_ELEMENTS} elements")
    return elements


def _slice(values: Iterator[object]) -> object:
    """The first so many elements, the last where that is negative; or so many from a position on."""
    value, first = next(values), next(values)
    if is_null(value) or is_null(first):
        return None
    elements = array(value, "$slice")
    charge_elements(len(elements))
    begin = whole(first, "the second argument of $slice")
    given = next(values, ABSENT)
    if given is ABSENT:
        return elements[:begin] if begin >= 0 else elements[begin:]
    if is_null(given):
        return None
    count = whole(given, "the count of $slice")
    if count <= 0:
        raise EvaluationError("the count of $slice after a position must be positive")
    if begin < 0:
        begin = max(0, len(elements) + begin)
    return elements[begin : begin + count]


def _reversed(value: object) -> object:
    if is_null(value):
        return None
    elements = array(value, "$reverseArray")
    charge_elements(len(elements))
    return elements[::-1]


def _index(values: Iterator[object]) -> object:
    value = next(values)
    if is_null(value):
        return None
    elements, key = array(value, "$indexOfArray"), order_key(next(values))
    charge(PART * len(elements))
    start, end = (_position(next(values, ABSENT), default) for default in (0, len(elements)))
    return next((at for at in range(start, min(end, len(elements))) if order_key(elements[at]) == key), -1)


def _position(given: object, default: int) -> int:
    if given is ABSENT:
        return default
    found = whole(given, "the start or end of $indexOfArray")
    if found < 0:
        raise EvaluationError("the start and end of $indexOfArray cannot be negative")
    return found


def _any(value: object) -> object:
    return any(map(truth, _counted(value, "$anyElementTrue")))


def _all(value: object) -> object:
    return all(map(truth, _counted(value, "$allElementsTrue")))


def _counted(value: object, name: str) -> list[object]:
    elements = array(value, name)
    charge(PART * len(elements))
    return elements


OPERATORS: dict[str, Builder] = {
    "$size": unary(_size),
    "$arrayElemAt": binary(_element),
    "$first": _end("$first", 0),
    "$last": _end("$last", -1),
    "$in": binary(_in),
    "$isArray": unary(lambda value: isinstance(value, list)),
    "$concatArrays": in_turn(_concatenated, 0),
    "$slice": in_turn(_slice, 2, 3),
    "$reverseArray": unary(_reversed),
    "$indexOfArray": in_turn(_index, 2, 4),
    "$anyElementTrue": unary(_any),
    "$allElementsTrue": unary(_all),
}
