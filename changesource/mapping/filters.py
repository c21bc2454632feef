"""Filters: MongoDB's find language, compiled once into closures over documents.

Supported are implicit equality and the operators below, with the meaning of MongoDB's `find`; values may be extended
JSON. All else is refused when it is compiled, at its exact place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bson.decimal128 import Decimal128
from bson.regex import Regex

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, bounded, charge
from changesource.mapping.comparison import NAN_KEY, ORDERED, equals, one_of, order_key, ordered
from changesource.mapping.expressions import compile_expression
from changesource.mapping.expressions.conversions import TYPE_CODES, bson_type
from changesource.mapping.expressions.logic import truth
from changesource.mapping.expressions.numbers import is_number
from changesource.mapping.literals import INT64, VALUES, is_extended, literal
from changesource.mapping.paths import MISSING, Document, Path, Predicate, Test, as_document, matcher, split_path
from changesource.mapping.regexes import OPTIONS, compile_regex
from changesource.mapping.spec import Json

LOGICAL = ("$and", "$or", "$nor")
TOP_LEVEL = (*LOGICAL, "$expr")
FIELD_OPERATORS = (
    "$eq",
    "$ne",
    *ORDERED,
    "$in",
    "$nin",
    "$exists",
    "$type",
    "$regex",
    "$options",
    "$mod",
    "$all",
    "$elemMatch",
    "$size",
    "$not",
)
MAX_CLAUSES = 10_000
# So many tests of fields take less time than it takes to count it.
LIGHT = 12
NUMBER_TYPES = ("double", "int", "long", "decimal")
# The driver reads values of these deprecated types as those of another.
_READ_AS = {"undefined": "null", "symbol": "string", "dbPointer": "object"}
_TYPES = [name for name in TYPE_CODES if name not in _READ_AS]


@dataclass(frozen=True)
class _Criterion:
    """What one operator asks: of all values that a path reaches, or of a single one (an array's element)."""

    at: Callable[[Path], Predicate]
    single: Test


def compile_filter(filter: dict[str, Json], place: str) -> Predicate:
    """A predicate over decoded documents that says whether `find(filter)` would return them.

    ``place`` is where the filter stands in the configuration; ``MappingError`` names the place below it that is
    not supported. An empty filter lets everything pass. The predicate raises ``ValueError`` where `find` would fail.
    """
    clauses, heavy = _weight(filter)
    if clauses > MAX_CLAUSES:
        raise MappingError(place, f"the filter has more than {MAX_CLAUSES} clauses")
    found = _filter(filter, place, inside=False)
    return bounded(found) if heavy or clauses > LIGHT else found


def _weight(value: Json, key: str = "") -> tuple[int, bool]:
    """How many clauses there are, and whether one of them may take more steps than a few for each value."""
    heavy = key in ("$regex", "$regularExpression", "$elemMatch", "$expr") or "." in key
    if isinstance(value, dict):
        # A document that is compared, as an array, is compared member by member.
        heavy = heavy or bool(key and key not in LOGICAL and not is_operators(value) and not is_extended(value))
        found = [_weight(inner, name) for name, inner in value.items()]
    elif isinstance(value, list):
        among = key in ("$in", "$nin")
        heavy = heavy or (not among and key not in LOGICAL)
        # What a value may be among is looked up at once.
        found = [_weight(inner, key) for inner in value if not among or isinstance(inner, dict | list)]
    else:
        found = []
    return 1 + sum(count for count, _ in found), heavy or any(each for _, each in found)


def is_operators(value: Json) -> bool:
    """Whether what stands at a field is an object of operators, not a value that the field must equal."""
    return isinstance(value, dict) and next(iter(value), "").startswith("$") and next(iter(value)) not in VALUES


def _filter(filter: dict[str, Json], place: str, *, inside: bool) -> Predicate:
    """``inside`` is whether the filter is that of an array's elements."""
    return _all([_clause(key, value, f"{place}.{key}", inside=inside) for key, value in filter.items()])


def _clause(key: str, value: Json, place: str, *, inside: bool) -> Predicate:
    if key in LOGICAL:
        return _logical(key, value, place, inside=inside)
    if key == "$expr":
        if inside:
            raise MappingError(place, "$expr sees the whole document and cannot stand inside $elemMatch")
        expression = compile_expression(value, place)
        return lambda document: truth(expression(document))
    if key.startswith("$"):
        raise MappingError(place, f"operator {key} is not supported here; supported are {', '.join(TOP_LEVEL)}")
    path = split_path(key, place)
    if isinstance(value, dict) and is_operators(value):
        return _joined(_operators(value, place)).at(path)
    return _equality(value, place).at(path)


def _logical(key: str, value: Json, place: str, *, inside: bool) -> Predicate:
    if not isinstance(value, list) or not value:
        raise MappingError(place, f"{key} takes a list of at least one filter")
    members = []
    for index, member in enumerate(value):
        if not isinstance(member, dict):
            raise MappingError(f"{place}.{index}", "a filter is an object")
        members.append(_filter(member, f"{place}.{index}", inside=inside))
    if key == "$and":
        return _all(members)
    return _any(members) if key == "$or" else _not(_any(members))


def _operators(operators: dict[str, Json], place: str) -> list[_Criterion]:
    """The criteria of several operators; each looks for a match of its own, so two may be met by two elements."""
    if "$options" in operators and "$regex" not in operators:
        raise MappingError(f"{place}.$options", "$options stands beside $regex only")
    found = []
    for name, value in operators.items():
        if name == "$regex":
            found.append(_regex(value, operators.get("$options", ""), place))
        elif name != "$options":
            found.append(_operator(name, value, f"{place}.{name}"))
    return found


def _operator(name: str, value: Json, place: str) -> _Criterion:
    build = _BUILDERS.get(name)
    if build is not None:
        return build(value, place)
    if name in ORDERED:
        return _entered(ordered(name, _plain(value, place)))
    raise MappingError(place, f"operator {name} is not supported; supported are {', '.join(FIELD_OPERATORS)}")


def _entered(test: Test) -> _Criterion:
    """Of an array, each element is tested and then the array."""
    return _Criterion(lambda path: matcher(path, test), test)


def _as_a_whole(test: Test) -> _Criterion:
    return _Criterion(lambda path: matcher(path, test, entered=False), test)


def _negated(criterion: _Criterion) -> _Criterion:
    single = criterion.single
    return _Criterion(lambda path: _not(criterion.at(path)), lambda value: not single(value))


def _joined(criteria: Sequence[_Criterion]) -> _Criterion:
    tests = [criterion.single for criterion in criteria]
    return _Criterion(
        lambda path: _all([criterion.at(path) for criterion in criteria]),
        lambda value: all(test(value) for test in tests),
    )


def _plain(value: Json, place: str) -> object:
    """A value that is compared; a regular expression has no place there."""
    found = literal(value, place)
    if isinstance(found, Regex):
        raise MappingError(place, "a regular expression cannot be compared; use $regex")
    return found


def _equality(value: Json, place: str) -> _Criterion:
    """What a field must equal, or match where it is a regular expression."""
    found = literal(value, place)
    return _entered(_matches(found, value, place) if isinstance(found, Regex) else equals(found))


def _eq(value: Json, place: str) -> _Criterion:
    return _entered(equals(_plain(value, place)))


def _ne(value: Json, place: str) -> _Criterion:
    return _negated(_eq(value, place))


def _in(value: Json, place: str) -> _Criterion:
    if not isinstance(value, list):
        raise MappingError(place, f"{place.rpartition('.')[2]} takes a list")
    plain, searches = [], []
    for index, member in enumerate(value):
        found = literal(member, f"{place}.{index}")
        if isinstance(found, Regex):
            searches.append(_matches(found, member, f"{place}.{index}"))
        else:
            plain.append(found)
    test = one_of(plain)
    if not searches:
        return _entered(test)
    return _entered(lambda one: test(one) or any(search(one) for search in searches))


def _nin(value: Json, place: str) -> _Criterion:
    return _negated(_in(value, place))


def _not_operator(value: Json, place: str) -> _Criterion:
    if isinstance(value, dict) and next(iter(value), "") == "$regularExpression":
        return _negated(_equality(value, place))
    if not isinstance(value, dict) or not is_operators(value):
        raise MappingError(place, "$not takes an object of operators, or a regular expression")
    return _negated(_joined(_operators(value, place)))


def _exists(value: Json, place: str) -> _Criterion:
    # Numbers stand for truth in many an old filter.
    if not isinstance(value, bool | int | float):
        raise MappingError(place, "$exists takes true or false")
    there = _entered(lambda found: found is not MISSING)
    return there if value else _negated(there)


def _type(value: Json, place: str) -> _Criterion:
    wanted: set[str] = set()
    for index, one in enumerate(value if isinstance(value, list) else [value]):
        name = _type_name(one, f"{place}.{index}" if isinstance(value, list) else place)
        wanted.update(NUMBER_TYPES if name == "number" else [name])
    if not wanted:
        raise MappingError(place, "$type names no type")
    return _entered(lambda found: bson_type(found) in wanted)


def _type_name(value: Json, place: str) -> str:
    found = literal(value, place)
    if not isinstance(found, str):
        code = _whole(found)
        found = next((name for name, own in TYPE_CODES.items() if own == code), None)
    if found in _READ_AS:
        raise MappingError(place, f"the deprecated type {found} cannot be told: it is read as {_READ_AS[found]}")
    if found != "number" and found not in TYPE_CODES:
        raise MappingError(place, f"this is no BSON type; types are number, {', '.join(_TYPES)}, and their codes")
    return found


def _regex(value: Json, options: Json, place: str) -> _Criterion:
    """``place`` is that of the object which holds the pattern, and options where they are given."""
    if not isinstance(options, str):
        raise MappingError(f"{place}.$options", "$options takes a string of letters")
    found = literal(value, f"{place}.$regex")
    if isinstance(found, Regex):
        if not options:
            return _entered(_matches(found, value, f"{place}.$regex"))
        if _options(value):
            raise MappingError(f"{place}.$options", "the regular expression has options of its own")
        found = str(found.pattern)
    if not isinstance(found, str):
        raise MappingError(f"{place}.$regex", "$regex takes a string or a regular expression")
    _check_options(options, f"{place}.$options")
    return _entered(_search(found, options, f"{place}.$regex"))


def _matches(found: Regex[str], value: Json, place: str) -> Test:
    """What a regular expression matches that stands in a filter as ``value``."""
    options = _options(value)
    _check_options(options, f"{place}.$regularExpression")
    return _search(str(found.pattern), options, f"{place}.$regularExpression")


def _options(value: Json) -> str:
    """The options of a regular expression as they are written; the driver drops those that it does not know."""
    inner = value.get("$regularExpression") if isinstance(value, dict) else None
    options = inner.get("options") if isinstance(inner, dict) else None
    return options if isinstance(options, str) else ""


def _check_options(options: str, place: str) -> None:
    for letter in options:
        if letter not in OPTIONS:
            raise MappingError(place, f"the option {letter!r} is none of {', '.join(OPTIONS)}")


def _search(pattern: str, options: str, place: str) -> Test:
    """Strings in which ``pattern`` is found, and the same regular expression as a value."""
    try:
        search = compile_regex(pattern, options)
    except ValueError as exc:
        raise MappingError(place, str(exc)) from exc
    same = order_key(Regex(pattern, options))

    def test(value: object) -> bool:
        # By exact type: the driver shows JavaScript code as a subclass of str.
        if type(value) is str:
            return search(value) is not None
        return isinstance(value, Regex) and order_key(value) == same

    return test


def _mod(value: Json, place: str) -> _Criterion:
    if not isinstance(value, list) or len(value) != 2:
        raise MappingError(place, "$mod takes a list of divisor and remainder")
    divisor, remainder = (_integer(one, f"{place}.{index}") for index, one in enumerate(value))
    if divisor == 0:
        raise MappingError(f"{place}.0", "the divisor cannot be 0")

    def test(found: object) -> bool:
        number = _truncated(found)
        if number is None:
            return False
        # Unlike Python's, the remainder has the sign of the dividend.
        left = abs(number) % abs(divisor)
        return (left if number >= 0 else -left) == remainder

    return _entered(test)


def _integer(value: Json, place: str) -> int:
    found = _truncated(literal(value, place))
    if found is None:
        raise MappingError(place, "must be a number of 64 bits")
    return found


def _truncated(value: object) -> int | None:
    """A number without its fraction; None for what is no number of 64 bits."""
    if not is_number(value) or order_key(value) == NAN_KEY:
        return None
    exact = value.to_decimal() if isinstance(value, Decimal128) else value
    # Before it is made an integer: a decimal may have 6,000 digits.
    if not -INT64 - 1 < exact < INT64:
        return None
    return math.trunc(exact)


def _whole(value: object) -> int | None:
    """A number that has no fraction; None for all else."""
    found = _truncated(value)
    return found if found is not None and order_key(found) == order_key(value) else None


def _all_operator(value: Json, place: str) -> _Criterion:
    if not isinstance(value, list):
        raise MappingError(place, "$all takes a list")
    nested = any(isinstance(one, dict) and "$elemMatch" in one for one in value)
    build = _all_elem_match if nested else _equality
    # An empty list matches nothing.
    return _joined([build(one, f"{place}.{index}") for index, one in enumerate(value)]) if value else _entered(_nothing)


def _all_elem_match(value: Json, place: str) -> _Criterion:
    if not isinstance(value, dict) or list(value) != ["$elemMatch"]:
        raise MappingError(place, "where one member of $all is an object of $elemMatch, all are, and hold it alone")
    return _elem_match(value["$elemMatch"], f"{place}.$elemMatch")


def _nothing(value: object) -> bool:
    return False


def _elem_match(value: Json, place: str) -> _Criterion:
    if not isinstance(value, dict):
        raise MappingError(place, "$elemMatch takes an object")
    if is_operators(value) and next(iter(value)) not in TOP_LEVEL:
        element = _joined(_operators(value, place)).single
    else:
        element = _inner(_filter(value, place, inside=True))
    steps = PART * _weight(value)[0]

    def test(found: object) -> bool:
        if not isinstance(found, list):
            return False
        charge(steps * len(found))
        return any(map(element, found))

    return _as_a_whole(test)


def _inner(predicate: Predicate) -> Test:
    """A filter of an array's elements: documents, or arrays, whose fields are their indexes."""

    def test(element: object) -> bool:
        if isinstance(element, list):
            return predicate({str(index): one for index, one in enumerate(element)})
        document = as_document(element)
        return document is not None and predicate(document)

    return test


def _size(value: Json, place: str) -> _Criterion:
    wanted = _whole(literal(value, place))
    if wanted is None or wanted < 0:
        raise MappingError(place, "$size takes an integer that is not negative")
    return _as_a_whole(lambda found: isinstance(found, list) and len(found) == wanted)


_BUILDERS: dict[str, Callable[[Json, str], _Criterion]] = {
    "$eq": _eq,
    "$ne": _ne,
    "$in": _in,
    "$nin": _nin,
    "$not": _not_operator,
    "$exists": _exists,
    "$type": _type,
    "$mod": _mod,
    "$all": _all_operator,
    "$elemMatch": _elem_match,
    "$size": _size,
}


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
