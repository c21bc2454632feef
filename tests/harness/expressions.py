"""Aggregation expressions and documents made at random: of the types that the operators want, and at times of others.

An expression is drawn by the kind of value that it shall give; a document has fields for each kind. Expressions hold
BSON values as the driver does; ``as_json`` writes them as a mapping's configuration has them. What the stand-in for
MongoDB cannot do at all is not drawn for it; tests/integration/test_expressions_against_server.py lists that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import CANONICAL_JSON_OPTIONS, dumps
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

STAND_IN = "TEST_MONGODB_URI" not in os.environ
DEPTH = 3
NAN, INFINITY = float("nan"), float("inf")

COUNTS = [0, 1, 2, 3, 5, 1.0, 2.0, Int64(1), Int64(2), Decimal128("1")]
SMALL = [*COUNTS, -1, -2]
NUMBER_LISTS = [[], [1], [3, 1, 2], [1, 1.0, Int64(1)], [0.5, 2, -1.5], [2**31 - 1, 1], [NAN, 1, None], [5, "a", 2]]
STRING_LISTS = [[], ["a"], ["b", "a", "B"], ["é", "a", ""], ["a", "a"], ["x", None, 1]]
OBJECT_LISTS = [[], [{"n": 1, "s": "b"}, {"n": 1, "s": "a"}, {"n": 0}], [{"s": "a"}, {"x": {"n": 2}}, {}], [{"n": 1}]]
KINDS: dict[str, Sequence[object]] = {
    "string": [
        "", "a", "b", "A", "Abc", "abcabc", "é", "Éa", "日本語", "\U0001f600x", " a ", "\t\u00a0b\n", "a,b,,c", "1",
        "42", "-7", "1.5", "1e3", "abc123", "a.b", "ß", "ae\u0301", "0", "true", "65f000000000000000000001", "\u2003",
    ],
    "number": [
        *SMALL, 7, 10, -10, 100, 2**31 - 1, -(2**31), Int64(2**31), Int64(2**53 + 1), Int64(2**63 - 1), Int64(-(2**63)),
        0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.1, 0.2, 3.14159, 1e16, 1.7976931348623157e308, 5e-324, NAN, INFINITY,
        -INFINITY, 2.0**53, Decimal128("0"), Decimal128("-0"), Decimal128("1.50"), Decimal128("-2.5"),
        Decimal128("0.3"), Decimal128("1E+3"), Decimal128("12345678901234567890.123"), Decimal128("NaN"),
        Decimal128("Infinity"), Decimal128("-Infinity"), Decimal128("9007199254740993"),
    ],
    "small": SMALL,
    "count": COUNTS,
    "bool": [True, False],
    "date": [
        datetime(1970, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2023, 12, 31, 12, 30, 15, 1000, tzinfo=UTC), datetime(2024, 12, 30, 1, 2, 3, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), datetime(1921, 3, 4, 5, 6, 7, 8000, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC), datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
        datetime(2010, 1, 3, tzinfo=UTC), datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2021, 1, 1, tzinfo=UTC), datetime(9990, 6, 30, 23, tzinfo=UTC),
        *([] if STAND_IN else [datetime(1582, 10, 10, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]),
        *([] if STAND_IN else [DatetimeMS(253_402_300_800_000), DatetimeMS(-(10**15))]),
    ],
    "object": [
        {}, {"s": "a"}, {"s": "b", "n": 1}, {"n": 1, "s": "b"}, {"n": 2.5, "x": {"n": 3, "s": "é"}}, {"s": None},
        {"x": {}}, {"x": {"n": Decimal128("1.5")}, "n": NAN}, {"a.b": 1, "n": 4},
    ],
    "array": [*NUMBER_LISTS, *STRING_LISTS, *OBJECT_LISTS, [[1, 2], [3]], [[]], [True, False], [0, None]],
    "numbers": NUMBER_LISTS,
    "strings": STRING_LISTS,
    "objects": OBJECT_LISTS,
    "pairs": [
        [], [["a", 1]], [["a", 1], ["b", None], ["a", 2]], [{"k": "a", "v": 1}, {"v": 2, "k": "é"}], [["s", "b"]],
        [{"k": "", "v": []}], [["a"]], [{"k": "a"}], *([] if STAND_IN else [[[1, 2]]]),
    ],
    "objectId": [ObjectId("65f000000000000000000001"), ObjectId("0" * 24), ObjectId("f" * 24)],
    "dateString": [
        "2024-03-01T12:00:00Z", "2024-03-01", "2024-03-01T12:00:00.123Z", "2024-03-01T12:00:00+02:00", "2024-02-30",
        "1969-07-20T20:17:40Z", "2024-03-01T12:00:00.5-0830", "2024-03-01 12:00:00", "2024-13-01", "x",
    ],
    "numberString": ["1", "-7", "+5", "1.5", "1e3", "2147483648", "-0", "abc", "", "1 ", "NaN", "-inf", ".5", "007"],
    "other": [b"", Binary(b"\1", 5), Timestamp(1, 1), Timestamp(1_700_000_000, 5), Regex("a"), Regex("B", "i")],
}  # fmt: skip
ANY: list[object] = [value for values in KINDS.values() for value in values]
# A field for each kind, two of those that operators take two of; then paths into embedded documents.
FIELDS = {
    "string": ("s", "t"), "number": ("n", "m"), "small": ("i",), "count": ("c",), "bool": ("b",), "date": ("d", "e"),
    "object": ("x", "y"), "array": ("l",), "numbers": ("ns",), "strings": ("ss",), "objects": ("xs",), "pairs": ("ps",),
    "objectId": ("o",), "dateString": ("ds",), "numberString": ("fs",), "other": ("z",),
}  # fmt: skip
NESTED = {"string": ("x.s", "y.x.s"), "number": ("x.n", "y.x.n"), "object": ("x.x", "absent")}
UNITS = ["year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond"]
ZONES = [
    "UTC", "GMT", "Europe/Rome", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia", "+05:30",
    "-0800", *([] if STAND_IN else ["-08"]),
]  # fmt: skip
FORMATS = [
    "%Y-%m-%dT%H:%M:%S.%LZ", "%d|%m|%Y", "%H:%M:%S %z", "%j %U %V %G %u %w", "%b %B %Z", "100%% é %Y", "", "%L%%%M",
]  # fmt: skip
PATTERNS = [
    (r"\d+", ""), ("a", ""), ("A", "i"), ("^[a-z]", "i"), ("(a)(b)?", ""), ("[a-cé日]", ""), ("b$", "m"), (".", "s"),
    (". ?", "x"), ("", ""), ("é|(.)", "i"), ("a|b|1", "im"), ("(", ""),
    *([] if STAND_IN else [(r"\w", ""), (r"\s", ""), ("(?<name>a)", "")]),
]  # fmt: skip
TYPES = {"double": 1, "string": 2, "objectId": 7, "bool": 8, "date": 9, "int": 16, "long": 18, "decimal": 19}
_ABSENT, _FRESH = object(), object()


def _fresh(kind: str) -> st.SearchStrategy[object]:
    if kind == "string":
        return st.text("aAbBé日\U0001f600 \t01", max_size=6)
    if kind == "date":
        moments = st.integers(-900_000_000_000, 5_000_000_000_000)
        return moments.map(lambda ms: DatetimeMS(ms).as_datetime().replace(tzinfo=UTC))
    decimals = st.decimals(-(10**20), 10**20, allow_nan=False, allow_infinity=False, places=3)
    longs = st.integers(-(2**63), 2**63 - 1).map(Int64)
    return st.one_of(st.integers(-(2**31), 2**31 - 1), longs, st.floats(), decimals.map(Decimal128))


def _field_values(kind: str) -> st.SearchStrategy[object]:
    """Mostly values of ``kind``; one in ten is missing, null or of any kind."""
    usual = KINDS[kind]
    fresh = [_FRESH] * (len(usual) // 2) if kind in ("string", "date", "number") else []
    # The stand-in finds nothing where a path enters an array.
    strange = [value for value in ANY if not (STAND_IN and kind == "object" and isinstance(value, list))]
    every = len(strange) // max(1, len(usual) // 10)
    return st.sampled_from([*usual, *fresh, *strange[kind == "date" :: every + 1], _ABSENT, None])


_FIELD_VALUES = {name: _field_values(kind) for kind, names in FIELDS.items() for name in names}
_FRESH_VALUES = {name: _fresh(kind) for kind in ("string", "date", "number") for name in FIELDS[kind]}


@st.composite
def examples(draw: Draw, operator: str, count: int, size: int) -> tuple[list[object], list[dict[str, object]]]:
    """``count`` expressions with ``operator`` at their root, and ``size`` documents with the fields that they name."""
    drawn: list[object] = [Maker(draw).operator(operator, DEPTH) for _ in range(count)]
    names = sorted(set(_fields_in(drawn)) & _FIELD_VALUES.keys())
    return drawn, [_document(draw, names) for _ in range(size)]


def _fields_in(expression: object) -> Iterator[str]:
    """The fields of a document that an expression names."""
    if isinstance(expression, str):
        # $getField names its field alone.
        yield expression.removeprefix("$").split(".")[0]
    elif isinstance(expression, list | dict):
        for inner in expression.values() if isinstance(expression, dict) else expression:
            yield from _fields_in(inner)


def _document(draw: Draw, names: Sequence[str]) -> dict[str, object]:
    document = {name: draw(_FIELD_VALUES[name]) for name in names}
    for name, value in document.items():
        if value is _FRESH:
            document[name] = draw(_FRESH_VALUES[name])
    return {name: value for name, value in document.items() if value is not _ABSENT}


class Maker:
    """Draws expressions; ``depth`` is how many levels of operators may stand inside."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._variables: list[tuple[str, str]] = []

    def pick(self, *options: Any) -> Any:
        """One of ``options``."""
        return self._draw(st.sampled_from(options))

    def one_in(self, count: int) -> bool:
        """True once in ``count`` times."""
        return self._draw(st.integers(1, count)) == 1

    def operator(self, name: str, depth: int) -> dict[str, object]:
        """An expression of this very operator."""
        return {name: ARGUMENTS[name](self, depth - 1)}

    def of(self, kind: str, depth: int) -> object:
        """An expression that gives a value of ``kind`` most of the time; at times one of any kind."""
        if kind == "any" or self.one_in(40):
            kind = self.pick(*RESULTS)
        if depth > 0 and self.one_in(4):
            return self.operator(self.pick(*RESULTS[kind]), depth)
        return self.constant(kind) if self.one_in(4) else self.field(kind)

    def field(self, kind: str) -> str:
        """A path to a field, or a variable, that holds a value of ``kind``."""
        variables = [f"$${name}" for name, held in self._variables if held == kind]
        # Nested ones are often missing.
        return self.pick(*variables * 3, *(f"${path}" for path in (*FIELDS[kind] * 3, *NESTED.get(kind, ()))))

    def constant(self, kind: str) -> object:
        """A constant of ``kind``; documents and arrays are expressions too, and stand as they are or in $literal."""
        value = self.pick(*KINDS[kind])
        plain = not isinstance(value, dict | list) or ("a.b" not in value and self.one_in(3))
        return value if plain else {"$literal": value}

    def some(self, kind: str, depth: int, least: int = 1, most: int = 3) -> list[object]:
        """A list of expressions."""
        return [self.of(kind, depth) for _ in range(self.pick(*range(least, most + 1)))]

    def alone(self, kind: str, depth: int) -> object:
        """One argument, with a list about it or without."""
        found = self.of(kind, depth)
        return [found] if isinstance(found, list) or self.one_in(4) else found

    def inside(self, variables: dict[str, str], kind: str, depth: int) -> object:
        """An expression of ``kind`` within which there are ``variables``, given by name and kind."""
        before = self._variables
        self._variables = [*before, *variables.items()]
        try:
            return self.of(kind, depth)
        finally:
            self._variables = before

    def perhaps(self, **members: Callable[[], object]) -> dict[str, object]:
        """Some of ``members``."""
        return {name: make() for name, make in members.items() if self.one_in(2)}


