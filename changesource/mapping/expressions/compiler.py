"""Compiles expressions: field paths, variables, literals, documents, arrays, and the operators."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from changesource.exceptions import MappingError
from changesource.mapping.budget import bounded
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
from changesource.mapping.expressions.sizes import checked_size
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
MAX_PARTS = 20_000
# So many are quicker done than counted, even where one of them goes over a long text.
FEW_PARTS = 16
LIGHT = frozenset(
    (
        *logic.OPERATORS,
        *arithmetic.OPERATORS,
        *rounding.OPERATORS,
        *dates.OPERATORS,
        *truncation.OPERATORS,
        *conversions.OPERATORS,
        *("$size", "$arrayElemAt", "$first", "$last", "$isArray", "$strLenCP", "$getField"),
    )
) - {*logic.COMPARING, "$mod", "$dateToString"}
"""What takes a constant time, or goes over a text once."""
SLOW = {
    **dict.fromkeys(dates.OPERATORS, 3),
    **dict.fromkeys(totals.OPERATORS, 2),
    **dict.fromkeys(arithmetic.OPERATORS, 2),
    "$dateToString": 15,
    "$dateTrunc": 30,
    "$toDate": 2,
}
"""How many parts an operator counts for, besides itself, that takes longer than most."""
SHARING = ("$map", "$concatArrays")
"""What may hold the same part of a document several times, besides arrays and documents that are written."""
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
    # What is constant is evaluated now.
    node = bounded(partial(compiler.compile, expression))(place)
    size = compiler.size
    if node.is_constant:
        fixed = node.constant
        return lambda document: fixed
    run, rest = node.run, size.slots - 1
    if rest:
        single = run
        run = lambda scope: single([*scope, *[MISSING] * rest])  # noqa: E731 - a function of its own is no clearer
    if size.shares:
        whole = run
        run = lambda scope: checked_size(whole(scope))  # noqa: E731 - as above
    if size.is_light and size.parts <= FEW_PARTS:
        return lambda document: run([document])
    return bounded(lambda document: run([document]))


class _Size:
    """What is known of one whole expression: ``slots`` is how many places its scope has, ``parts`` how long it is.

    ``shares`` is whether its value may hold a part of the document more than once; ``is_light`` whether it takes but a
    constant time for each of its parts.
    """

    slots = 1
    parts = 0
    shares = False
    is_light = True


class _Compiler:
    def __init__(self, variables: Mapping[str, int], size: _Size, depth: int = 0) -> None:
        self._variables = variables
        self._depth = depth
        self.size = size

    @property
    def parts(self) -> int:
        """See ``Context``."""
        return self.size.parts

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
        self._count(1, place)
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
        self._count(SLOW.get(first, 0), place)
        self.size.is_light = self.size.is_light and first in LIGHT
        self.size.shares = self.size.shares or first in SHARING
        return builder(self._deeper(place), expression[first], f"{place}.{first}")

    def _count(self, parts: int, place: str) -> None:
        self.size.parts += parts
        if self.size.parts > MAX_PARTS:
            raise MappingError(place, f"the expression has more than {MAX_PARTS} parts")

    def _deeper(self, place: str) -> _Compiler:
        if self._depth >= MAX_DEPTH:
            raise MappingError(place, f"the expression is nested deeper than {MAX_DEPTH} levels")
        return _Compiler(self._variables, self.size, self._depth + 1)

    def _text(self, text: str, place: str) -> Node:
        if text.startswith("$$"):
            return self._of_variable(text, place)
        if text.startswith("$"):
            return self._at(_ROOT, split_path(text[1:], place))
        return constant(literal(text, place))

    def _of_variable(self, text: str, place: str) -> Node:
        name, dot, rest = text[2:].partition(".")
        path = split_path(rest, place) if dot else ()
        if name in ("ROOT", "CURRENT"):
            return self._at(_ROOT, path)
        if name == "REMOVE":
            return constant(MISSING)
        if f"$${name}" in _REFUSED:
            raise MappingError(place, f"$${name} is not supported: the same document must always give the same row")
        if name not in self._variables:
            raise MappingError(place, f"there is no variable $${name} here")
        return self._at(self._variables[name], path)

    def _at(self, slot: int, path: Path) -> Node:
        if not path:
            return Node(lambda scope: scope[slot])
        # Through arrays, it takes as long as they are.
        self.size.is_light = self.size.is_light and len(path) == 1
        return Node(lambda scope: read_value(scope[slot], path))

    def _array(self, elements: Sequence[Json], place: str) -> Node:
        nodes = [self.compile(element, f"{place}.{index}") for index, element in enumerate(elements)]
        runs = [node.run for node in nodes]
        self.size.shares = self.size.shares or not all(node.is_constant for node in nodes)
        return folded(lambda scope: [_null_for_missing(run(scope)) for run in runs], nodes, place)

    def _document(self, fields: Mapping[str, Json], place: str) -> Node:
        nodes = {}
        for name, inner in fields.items():
            if name.startswith("$") or "." in name:
                raise MappingError(f"{place}.{name}", "a field's name here has no dot and does not begin with $")
            nodes[field_name(name, place)] = self.compile(inner, f"{place}.{name}")
        runs = [(name, node.run) for name, node in nodes.items()]
        self.size.shares = self.size.shares or not all(node.is_constant for node in nodes.values())

        def run(scope: Scope) -> object:
            found = ((name, each(scope)) for name, each in runs)
            return {name: value for name, value in found if value is not MISSING}

        return folded(run, nodes.values(), place)


def _null_for_missing(value: object) -> object:
    return None if value is MISSING else value
