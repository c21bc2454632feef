"""What goes over an array's elements with an expression of them, and what sorts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, charge
from changesource.mapping.comparison import order_key
from changesource.mapping.expressions.arrays import array
from changesource.mapping.expressions.logic import truth
from changesource.mapping.expressions.nodes import Builder, Context, EvaluationError, Node, Run, Scope, is_null, members
from changesource.mapping.expressions.numbers import whole
from changesource.mapping.literals import literal
from changesource.mapping.paths import MISSING, as_document, split_path
from changesource.mapping.spec import Json

Sort = Callable[[list[object]], list[object]]


def _filter(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("input", "cond"), ("as", "limit"))
    source = context.compile(given["input"], f"{place}.input").run
    limit = context.compile(given.get("limit"), f"{place}.limit").run
    inner, (slot,) = context.with_variables([_variable(given, place)], f"{place}.as")
    condition, steps = _each(inner, given["cond"], f"{place}.cond")

    def run(scope: Scope) -> object:
        value = source(scope)
        if is_null(value):
            return None
        elements = array(value, "$filter")
        charge(steps * len(elements))
        most = _limit(limit(scope), len(elements)) if elements else 0
        found: list[object] = []
        for element in elements:
            scope[slot] = element
            if truth(condition(scope)):
                found.append(element)
                if len(found) == most:
                    break
        return found

    return Node(run)


def _each(inner: Context, expression: Json, place: str) -> tuple[Run, int]:
    """What is evaluated for each element, and how many steps that takes."""
    before = inner.parts
    run = inner.compile(expression, place).run
    return run, PART * (inner.parts - before)


def _limit(value: object, default: int) -> int:
    if is_null(value):
        return default
    found = whole(value, "the limit of $filter")
    if found < 1:
        raise EvaluationError("the limit of $filter must be at least 1")
    return found


def _map(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("input", "in"), ("as",))
    source = context.compile(given["input"], f"{place}.input").run
    inner, (slot,) = context.with_variables([_variable(given, place)], f"{place}.as")
    each, steps = _each(inner, given["in"], f"{place}.in")

    def run(scope: Scope) -> object:
        value = source(scope)
        if is_null(value):
            return None
        elements = array(value, "$map")
        charge(steps * len(elements))
        found: list[object] = []
        for element in elements:
            scope[slot] = element
            made = each(scope)
            found.append(None if made is MISSING else made)
        return found

    return Node(run)


def _variable(given: dict[str, Json], place: str) -> str:
    name = given.get("as", "this")
    if not isinstance(name, str):
        raise MappingError(f"{place}.as", "must be a variable's name")
    return name


def _reduce(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("input", "initialValue", "in"))
    source = context.compile(given["input"], f"{place}.input").run
    initial = context.compile(given["initialValue"], f"{place}.initialValue").run
    inner, (value_slot, this_slot) = context.with_variables(["value", "this"], f"{place}.in")
    each, steps = _each(inner, given["in"], f"{place}.in")

    def run(scope: Scope) -> object:
        value = source(scope)
        if is_null(value):
            return None
        elements = array(value, "$reduce")
        charge(steps * len(elements))
        result = initial(scope)
        for element in elements:
            scope[this_slot], scope[value_slot] = element, result
            result = each(scope)
        return result

    return Node(run)


def _sorted(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("input", "sortBy"))
    source = context.compile(given["input"], f"{place}.input").run
    sort = _sort(given["sortBy"], f"{place}.sortBy")

    def run(scope: Scope) -> object:
        value = source(scope)
        return None if is_null(value) else sort(array(value, "$sortArray"))

    return Node(run)


def _sort(by: Json, place: str) -> Sort:
    """What sorts an array by its values (1, -1) or by fields of its documents; equal ones keep their order."""
    given = literal(by, place)
    if not isinstance(given, dict):
        backwards = _backwards(given, place)

        def by_value(elements: list[object]) -> list[object]:
            _charge_sort(elements, 1)
            return sorted(elements, key=order_key, reverse=backwards)

        return by_value
    if not given:
        raise MappingError(place, "names no field to sort by")
    fields = [
        (partial(_field_key, split_path(path, f"{place}.{path}")), _backwards(way, f"{place}.{path}"))
        for path, way in given.items()
    ]

    def sort(elements: list[object]) -> list[object]:
        _charge_sort(elements, len(fields))
        # By the last field first: sorting keeps the order of equal ones.
        for key, backwards in reversed(fields):
            elements = sorted(elements, key=key, reverse=backwards)
        return elements

    return sort


def _charge_sort(elements: list[object], times: int) -> None:
    charge(PART * len(elements) * (len(elements).bit_length() // 2) * times)


def _backwards(way: object, place: str) -> bool:
    if isinstance(way, bool) or way not in (1, -1):
        raise MappingError(place, "must be 1 or -1")
    return way == -1


def _field_key(path: Sequence[str], value: object) -> tuple[object, ...]:
    """The order of the value by which a document is sorted; that of null where it has none."""
    for name in path:
        document = as_document(value)
        value = None if document is None else document.get(name)
    return order_key(value)


OPERATORS: dict[str, Builder] = {
    "$filter": _filter,
    "$map": _map,
    "$reduce": _reduce,
    "$sortArray": _sorted,
}