Arguments = Callable[[Maker, int], object]


def _one(*kinds: str) -> Arguments:
    return lambda make, depth: make.alone(make.pick(*kinds), depth)


def _each(*kinds: str, optional: Sequence[str] = ()) -> Arguments:
    """Positional arguments, of which some at the end may be left out."""

    def arguments(make: Maker, depth: int) -> object:
        given = [*kinds, *optional[: make.pick(*range(len(optional) + 1))]]
        return [make.of(kind, depth) for kind in given]

    return arguments


def _some(kind: str, least: int = 1, most: int = 3) -> Arguments:
    return lambda make, depth: make.some(kind, depth, least, most)


def _total(make: Maker, depth: int) -> object:
    return make.some("number", depth) if make.one_in(2) else make.alone("numbers", depth)


def _add(make: Maker, depth: int) -> object:
    if make.one_in(4):
        return [*make.some("small", depth, 0, 1), make.of("date", depth), *make.some("small", depth)]
    return make.some("number", depth)


def _subtract(make: Maker, depth: int) -> object:
    if make.one_in(4):
        return [make.of("date", depth), make.of(make.pick("date", "small"), depth)]
    return make.some("number", depth, 2, 2)


def _compared(make: Maker, depth: int) -> object:
    kind = make.pick("number", "string", "date", "any", "array", "object", "bool", "objectId")
    return [make.of(kind, depth), make.of(kind, depth)]


