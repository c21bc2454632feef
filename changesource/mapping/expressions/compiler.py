"""Compiles expressions: field paths, variables, literals, documents, arrays, and the operators."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from changesource.exceptions import MappingError
from changesource.mapping.expressions import (
    arithmetic,
    arrays,
    conversions,
    dates,
    iteration,
    logic,
    objects,
    patterns,
    rounding,
    strings,
    totals,
    truncation,
)
from changesource.mapping.expressions.nodes import Builder, Context, Node, Scope, constant, folded
from changesource.mapping.literals import field_name, is_extended, literal
from changesource.mapping.paths import MISSING, Document, Path, read_value, split_path
from changesource.mapping.spec import Json

Expression = Callable[[Document], object]
"""Gives a document's value, ``MISSING`` where there is none; ``EvaluationError`` where it cannot be told."""

OPERATORS: dict[str, Builder] = {
    **logic.OPERATORS,
    **arithmetic.OPERATORS,
    **rounding.OPERATORS,
    **totals.OPERATORS,
    **strings.OPERATORS,
    **patterns.OPERATORS,
    **arrays.OPERATORS,
    **iteration.OPERATORS,
    **objects.OPERATORS,
    **conversions.OPERATORS,
    **dates.OPERATORS,
    **truncation.OPERATORS,
}
MAX_DEPTH = 100
_VARIABLE = re.compile(r"[a-z\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*")
_ROOT = 0
# What other systems call by these names changes with the time or the session, and a change must be told alike always.
_REFUSED = ("$$NOW", "$$CLUSTER_TIME", "$$USER_ROLES", "$$SEARCH_META", "$$DESCEND", "$$PRUNE", "$$KEEP")


def operators() -> Sequence[str]:
    """The names of all operators that are supported."""
    return tuple(sorted(OPERATORS))


def compile_expression(expression: Json, place: str) -> Expression:
    """An expression as a function of documents; ``MappingError`` names what is not supported, and its place."""
    compiler = _Compiler({}, _Size())
    node = compiler.compile(expression, place)
    if node.is_constant:
        fixed = node.constant
        return lambda document: fixed
    run, rest = node.run, compiler.size.slots - 1
    if not rest:
        return lambda document: run([document])
    return lambda document: run([document, *[MISSING] * rest])


class _Size:
    """How many places the scope of one whole expression has."""

    slots = 1


class _Compiler:
    def __init__(self, variables: Mapping[str, int], size: _Size, depth: int = 0) -> None:
        self._variables = variables
        self._depth = depth
        self.size = size

    def with_variables(self, names: Sequence[str], place: str) -> tuple[Context, tuple[int, ...]]:
        """See ``Context``."""
        for name in names:
            if not _VARIABLE.fullmatch(name):
                raise MappingError(place, f"{name!r} is no variable's name: it begins with a small letter")
        first = self.size.slots
        self.size.slots += len(names)
        slots = tuple(range(first, self.size.slots))
        return _Compiler({**self._variables, **dict(zip(names, slots, strict=True))}, self.size, self._depth), slots

    def compile(self, expression: Json, place: str) -> Node:
        """See ``Context``."""
        if isinstance(expression, str):
            return self._text(expression, place)
        if isinstance(expression, list):
            return self._deeper(place)._array(expression, place)
        if not isinstance(expression, dict) or is_extended(expression):
            return constant(literal(expression, place))
        first = next(iter(expression), "")
        if not first.startswith("$"):
            return self._deeper(place)._document(expression, place)
        if len(expression) > 1:
            raise MappingError(place, f"{first} stands in an object of its own, not beside {list(expression)[1]}")
        builder = OPERATORS.get(first)
        if builder is None:
            raise MappingError(f"{place}.{first}", f"the expression {first} is not supported")
        return builder(self._deeper(place), expression[first], f"{place}.{first}")

    def _deeper(self, place: str) -> _Compiler:
        if self._depth >= MAX_DEPTH:
            raise MappingError(place, f"the expression is nested deeper than {MAX_DEPTH} levels")
        return _Compiler(self._variables, self.size, self._depth + 1)

    def _text(self, text: str, place: str) -> Node:
        if text.startswith("$$"):
            return self._of_variable(text, place)
        if text.startswith("$"):
            return _at(_ROOT, split_path(text[1:], place))
        return constant(literal(text, place))

    def _of_variable(self, text: str, place: str) -> Node:
        name, dot, rest = text[2:].partition(".")
        path = split_path(rest, place) if dot else ()
        if name in ("ROOT", "CURRENT"):
            return _at(_ROOT, path)
        if name == "REMOVE":
            return constant(MISSING)
        if f"$${name}" in _REFUSED:
            raise MappingError(place, f"$${name} is not supported: the same document must always give the same row")
        if name not in self._variables:
            raise MappingError(place, f"there is no variable $${name} here")
        return _at(self._variables[name], path)

    def _array(self, elements: Sequence[Json], place: str) -> Node:
        nodes = [self.compile(element, f"{place}.{index}") for index, element in enumerate(elements)]
        runs = [node.run for node in nodes]
        return folded(lambda scope: [_null_for_missing(run(scope)) for run in runs], nodes, place)

    def _document(self, fields: Mapping[str, Json], place: str) -> Node:
        nodes = {}
        for name, inner in fields.items():
            if name.startswith("$") or "." in name:
                raise MappingError(f"{place}.{name}", "a field's name here has no dot and does not begin with $")
            nodes[field_name(name, place)] = self.compile(inner, f"{place}.{name}")
        runs = [(name, node.run) for name, node in nodes.items()]

        def run(scope: Scope) -> object:
            found = ((name, each(scope)) for name, each in runs)
            return {name: value for name, value in found if value is not MISSING}

        return folded(run, nodes.values(), place)


def _null_for_missing(value: object) -> object:
    return None if value is MISSING else value


def _at(slot: int, path: Path) -> Node:
    if not path:
        return Node(lambda scope: scope[slot])
    return Node(lambda scope: read_value(scope[slot], path))
