"""Our expressions against the server's own `aggregate`, operator by operator, on what is made at random."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import bson
import pytest
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import CANONICAL_JSON_OPTIONS, dumps
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import OperationFailure

from changesource.exceptions import MappingError
from changesource.mapping.expressions import compile_expression, operators
from changesource.mapping.paths import MISSING
from tests.harness.expressions import ARGUMENTS, STAND_IN, as_json, examples

OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    unicode_decode_error_handler="replace",
)
# The one that MongoDB does not know is ours: tests/unit/test_expressions.py holds it against Python.
COMPARED = [name for name in operators() if name != "$hexToBase64Url"]
LEAST = 50
EXPRESSIONS, DOCUMENTS = 2, 26
# No shrinking: the message names the one expression and document.
EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
)
UNKNOWN = object()


@dataclass(frozen=True)
class Case:
    """An expression and a document, and what we and the server make of them: a value, ``MISSING`` or an exception."""

    expression: object
    document: dict[str, object]
    ours: object
    theirs: object

    def __str__(self) -> str:
        return f"{self.expression} on {self.document}: ours {self.ours!r}, the server's {self.theirs!s}"

    @property
    def agrees(self) -> bool:
        """Whether both fail, or both give the same value of the same type."""
        if isinstance(self.ours, Exception) or isinstance(self.theirs, Exception):
            return isinstance(self.ours, Exception) and isinstance(self.theirs, Exception)
        return encoded(self.ours) == encoded(self.theirs)

    @property
    def one_fails(self) -> bool:
        """Whether one of both fails and the other does not."""
        return isinstance(self.ours, Exception) != isinstance(self.theirs, Exception)

    def arguments(self, *names: str) -> Iterator[list[object]]:
        """What the arguments are of each of the operators in the expression that are called by ``names``."""
        for name, inner in operators_in(self.expression):
            if name in names:
                yield [self._value(argument) for argument in arguments_of(name, inner)]

    def _value(self, argument: object) -> object:
        try:
            return compile_expression(as_json(argument), "argument")(self.document)
        except MappingError:
            return UNKNOWN  # there are variables in it
        except ValueError as exc:
            return exc


def arguments_of(name: str, written: Any) -> list[object]:
    """The arguments of an operator as a list; of $let its variables."""
    if isinstance(written, list):
        return written
    if isinstance(written, dict) and not next(iter(written), "$").startswith("$"):
        return list((written["vars"] if name == "$let" else written).values())
    return [written]


def operators_in(expression: object) -> Iterator[tuple[str, Any]]:
    """The operators in an expression with their arguments, from the outside in."""
    if isinstance(expression, dict):
        for name, inner in expression.items():
            if name.startswith("$"):
                yield name, inner
            if name != "$literal":
                yield from operators_in(inner)
    elif isinstance(expression, list):
        for inner in expression:
            yield from operators_in(inner)


def encoded(value: object) -> bytes:
    """A value as BSON, where a NaN is equal to itself and 1 is not 1.0; a missing one is unlike null."""
    return bson.encode({} if value is MISSING else {"v": with_one_nan(value)}, codec_options=OPTIONS)


def with_one_nan(value: object) -> object:
    """``value``, each NaN in it without the sign and payload that it may have."""
    if isinstance(value, dict):
        return {name: with_one_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_one_nan(inner) for inner in value]
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - only NaN differs from itself
        return float("nan")
    return Decimal128("NaN") if isinstance(value, Decimal128) and value.to_decimal().is_nan() else value


# Where the stand-in errs; tests/unit/test_expressions.py holds what is right, and a MongoDB is asked all. MongoDB's
# source is named by its files below src/mongo, most of them in db/exec/expression.
# 1. It holds no dates beyond the years 1 to 9999, and writes the year 1 as "1". None are made.
# 2. It confuses what is missing with null: $first and $last of an empty array, $getField of what is no document,
#    $reduce, $convert and $switch give null, not nothing; $in and $indexOfArray find it where null is; a variable of
#    $let is a document then. (Manual: "$first (array)"; evaluate_array.cpp, evaluate_bson.cpp, evaluate_convert.cpp)
# 3. It looks for null, or for a misfit, among all arguments, where MongoDB takes them in turn ($add, $multiply,
#    $concat, $concatArrays), or misfits first ($replaceOne, $replaceAll, $substrCP), or null ($arrayElemAt). What is
#    constant and fails does so only where it is reached. (evaluate_math.cpp, evaluate_string.cpp, evaluate_array.cpp)
# 4. It adds doubles without compensation in $sum and $avg; makes decimals of more than 15 digits of a double, and
#    subtracts them with 28 digits; moves dates by fractions that it cuts; makes numbers of dates that are a millisecond
#    off; divides and truncates by other means than doubles; adds and multiplies integers exactly that overflow midway,
#    and has no zero below zero then. (util/summation.h, platform/decimal128.cpp, evaluate_math.cpp)
# 5. In $convert it writes doubles with 6 digits and dates without milliseconds, unlike in $toString, which is the same
#    by the manual ("$toString"). In $dateToString it ignores onNull, and ends dates in other time zones with Z where
#    there is no format (evaluate_date.cpp): neither is drawn. Its $dateTrunc takes no ObjectIds (manual: "$dateTrunc"),
#    and of a midnight that comes twice the earlier (third_party/timelib/dist/tm2unixtime.c).
# 6. Its $isoWeekYear gives an int, MongoDB's a long (db/query/datetime/date_time_support.h). It is converted.
# 7. It fails with an internal error: in $sortArray where types are mixed, in arithmetic with infinities, in $convert
#    with `to: {type: ...}` (manual: "$convert"), which is not drawn. It sorts NaN wrongly, and by fields of documents
#    what is none by its value.
# 8. Arrays: $mergeObjects goes into them among several arguments, MongoDB into an only one (db/pipeline/accumulator.h);
#    $indexOfArray finds no decimals among other numbers, but 1 for true; parts of dates take an array of one; a path
#    finds nothing in them, as in filters: none is drawn. Documents are equal whose fields are in another order, arrays
#    with NaN are not (manual: "Comparison/Sort Order").
# 9. Strings: $indexOfCP finds what ends before the end that is given, MongoDB what begins before it
#    (evaluate_string.cpp); no characters to trim are whitespace; $toDouble takes what is too near to zero
#    (base/parse_number.cpp); \w and \s are those of Unicode, which are not drawn.
# 10. It takes wrong arguments: the least long for $abs (manual: "$abs"), and, none of which is drawn, strings as the
#    count of $slice, any limit of $filter, numbers as names in $arrayToObject, doubles beyond 2^31 - 1 in $toInt; but
#    no UTC offset of hours alone, such as "-08" (manual: "$dateTrunc").
LAZY = ("$cond", "$switch", "$ifNull", "$and", "$or", "$let", "$filter", "$map", "$reduce", "$convert")
REGEXES = ("$regexMatch", "$regexFind")
TRIMS = ("$trim", "$ltrim", "$rtrim")
IN_TURN = (
    "$add", "$multiply", "$concat", "$concatArrays", "$arrayElemAt", "$indexOfCP", "$indexOfArray", "$round", "$trunc",
    "$replaceOne", "$replaceAll", "$substrCP",
)  # fmt: skip
COMPARISONS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp", "$in", "$indexOfArray")
ARITHMETIC = ("$add", "$subtract", "$multiply", "$divide", "$mod")
TOTALS = ("$sum", "$avg")
PARTS = (
    "$year", "$month", "$dayOfMonth", "$dayOfYear", "$dayOfWeek", "$week", "$isoWeek", "$isoDayOfWeek", "$isoWeekYear",
    "$hour", "$minute", "$second", "$millisecond", "$dateToString",
)  # fmt: skip
Rule = tuple[Sequence[str], Callable[[Case, list[Any]], bool]]
RULES: list[Rule] = [
    (("$first", "$last", "$getField", "$reduce", "$convert"), lambda case, _: case.ours is MISSING and not case.theirs),
    (("$in",), lambda _, values: absent(values[0])),
    (
        ("$let", "$convert", "$switch", "$cond", "$ifNull"),
        lambda _, values: any(map(absent, values)) or lacks_then(values[0]),
    ),
    (("$indexOfArray",), lambda _, values: absent(values[1]) or re.search("Decimal|True|False", repr(values))),
    (IN_TURN, lambda case, values: case.one_fails and any(map(null, values))),
    (LAZY, lambda case, _: fails_early(case)),
    ((*REGEXES, *TRIMS), lambda case, values: fails_early(case) and null(values[0])),
    ((*ARITHMETIC, *TOTALS), lambda case, values: of_types(values, float, Decimal128) and near(case)),
    (("$mod",), lambda _, values: of_types(values, Decimal128)),
    (TOTALS, lambda case, values: of_types(values, float) and near(case)),
    (("$subtract",), lambda case, values: of_types(values, Decimal128) and near(case)),
    (("$divide", "$trunc"), lambda case, values: beyond(values, 2**53) and near(case)),
    (("$trunc",), lambda _, values: len(values) > 1 and of_types(values, float)),
    (("$add",), lambda case, values: beyond(values, 2**61) and near(case)),
    (("$multiply",), lambda case, values: beyond(values, 2**20) and near(case)),
    (("$multiply",), lambda case, _: str(case.ours).strip("-") == str(case.theirs).strip("-")),
    (("$add", "$subtract"), lambda case, values: of_types(values, datetime, Decimal128) and near(case)),
    (("$add", "$subtract"), lambda case, values: of_types(values, datetime, float) and near(case)),
    (("$toDouble", "$toLong"), lambda _, values: of_types(values, datetime)),
    (("$toDouble",), lambda case, values: isinstance(values[0], str) and "beyond the range" in str(case.ours)),
    (("$convert",), lambda _, values: type(values[0]) in (float, datetime, object) and values[1] in ("string", 2)),
    (("$sortArray",), lambda _, values: unsorted(*values)),
    (("$mergeObjects",), lambda _, values: len(values) > 1 and of_types(values, list)),
    (COMPARISONS, lambda _, values: any(map(unlike_itself, values))),
    (PARTS, lambda _, values: isinstance(values[0], list)),
    (("$dateTrunc",), lambda _, values: isinstance(values[0], ObjectId | Timestamp | DatetimeMS)),
    (("$dateTrunc",), lambda case, _: an_hour_apart(case)),
    (("$indexOfCP",), lambda _, values: len(values) > 2 or values[1] == ""),
    (TRIMS, lambda _, values: "" in values[1:]),
    (("$abs",), lambda _, values: values == [-(2**63)]),
]
ACCIDENTS = ("internal server error", "DatetimeMS")
# What we refuse and MongoDB does not: timestamps as text, in the server's own time zone; dates written otherwise; and
# binary data as numbers, which only its latest versions convert. Nor do we put a replacement for nothing between the
# bytes of a character.
REFUSED = ("takes no value of type timestamp", "the string is no date of ISO 8601", "binData cannot be converted")


def is_known(case: Case) -> bool:
    """Whether a disagreement comes of what we refuse, or of one of the stand-in's errors that are listed."""
    if any(words in str(case.ours) for words in REFUSED) or any(
        "" in values for values in case.arguments("$replaceAll")
    ):
        return True
    if not STAND_IN:
        return False
    if any(words in str(case.theirs) for words in ACCIDENTS):
        return True
    return any(rule(case, values) for names, rule in RULES for values in case.arguments(*names))