def _part(make: Maker, depth: int) -> object:
    date = make.of("date", depth)
    return {"date": date, "timezone": make.pick(*ZONES)} if make.one_in(2) else date


def _cond(make: Maker, depth: int) -> object:
    condition, then, otherwise = make.of("bool", depth), make.of("any", depth), make.of("any", depth)
    return [condition, then, otherwise] if make.one_in(2) else {"if": condition, "then": then, "else": otherwise}


def _switch(make: Maker, depth: int) -> object:
    branches = [{"case": make.of("bool", depth), "then": make.of("any", depth)} for _ in range(make.pick(1, 2))]
    return {"branches": branches, **({} if make.one_in(6) else {"default": make.of("any", depth)})}


def _let(make: Maker, depth: int) -> object:
    kinds = {"v": make.pick("string", "number"), make.pick("w", "été"): make.pick("number", "date")}
    inner = make.inside(kinds, make.pick(*kinds.values()), depth)
    return {"vars": {name: make.of(kind, depth) for name, kind in kinds.items()}, "in": inner}


def _named(make: Maker) -> tuple[str, dict[str, object]]:
    """A variable's name, and the argument that gives it."""
    return ("this", {}) if make.one_in(2) else ("item", {"as": "item"})


def _filter(make: Maker, depth: int) -> object:
    kind, (name, given) = make.pick("number", "string"), _named(make)
    compared = {make.pick("$gt", "$lt", "$ne"): [f"$${name}", make.of(kind, depth)]}
    condition = compared if make.one_in(2) else make.inside({name: kind}, "bool", depth)
    limit = make.pick(1, 2, Int64(2)) if STAND_IN else make.of("small", depth)
    limited = {"limit": limit} if make.one_in(3) else {}
    return {"input": make.of(f"{kind}s", depth), "cond": condition, **given, **limited}


