"""Filters: MongoDB's find language, compiled once into closures over documents.

Supported are implicit equality and the operators below, with the meaning of MongoDB's `find`; values may be extended
JSON. All else is refused when it is compiled, at its exact place.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable

from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.json_util import JSONOptions, loads

from changesource.exceptions import MappingError
from changesource.mapping.comparison import NAN_KEY, bson_class, order_key
from changesource.mapping.paths import MISSING, Document, Path, Predicate, Test, is_unicode, matcher, split_path
from changesource.mapping.spec import Json

_ORDERED: dict[str, Callable[[tuple[object, ...], tuple[object, ...]], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_LOGICAL = ("$and", "$or", "$nor")
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDERED, "$in", "$nin", "$exists", "$not")
_VALUES = (
    "$oid",
    "$date",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$timestamp",
)
_EXTENDED_JSON = JSONOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.STANDARD,
)


def compile_filter(filter: dict[str, Json], place: str) -> Predicate:
    """A predicate over decoded documents that says whether `find(filter)` would return them.

    ``place`` is where the filter stands in the configuration; ``MappingError`` names the place below it that is
    not supported. An empty filter lets everything pass.
    """
    return _all([_clause(key, value, f"{place}.{key}") for key, value in filter.items()])


def _clause(key: str, value: Json, place: str) -> Predicate:
    if key in _LOGICAL:
        return _logical(key, value, place)
    if key.startswith("$"):
        raise MappingError(place, f"operator {key} is not supported here; supported are {', '.join(_LOGICAL)}")
    path = split_path(key, place)
    if isinstance(value, dict) and next(iter(value), "").startswith("$") and next(iter(value)) not in _VALUES:
        return _all(_operators(path, value, place))
    return matcher(path, _equals(_literal(value, place)))


def _logical(key: str, value: Json, place: str) -> Predicate:
    if not isinstance(value, list) or not value:
        raise MappingError(place, f"{key} takes a list of at least one filter")
    members = []
    for index, member in enumerate(value):
        if not isinstance(member, dict):
            raise MappingError(f"{place}.{index}", "a filter is an object")
        members.append(compile_filter(member, f"{place}.{index}"))
    if key == "$and":
        return _all(members)
    return _any(members) if key == "$or" else _not(_any(members))


def _operators(path: Path, operators: dict[str, Json], place: str) -> list[Predicate]:
    return [_operator(path, name, value, f"{place}.{name}") for name, value in operators.items()]


def _operator(path: Path, name: str, value: Json, place: str) -> Predicate:
    """The predicate of one operator; each looks for a match of its own, so two may be met by two array elements."""
    if name not in _FIELD_OPERATORS:
        raise MappingError(place, f"operator {name} is not supported; supported are {', '.join(_FIELD_OPERATORS)}")
    if name == "$not":
        if not isinstance(value, dict) or not value:
            raise MappingError(place, "$not takes an object of operators")
        return _not(_all(_operators(path, value, place)))
    if name == "$exists":
        # Numbers stand for truth in many an old filter.
        if not isinstance(value, bool | int | float):
            raise MappingError(place, "$exists takes true or false")
        exists = matcher(path, lambda found: found is not MISSING)
        return exists if value else _not(exists)
    if name in ("$in", "$nin"):
        if not isinstance(value, list):
            raise MappingError(place, f"{name} takes a list")
        included = matcher(path, _one_of([_literal(member, f"{place}.{i}") for i, member in enumerate(value)]))
        return included if name == "$in" else _not(included)
    literal = _literal(value, place)
    if name in _ORDERED:
        return matcher(path, _ordered(name, literal))
    equal = matcher(path, _equals(literal))
    return equal if name == "$eq" else _not(equal)


def _equals(literal: object) -> Test:
    if literal is None:
        return lambda value: value is None or value is MISSING
    if isinstance(literal, bool):
        return lambda value: value is literal
    if isinstance(literal, str):
        # By exact type: the driver shows JavaScript code as a subclass of str.
        return lambda value: type(value) is str and value == literal
    kind, key = bson_class(literal), order_key(literal)
    return lambda value: bson_class(value) == kind and order_key(value) == key


def _one_of(literals: list[object]) -> Test:
    null = None in literals
    keys = frozenset(order_key(literal) for literal in literals)
    kinds = {key[0] for key in keys}

    def test(value: object) -> bool:
        if value is MISSING:
            return null
        return bson_class(value) in kinds and order_key(value) in keys

    return test


def _ordered(name: str, literal: object) -> Test:
    if literal is None or order_key(literal) == NAN_KEY:
        # Null and NaN are equal to themselves and in no order with anything.
        return _equals(literal) if name in ("$gte", "$lte") else lambda value: False
    compare, kind, key = _ORDERED[name], bson_class(literal), order_key(literal)

    def test(value: object) -> bool:
        if bson_class(value) != kind:
            return False
        own = order_key(value)
        return own != NAN_KEY and compare(own, key)

    return test


def _literal(value: Json, place: str) -> object:
    """A value of the filter as the driver would decode it."""
    if isinstance(value, str) and not is_unicode(value):
        raise MappingError(place, "a string cannot hold a lone surrogate")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise MappingError(place, "the number is beyond 64 bits; write it as $numberDecimal or $numberDouble")
    if isinstance(value, list):
        return [_literal(member, f"{place}.{index}") for index, member in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if next(iter(value), "").startswith("$"):
        return _extended(value, place)
    document = {}
    for key, member in value.items():
        if key.startswith("$"):
            raise MappingError(f"{place}.{key}", f"{key} is not supported inside a value")
        if "\0" in key or not is_unicode(key):
            raise MappingError(place, "a field name cannot hold U+0000 or a lone surrogate")
        document[key] = _literal(member, f"{place}.{key}")
    return document


def _extended(value: dict[str, Json], place: str) -> object:
    kind = next(iter(value))
    if kind not in _VALUES:
        raise MappingError(f"{place}.{kind}", f"{kind} is not supported as a value; supported are {', '.join(_VALUES)}")
    try:
        decoded: object = loads(json.dumps(value), json_options=_EXTENDED_JSON)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, BSONError) as exc:
        raise MappingError(f"{place}.{kind}", f"this is no valid {kind}") from exc
    if isinstance(decoded, dict):
        raise MappingError(f"{place}.{kind}", f"this is no valid {kind}")
    return decoded


def _all(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return lambda document: all(predicate(document) for predicate in predicates)


def _any(predicates: list[Predicate]) -> Predicate:
    return lambda document: any(predicate(document) for predicate in predicates)


def _not(predicate: Predicate) -> Predicate:
    def negation(document: Document) -> bool:
        return not predicate(document)

    return negation