def null(value: object) -> bool:
    """Whether a value is null, missing, or not known."""
    return value is None or absent(value)


def absent(value: object) -> bool:
    """Whether a value is missing, or not known."""
    return value is MISSING or value is UNKNOWN


def fails_early(case: Case) -> bool:
    """Whether we fail as we compile because a constant part fails, and the server does not."""
    return isinstance(case.ours, MappingError) and case.one_fails and "supported" not in case.ours.problem


def near(case: Case) -> bool:
    """Whether both sides agree but for the last digits of a number, or a millisecond, or give neither."""
    if isinstance(case.ours, datetime) and isinstance(case.theirs, datetime):
        return abs(case.ours - case.theirs) <= timedelta(milliseconds=1)
    numbers = [
        float(value.to_decimal()) if isinstance(value, Decimal128) else value for value in (case.ours, case.theirs)
    ]
    if all(type(value) in (int, Int64, float) for value in numbers):
        return math.isclose(*numbers, rel_tol=1e-9) or not all(map(math.isfinite, numbers))
    return True


def lacks_then(branches: object) -> bool:
    """Whether the value of any branch is missing."""
    return isinstance(branches, list) and any(isinstance(one, dict) and "then" not in one for one in branches)


def of_types(values: list[object], *types: type) -> bool:
    """Whether there are values of all these types, or not known, among several values or in an only array."""
    members = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    return any(value is UNKNOWN for value in members) or {type(value) for value in members} >= set(types)