def _map(make: Maker, depth: int) -> object:
    kind, (name, given) = make.pick("number", "string"), _named(make)
    return {"input": make.of(f"{kind}s", depth), "in": make.inside({name: kind}, kind, depth), **given}


def _reduce(make: Maker, depth: int) -> object:
    kind = make.pick("number", "string")
    step = {"$add": ["$$value", "$$this"]} if kind == "number" else {"$concat": ["$$this", "$$value"]}
    inner = step if make.one_in(2) else make.inside({"this": kind, "value": kind}, kind, depth)
    return {"input": make.of(f"{kind}s", depth), "initialValue": make.of(kind, depth), "in": inner}


def _slice(make: Maker, depth: int) -> object:
    position, count = (make.pick(*SMALL) if STAND_IN else make.of("small", depth) for _ in range(2))
    return [make.of("array", depth), position, *([count] if make.one_in(2) else [])]


def _sort_array(make: Maker, depth: int) -> object:
    if make.one_in(2):
        return {"input": make.of(make.pick("array", "numbers", "strings"), depth), "sortBy": make.pick(1, -1)}
    names = make.pick(("n",), ("s",), ("n", "s"), ("x.n", "s"))
    return {"input": make.of("objects", depth), "sortBy": {name: make.pick(1, -1) for name in names}}


