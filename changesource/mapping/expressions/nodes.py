"""What expressions are compiled to, and what their operators are made with.

An operator is compiled by a builder, which gets its arguments as they stand and a context that compiles what is
inside. Most builders are made of a plain function of values, by ``unary``, ``binary``, ``in_turn`` or ``named``. As
in MongoDB, an operator that knows its value by its first arguments does not evaluate the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from changesource.exceptions import MappingError
from changesource.mapping.paths import MISSING
from changesource.mapping.spec import Json

Scope: TypeAlias = list[object]
"""The values of variables while one document is evaluated; the first is the document."""
Run: TypeAlias = Callable[[Scope], object]
Get: TypeAlias = Callable[[str], object]
"""Evaluates a named argument; ``ABSENT`` where it is not written."""


class EvaluationError(ValueError):
    """A document for which an expression has no value; says why, without the document's contents."""


class _Absent:
    """The type of ``ABSENT``."""


ABSENT: Final = _Absent()
"""Stands for an argument that is not written, unlike ``MISSING``: one that is, and has no value."""
_NOT_CONSTANT: Final = object()


@dataclass(frozen=True)
class Node:
    """A compiled expression. ``constant`` is its value where ``is_constant``: the same for every document."""

    run: Run
    constant: object = _NOT_CONSTANT

    @property
    def is_constant(self) -> bool:
        """Whether the value is known already."""
        return self.constant is not _NOT_CONSTANT


class Context(Protocol):
    """Compiles what is inside an operator; ``place`` is where that stands in the configuration."""

    @property
    def parts(self) -> int:
        """How many operators, paths and literals were compiled so far."""

    def compile(self, expression: Json, place: str) -> Node:
        """Compile an expression, within the variables that are known here."""

    def with_variables(self, names: Sequence[str], place: str) -> tuple[Context, tuple[int, ...]]:
        """Return a context that knows these variables too, and their places in the scope."""


Builder: TypeAlias = Callable[[Context, Json, str], Node]


def constant(value: object) -> Node:
    """A node that is always ``value``."""
    return Node(lambda scope: value, value)


def is_null(value: object) -> bool:
    """Whether ``value`` is null or missing."""
    return value is None or value is MISSING


def folded(run: Run, arguments: Iterable[Node], place: str) -> Node:
    """What ``run`` makes of ``arguments``; evaluated now where all of them are constant."""
    if not all(argument.is_constant for argument in arguments):
        return Node(run)
    try:
        return constant(run([]))
    except (ValueError, ArithmeticError) as exc:
        raise MappingError(place, str(exc) or type(exc).__name__) from exc


def unary(function: Callable[[object], object]) -> Builder:
    """An operator that takes one argument."""

    def build(context: Context, arguments: Json, place: str) -> Node:
        (node,) = compiled_list(context, arguments, place, 1, 1)
        argument = node.run
        return folded(lambda scope: function(argument(scope)), [node], place)

    return build


def binary(function: Callable[[object, object], object]) -> Builder:
    """An operator that takes two arguments."""

    def build(context: Context, arguments: Json, place: str) -> Node:
        nodes = compiled_list(context, arguments, place, 2, 2)
        first, second = (node.run for node in nodes)
        return folded(lambda scope: function(first(scope), second(scope)), nodes, place)

    return build


def in_turn(function: Callable[[Iterator[object]], object], least: int, most: int | None = None) -> Builder:
    """An operator that takes ``least`` to ``most`` arguments (None: any number), each evaluated as it is asked for."""

    def build(context: Context, arguments: Json, place: str) -> Node:
        nodes = compiled_list(context, arguments, place, least, most)
        runs = [node.run for node in nodes]
        return folded(lambda scope: function(run(scope) for run in runs), nodes, place)

    return build


def named(
    function: Callable[[Get], object],
    required: Sequence[str],
    optional: Sequence[str] = (),
    checks: Mapping[str, Callable[[object], object]] | None = None,
) -> Builder:
    """An operator that takes an object of arguments; ``checks`` raise where a constant one can only fail."""

    def build(context: Context, arguments: Json, place: str) -> Node:
        given = members(arguments, place, required, optional)
        nodes = {name: context.compile(argument, f"{place}.{name}") for name, argument in given.items()}
        for name, check in (checks or {}).items():
            if name in nodes and nodes[name].is_constant and not is_null(nodes[name].constant):
                checked(check, nodes[name].constant, f"{place}.{name}")
        runs = {name: node.run for name, node in nodes.items()}

        def run(scope: Scope) -> object:
            return function(lambda name: runs[name](scope) if name in runs else ABSENT)

        return folded(run, nodes.values(), place)

    return build


def checked(check: Callable[[object], object], value: object, place: str) -> None:
    """Raise ``MappingError`` where ``check`` raises for ``value``."""
    try:
        check(value)
    except ValueError as exc:
        raise MappingError(place, str(exc)) from exc


def compiled_list(context: Context, arguments: Json, place: str, least: int, most: int | None) -> list[Node]:
    """The arguments of an operator that takes ``least`` to ``most`` of them; one may stand without a list."""
    given = arguments if isinstance(arguments, list) else [arguments]
    if len(given) < least or (most is not None and len(given) > most):
        wanted = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        raise MappingError(place, f"takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(given)}")
    if not isinstance(arguments, list):
        return [context.compile(arguments, place)]
    return [context.compile(one, f"{place}.{index}") for index, one in enumerate(given)]


def members(arguments: Json, place: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Json]:
    """The members of an operator's object, once they are known to be the right ones."""
    known = ", ".join((*required, *optional))
    if not isinstance(arguments, dict):
        raise MappingError(place, f"takes an object of {known}")
    for name in required:
        if name not in arguments:
            raise MappingError(f"{place}.{name}", "is missing")
    for name in arguments:
        if name not in required and name not in optional:
            raise MappingError(f"{place}.{name}", f"is not a known argument; known are {known}")
    return arguments