def an_hour_apart(case: Case) -> bool:
    """Whether both sides give dates an hour apart."""
    if isinstance(case.ours, datetime) and isinstance(case.theirs, datetime):
        return abs(case.ours - case.theirs) == timedelta(hours=1)
    return False


def beyond(values: list[object], bound: int) -> bool:
    """Whether a value is a number beyond ``bound``, or not known."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return any(value is UNKNOWN for value in values) or any(abs(value) > bound for value in numbers)


def unlike_itself(value: object) -> bool:
    """Whether the stand-in compares a value wrongly: with documents in it, or an array with NaN; or it is not known."""
    text = str(value)
    return value is UNKNOWN or "{" in text or (isinstance(value, list) and "nan" in text.lower())


def unsorted(elements: object, by: object) -> bool:
    """Whether the stand-in sorts an array wrongly: numbers with NaN, and by fields what is no document."""
    array = elements if isinstance(elements, list) else []
    if by is UNKNOWN or isinstance(by, dict):  # dotted paths are no expression
        return elements is UNKNOWN or not all(isinstance(element, dict) for element in array)
    return elements is UNKNOWN or any(encoded(element) == encoded(float("nan")) for element in array)


def outcomes(database: Database, expression: object, found: list[dict[str, object]]) -> list[object]:
    """What the server gives for each document: a value, ``MISSING``, or an exception."""
    if not found:
        return []
    if STAND_IN and "$isoWeekYear" in (expression if isinstance(expression, dict) else ()):
        expression = {"$toLong": expression}
    pipeline = [{"$documents": found}, {"$project": {"result": expression}}]
    try:
        return [document.get("result", MISSING) for document in database.aggregate(pipeline)]
    except OperationFailure as exc:
        if len(found) == 1:
            return [exc]
    return [outcomes(database, expression, [document])[0] for document in found]


def cases(database: Database, expression: object, found: list[dict[str, object]], canonical: bool) -> list[Case]:
    """What both make of each document; a constant part that fails fails for all of them, with us as it is compiled."""
    as_given = json.loads(dumps(expression, json_options=CANONICAL_JSON_OPTIONS)) if canonical else as_json(expression)
    try:
        compiled = compile_expression(as_given, "expression")
    except MappingError as exc:
        return [Case(expression, found[0], exc, outcomes(database, expression, found[:1])[0])]
    ours: list[object] = []
    for document in found:
        try:
            ours.append(compiled(document))
        except ValueError as exc:
            ours.append(exc)
    # Those with a value are asked for at once, the others one by one, since any failure fails the whole.
    theirs = dict.fromkeys(range(len(found)))
    fine = [index for index, value in enumerate(ours) if not isinstance(value, Exception)]
    theirs |= zip(fine, outcomes(database, expression, [found[index] for index in fine]), strict=True)
    for index in theirs.keys() - set(fine):
        theirs[index] = outcomes(database, expression, [found[index]])[0]
    return [Case(expression, document, ours[index], theirs[index]) for index, document in enumerate(found)]


def compare(mongo: Database, operator: str, count: int) -> None:
    """Compare as many examples, of which enough must give a value that is not null by both."""
    database = mongo.client.get_database(mongo.name, codec_options=OPTIONS)
    values = 0

    @settings(EXAMPLES, max_examples=count)
    @given(examples(operator, EXPRESSIONS, DOCUMENTS), st.booleans())
    def agree(example, canonical):
        nonlocal values
        # Documents as the driver would give them.
        made = [bson.decode(bson.encode({"_id": i, **one}), codec_options=OPTIONS) for i, one in enumerate(example[1])]
        for case in (case for expression in example[0] for case in cases(database, expression, made, canonical)):
            assert case.agrees or is_known(case), str(case)
            values += case.agrees and case.ours not in (None, MISSING) and not isinstance(case.ours, Exception)

    agree()
    assert values >= LEAST


def test_every_operator_is_compared():
    assert sorted(ARGUMENTS) == COMPARED


@pytest.mark.parametrize("operator", COMPARED)
def test_operator_gives_what_the_server_gives(mongo, operator):
    compare(mongo, operator, 4)


@pytest.mark.slow
@pytest.mark.parametrize("operator", COMPARED)
def test_operator_gives_what_the_server_gives_at_length(mongo, operator):
    # 10,000 examples in all.
    compare(mongo, operator, 112)