def _trim(make: Maker, depth: int) -> object:
    characters = make.pick("a ", "é", "bA", "", make.of("string", depth))
    return {"input": make.of("string", depth), **make.perhaps(chars=lambda: characters)}


def _replace(make: Maker, depth: int) -> object:
    find = make.of("string", depth) if make.one_in(3) else make.pick("a", "b", "é", "bc", " ")
    return {"input": make.of("string", depth), "find": find, "replacement": make.of("string", depth)}


def _regex(make: Maker, depth: int) -> object:
    as_value = make.one_in(3)
    pattern, options = make.pick(*PATTERNS)
    regex = {"regex": Regex(pattern, options)} if as_value else {"regex": pattern}
    separate = {"options": options} if not as_value and (options or make.one_in(4)) else {}
    return {"input": make.of("string", depth), **regex, **separate}


def _get_field(make: Maker, depth: int) -> object:
    name = make.pick("s", "n", "x", "a.b", {"$literal": "s"})
    return name if make.one_in(6) else {"field": name, "input": make.of("object", depth)}


def _date_to_string(make: Maker, depth: int) -> object:
    given = make.perhaps(format=lambda: make.pick(*FORMATS), timezone=lambda: make.pick(*ZONES))
    if STAND_IN and "timezone" in given:
        given["format"] = make.pick(*FORMATS)
    instead = {} if STAND_IN else make.perhaps(onNull=lambda: make.of("string", depth))
    return {"date": make.of("date", depth), **given, **instead}


def _date_trunc(make: Maker, depth: int) -> object:
    given = make.perhaps(
        binSize=lambda: make.pick(1, 2, 7, 15, Int64(3)),
        timezone=lambda: make.pick(*ZONES),
        startOfWeek=lambda: make.pick("monday", "Sunday", "tue", "SAT"),
    )
    return {"date": make.of("date", depth), "unit": make.pick(*UNITS), **given}


def _convert(make: Maker, depth: int) -> object:
    to = make.pick(*TYPES)
    target = make.pick(to, to, TYPES[to], *([] if STAND_IN else [{"type": to}]))
    kind = {"int": "small", "bool": "any", "date": "dateString", "objectId": "objectId"}.get(to, "number")
    given = make.perhaps(onError=lambda: make.of("any", depth), onNull=lambda: make.of("string", depth))
    return {"input": make.of(kind, depth), "to": target, **given}


