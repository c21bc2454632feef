"""Embedded documents."""

from __future__ import annotations

from collections.abc import Sequence

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, charge, charge_elements
from changesource.mapping.expressions.nodes import (
    Builder,
    Context,
    EvaluationError,
    Node,
    Scope,
    folded,
    is_null,
    members,
    unary,
)
from changesource.mapping.expressions.totals import over
from changesource.mapping.paths import MISSING, as_document
from changesource.mapping.spec import Json
from changesource.mapping.values import type_name


def _document(value: object, name: str) -> dict[str, object]:
    found = as_document(value)
    if found is None:
        raise EvaluationError(f"{name} takes an embedded document, not a value of type {type_name(value)}")
    return found


def _merged(values: Sequence[object]) -> object:
    result: dict[str, object] = {}
    for value in values:
        if not is_null(value):
            more = _document(value, "$mergeObjects")
            charge_elements(len(more))
            result |= more
    return result


def _to_array(value: object) -> object:
    if is_null(value):
        return None
    fields = _document(value, "$objectToArray")
    charge(PART * len(fields))
    return [{"k": name, "v": inner} for name, inner in fields.items()]


def _from_array(value: object) -> object:
    if is_null(value):
        return None
    if not isinstance(value, list):
        raise EvaluationError(f"$arrayToObject takes an array, not a value of type {type_name(value)}")
    charge(PART * len(value))
    result: dict[str, object] = {}
    # The first element says which of the two forms all have.
    pair = _pair if value and isinstance(value[0], list) else _named_pair
    for element in value:
        name, inner = pair(element)
        if type(name) is not str:
            raise EvaluationError("$arrayToObject needs a string for each field's name")
        if "\0" in name:
            raise EvaluationError("a field's name cannot hold U+0000")
        result[name] = inner
    return result


def _pair(element: object) -> tuple[object, object]:
    if not isinstance(element, list) or len(element) != 2:
        raise EvaluationError("$arrayToObject takes arrays of a name and a value")
    return element[0], element[1]


def _named_pair(element: object) -> tuple[object, object]:
    document = as_document(element)
    if document is None or set(document) != {"k", "v"}:
        raise EvaluationError("$arrayToObject takes documents of k and v")
    return document["k"], document["v"]


def _get_field(context: Context, arguments: Json, place: str) -> Node:
    """The field of that very name, dots and dollars included."""
    if isinstance(arguments, dict) and "field" in arguments:
        given = members(arguments, place, ("field",), ("input",))
        field = context.compile(given["field"], f"{place}.field")
        document = context.compile(given.get("input", "$$CURRENT"), f"{place}.input")
    else:
        field, document = context.compile(arguments, place), context.compile("$$CURRENT", place)
    name, source = field.constant, document.run
    if not field.is_constant or not isinstance(name, str):
        raise MappingError(place, 'needs a constant field name; one that begins with $ is {"$literal": "$..."}')

    def run(scope: Scope) -> object:
        value = source(scope)
        if is_null(value):
            return value
        found = as_document(value)
        return MISSING if found is None else found.get(name, MISSING)

    return folded(run, [document], place)


OPERATORS: dict[str, Builder] = {
    "$mergeObjects": over(_merged),
    "$objectToArray": unary(_to_array),
    "$arrayToObject": unary(_from_array),
    "$getField": _get_field,
}
