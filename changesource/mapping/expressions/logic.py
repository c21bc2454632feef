"""Comparisons by BSON's order, booleans, conditions, variables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

from bson.decimal128 import Decimal128

from changesource.exceptions import MappingError
from changesource.mapping.comparison import order_key
from changesource.mapping.expressions.nodes import (
    Builder,
    Context,
    EvaluationError,
    Node,
    Scope,
    binary,
    compiled_list,
    constant,
    folded,
    in_turn,
    is_null,
    members,
    unary,
)
from changesource.mapping.literals import literal
from changesource.mapping.spec import Json

Key = tuple[object, ...]


def truth(value: object) -> bool:
    """Whether a value counts as true: all but false, null, missing and zero."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value != 0
    if isinstance(value, Decimal128):
        exact = value.to_decimal()
        return exact.is_nan() or exact != 0
    return not is_null(value)


def _comparison(compare: Callable[[Key, Key], bool]) -> Builder:
    return binary(lambda left, right: compare(order_key(left), order_key(right)))


def _compare(left: object, right: object) -> object:
    one, other = order_key(left), order_key(right)
    return (one > other) - (one < other)


def _and(values: Iterator[object]) -> object:
    return all(map(truth, values))


def _or(values: Iterator[object]) -> object:
    return any(map(truth, values))


def _if_null(values: Iterator[object]) -> object:
    value: object = None
    for value in values:
        if not is_null(value):
            break
    return value


def _cond(context: Context, arguments: Json, place: str) -> Node:
    if isinstance(arguments, list):
        nodes = compiled_list(context, arguments, place, 3, 3)
    else:
        given = members(arguments, place, ("if", "then", "else"))
        nodes = [context.compile(given[name], f"{place}.{name}") for name in ("if", "then", "else")]
    condition, then, otherwise = (node.run for node in nodes)
    return folded(lambda scope: then(scope) if truth(condition(scope)) else otherwise(scope), nodes, place)


def _switch(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("branches",), ("default",))
    listed = given["branches"]
    if not isinstance(listed, list) or not listed:
        raise MappingError(f"{place}.branches", "takes a list of at least one branch")
    branches = []
    for index, one in enumerate(listed):
        own = f"{place}.branches.{index}"
        branch = members(one, own, ("case", "then"))
        branches.append([context.compile(branch[name], f"{own}.{name}") for name in ("case", "then")])
    default = context.compile(given["default"], f"{place}.default") if "default" in given else None

    def run(scope: Scope) -> object:
        for case, then in branches:
            if truth(case.run(scope)):
                return then.run(scope)
        if default is None:
            raise EvaluationError("$switch has no branch for this, and no default")
        return default.run(scope)

    return folded(run, [*(node for branch in branches for node in branch), *([default] if default else [])], place)


def _let(context: Context, arguments: Json, place: str) -> Node:
    given = members(arguments, place, ("vars", "in"))
    variables = given["vars"]
    if not isinstance(variables, dict):
        raise MappingError(f"{place}.vars", "must be an object of variables")
    # Each is given outside, so none sees another.
    values = [context.compile(value, f"{place}.vars.{name}").run for name, value in variables.items()]
    inner, slots = context.with_variables(list(variables), f"{place}.vars")
    body = inner.compile(given["in"], f"{place}.in").run

    def run(scope: Scope) -> object:
        found = [value(scope) for value in values]
        for slot, value in zip(slots, found, strict=True):
            scope[slot] = value
        return body(scope)

    return Node(run)


def _literal(context: Context, arguments: Json, place: str) -> Node:
    return constant(literal(arguments, place))


COMPARING = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp")
"""What takes as long as its arguments are large."""
OPERATORS: dict[str, Builder] = {
    "$eq": _comparison(operator.eq),
    "$ne": _comparison(operator.ne),
    "$gt": _comparison(operator.gt),
    "$gte": _comparison(operator.ge),
    "$lt": _comparison(operator.lt),
    "$lte": _comparison(operator.le),
    "$cmp": binary(_compare),
    "$and": in_turn(_and, 0),
    "$or": in_turn(_or, 0),
    "$not": unary(lambda value: not truth(value)),
    "$cond": _cond,
    "$ifNull": in_turn(_if_null, 2),
    "$switch": _switch,
    "$let": _let,
    "$literal": _literal,
}