_PARTS = (
    "$year", "$month", "$dayOfMonth", "$dayOfYear", "$dayOfWeek", "$week", "$isoWeek", "$isoDayOfWeek", "$isoWeekYear",
    "$hour", "$minute", "$second", "$millisecond",
)  # fmt: skip
_COMPARISONS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp")
ARGUMENTS: dict[str, Arguments] = {
    **dict.fromkeys(_PARTS, _part),
    **dict.fromkeys(_COMPARISONS, _compared),
    **dict.fromkeys(("$abs", "$ceil", "$floor"), _one("number")),
    **dict.fromkeys(("$allElementsTrue", "$anyElementTrue"), _each("array")),
    **dict.fromkeys(("$first", "$last", "$reverseArray", "$size"), _one("array")),
    **dict.fromkeys(("$sum", "$avg", "$min", "$max"), _total),
    **dict.fromkeys(("$divide", "$mod"), _each("number", "number")),
    **dict.fromkeys(("$round", "$trunc"), _each("number", optional=("small",))),
    **dict.fromkeys(("$and", "$or"), _some("bool")),
    **dict.fromkeys(("$trim", "$ltrim", "$rtrim"), _trim),
    **dict.fromkeys(("$replaceOne", "$replaceAll"), _replace),
    **dict.fromkeys(("$regexMatch", "$regexFind"), _regex),
    **dict.fromkeys(("$toLower", "$toUpper"), _one("string", "number", "date")),
    "$add": _add, "$subtract": _subtract, "$multiply": _some("number"), "$not": _each("bool"), "$cond": _cond,
    "$switch": _switch, "$let": _let, "$ifNull": _some("any", 2, 3), "$literal": lambda make, depth: make.pick(*ANY),
    "$concat": _some("string"), "$substrCP": _each("string", "count", "count"), "$strLenCP": _one("string"),
    "$split": lambda make, depth: [make.of("string", depth), make.pick("a", ",", "b", "é", make.of("string", depth))],
    "$indexOfCP": _each("string", "string", optional=("count", "count")), "$strcasecmp": _each("string", "string"),
    "$arrayElemAt": lambda make, depth: [make.of("array", depth), make.pick(0, -1, 1.0, make.of("small", depth))],
    "$in": _each("number", "numbers"), "$isArray": _each("any"),
    "$concatArrays": _some("array"), "$slice": _slice, "$filter": _filter, "$map": _map, "$reduce": _reduce,
    "$indexOfArray": _each("numbers", "small", optional=("count", "count")), "$sortArray": _sort_array,
    "$mergeObjects": _some("object"), "$objectToArray": _one("object"), "$arrayToObject": _one("pairs"),
    "$getField": _get_field, "$dateToString": _date_to_string, "$dateTrunc": _date_trunc, "$convert": _convert,
    "$toInt": _one("small", "numberString", "number", "bool"), "$toBool": _one("any", "number"),
    "$toLong": _one("small", "numberString", "number", "date"), "$toObjectId": _one("objectId"),
    "$toDouble": _one("number", "numberString", "date", "bool"), "$toDecimal": _one("number", "numberString", "bool"),
    "$toDate": _one("dateString", "date", "objectId"), "$type": _one("any"), "$isNumber": _one("any"),
    "$toString": _one("number", "date", "string", "objectId", "bool"),
}  # fmt: skip
"""What makes the arguments of each operator, from a maker and the depth that is left."""
RESULTS: dict[str, tuple[str, ...]] = {
    "string": (
        "$concat", "$toLower", "$toUpper", "$substrCP", "$trim", "$ltrim", "$rtrim", "$replaceOne", "$replaceAll",
        "$dateToString", "$toString", "$type", "$cond", "$ifNull",
    ),
    "number": (
        "$add", "$subtract", "$multiply", "$divide", "$mod", "$abs", "$ceil", "$floor", "$round", "$trunc", "$sum",
        "$avg", "$min", "$max", "$toInt", "$toLong", "$toDouble", "$toDecimal", "$strLenCP", "$indexOfCP", "$size",
        "$year", "$dayOfYear", "$isoWeek", "$hour", "$let", "$convert", "$cmp",
    ),
    "small": ("$strLenCP", "$cmp", "$indexOfCP"), "count": ("$size", "$strLenCP", "$isoDayOfWeek"),
    "bool": (*_COMPARISONS[:-1], "$and", "$or", "$not", "$in", "$isArray", "$isNumber", "$regexMatch", "$toBool"),
    "date": ("$dateTrunc", "$toDate", "$add", "$subtract", "$max"),
    "object": ("$mergeObjects", "$arrayToObject", "$regexFind", "$switch"),
    "array": ("$concatArrays", "$slice", "$reverseArray", "$filter", "$objectToArray", "$sortArray", "$split"),
    "numbers": ("$map", "$filter", "$slice", "$sortArray"), "strings": ("$split", "$map", "$sortArray"),
    "objects": ("$sortArray", "$objectToArray"), "pairs": ("$objectToArray",), "objectId": ("$toObjectId",),
    "dateString": ("$dateToString",), "numberString": ("$toString",), "other": ("$literal",),
}  # fmt: skip
"""The operators that give each kind of value."""


def as_json(expression: object) -> Any:
    """An expression as a configuration has it: plain where JSON has the type, else in extended JSON."""
    if isinstance(expression, dict):
        return {name: as_json(inner) for name, inner in expression.items()}
    if isinstance(expression, list):
        return [as_json(inner) for inner in expression]
    if expression is None or type(expression) in (bool, str, int):
        return expression
    if type(expression) is float and abs(expression) < INFINITY:
        return expression
    return json.loads(dumps(expression, json_options=CANONICAL_JSON_OPTIONS))
