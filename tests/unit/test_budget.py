"""Mappings that would take for ever, or all memory, for one document: each is stopped, by its count of steps.

No clock is asked: what is not stopped here would not end within the time that a test run has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pcre2
import pytest
from bson.binary import Binary
from bson.code import Code
from bson.decimal128 import Decimal128
from bson.objectid import ObjectId
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from changesource.exceptions import MappingError
from changesource.mapping import blocks, budget, regexes
from changesource.mapping.blocks import NOTHING, Blocks
from changesource.mapping.budget import ALL_STEPS, STEPS, Allowance, BudgetSpent, bounded, charge
from changesource.mapping.compiled import CompiledMapping, MappedTable, RowFault, ignore_fault
from changesource.mapping.expressions import compile_expression
from changesource.mapping.filters import MAX_CLAUSES, compile_filter
from changesource.mapping.formats import read_specification
from changesource.mapping.pipelines import MAX_STAGES, compile_pipeline
from changesource.mapping.regexes import MAX_PATTERN, RegexFailed, compile_regex
from changesource.services import pausing
from changesource.services.replay import batches
from changesource.sources.scripted import ScriptedSource, Write
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from tests.unit.test_initial_sync import Snapshot

NUMBERS = list(range(100_000))
DEEP: Any = 1
for _ in range(60):
    DEEP = [{"0": DEEP}]


def matching(pattern: str, text: object = "$a", name: str = "$regexMatch") -> dict[str, Any]:
    return {name: {"input": text, "regex": pattern}}


def each(expression: Any, source: str = "$l") -> dict[str, Any]:
    return {"$map": {"input": source, "in": expression}}


def reduced(initial: Any, expression: Any) -> dict[str, Any]:
    return {"$reduce": {"input": "$l", "initialValue": initial, "in": expression}}


TEXT, SAME = "1" * 8_000_000, "1" * 7_999_999 + "1"
BYTES = Binary(b"x" * 8_000_000, 0)


def converted(source: str, to: str) -> dict[str, Any]:
    return {"$convert": {"input": source, "to": to, "onError": 0}}


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        (converted("$a", "int"), {"a": TEXT}),
        (converted("$a", "int"), {"a": "1" * 10_000}),
        (converted("$a", "double"), {"a": "1" * 10_000}),
        (converted("$a", "objectId"), {"a": TEXT}),
        (converted("$a", "date"), {"a": " " * 8_000_000}),
        ({"$eq": ["$a", "$b"]}, {"a": TEXT, "b": SAME}),
        ({"$eq": ["$a", "$b"]}, {"a": BYTES, "b": Binary(bytes(BYTES), 0)}),
        ({"$eq": ["$a", "$a"]}, {"a": Code("x" * 8_000_000)}),
        ({"$hour": {"date": {"$toDate": "$_id"}, "timezone": "$a"}}, {"a": "A/" * 4_000_000}),
        ({"$ifNull": [{"$regexMatch": {"input": "$a", "regex": "^x"}}, 0]}, {"a": TEXT}),
    ],
)
def test_what_a_long_text_costs_is_counted_for_each_element(expression: Any, values: dict[str, Any]) -> None:
    """Each of these took minutes for 50,000 elements, had it only been counted as one part."""
    found = compile_expression(each(expression), "e")
    began = time.process_time()
    with suppress(ValueError):
        found({"_id": ObjectId(), "l": [0] * 50_000, **values})
    assert time.process_time() - began < 2


def test_no_default_is_taken_where_a_conversion_takes_too_many_steps() -> None:
    """The row would have a wrong value, and not an error."""
    found = compile_expression(converted("$a", "decimal"), "e")
    with pytest.raises(BudgetSpent):
        Allowance(10_000).spend(found, {"a": "1" * 9000})


# Regular expressions, each with a text on which it does not come to an end.
PATTERNS = [
    ("(a+)+$", "a" * 40 + "!"),
    ("(a+)+$", "a" * 1_000_000 + "!"),
    ("(a|aa)+$", "a" * 5000 + "!"),
    ("(a*)*b?$", "a" * 5000 + "!"),
    ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 40),
    (r"(?:\p{L}+)+\d", "é" * 5000 + "!"),
    ("a*[ab]*[abc]*$", "a" * 20_000 + "!"),
    ("(x+x+)+y?$", "x" * 5000 + "!"),
    # Quadratic, which is enough where a text is long; and what PCRE2 does in one step, so that it does not count it.
    (r"\d+x?$", "1" * 100_000 + "!"),
    (".*.*=.*;", "=" * 200_000),
    ("a*+b?c|a*+d$", "a" * 100_000 + "!"),
    ("(?>a*)b?c|a$", "a" * 100_000 + "!"),
    ("^(?:(?=a*)a)*b?$", "a" * 100_000 + "!"),
    (r"^(a*)(?:\1b|\1c)*\1*$", "a" * 50_000 + "!"),
    (r"(a*)*\1$", "a" * 5000 + "!"),
    (r"\X+!$", "a" + "\u0301" * 50_000),
    ("a{60000}b?$", "a" * 200_000 + "!"),
    ("^(a(?1)?b?)+$", "a" * 5000 + "!"),
    ("(*PRUNE)(a+)+$", "a" * 5000 + "!"),
    ("(?(?=a*b)x|a)*$", "a" * 50_000 + "!"),
    ("(?x)(?:a* +)b?c|a*#words\n +d$", "a" * 60_000 + "!"),
    # Each step copies all groups.
    ("(a+)+" + "(b)?" * 5000 + "$", "a" * 2000 + "!"),
    ("(?:(?:(?:(?:a{0,9}){0,9}){0,9}){0,9})$", "a" * 3000 + "!"),
    # A pattern may lower its limit, and cannot raise it.
    ("(*LIMIT_MATCH=4000000000)(a+)+$", "a" * 5000 + "!"),
    ("(*NO_START_OPT)(a+)+b", "a" * 5000),
]


@pytest.mark.parametrize(("pattern", "text"), PATTERNS, ids=[pattern[:50] for pattern, _ in PATTERNS])
def test_a_regular_expression_is_stopped(pattern: str, text: str) -> None:
    for found in (
        compile_expression(matching(pattern), "e"),
        compile_filter({"a": {"$regex": pattern}}, "f"),
        compile_filter({"$or": [{"a": {"$in": [{"$regularExpression": {"pattern": pattern, "options": ""}}]}}]}, "f"),
        compile_filter({"l": {"$elemMatch": {"$not": {"$regex": pattern}}}}, "f"),
    ):
        with pytest.raises((RegexFailed, BudgetSpent)):
            found({"a": text, "l": [text]})


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^[\w.+-]+@[\w-]+\.[\w.]+$", "somebody.else@mail.example.com"),
        (r"\bhttps?://[^\s/]+/\S*", "see " * 20_000 + "https://example.com/a?b=c"),
        ("(?:a|b)*c", "ab" * 20_000 + "c"),
        ("^(?=.*[A-Z])(?=.*[0-9]).{8,}$", "pAssword1" * 20),
        (r"(?<!\w)needle(?!\w)", "hay " * 2000 + "needle"),
        (r"(['\"]).*?\1", "words " * 100 + "'quoted'"),
        (r"(?<!\w)(?:needle|pin)+(?!\w)", "hay " * 20_000 + "needle"),
        ("needle", "hay " * 2_000_000 + "needle"),
        ("^hay.*needle", "hay " * 300_000 + "needle"),
        ("|".join(f"word{number}" for number in range(300)), "some text of words " * 50 + "word299"),
        (r"(\d{4})-(\d\d)-(\d\d)", "text without a date, " * 10_000 + "2024-01-02"),
    ],
)
def test_a_regular_expression_of_everyday_is_not(pattern: str, text: str) -> None:
    assert compile_expression(matching(pattern), "e")({"a": text}) is True
    assert compile_filter({"a": {"$regex": pattern}}, "f")({"a": text})


def spans(match: pcre2.Match | None) -> object:
    return match and (match.span(), match.groups())


_PIECES = r"a b c . [ab] [^a] \b ^ $ \w a* b+ c? a{2,3} b*? (a|b) (?:b|c)+ (a*) (?=b) (?<=a) (?!c) \1 (ab)* |"
_PIECE = st.sampled_from([*_PIECES.split(), "a*+", "(?>b*)", r"\Qa.\E", "(?i)", "é", "(?<n>c)"])
_TEXT = st.text("abcé \n", max_size=25)


@pytest.mark.parametrize("few", [16, 1])
@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(st.lists(_PIECE, max_size=7).map("".join), _TEXT, st.sampled_from(["", "i", "ms", "x"]))
@example("a # (", "ba", "x")
@example("(*UCP)(?:é|a)+b", "xéab", "")
@example("a|b(c)", "xbc", "")
@example(r"(?:a|b)*\Qc", "abc", "")
def test_a_search_in_steps_finds_what_one_without_a_limit_finds(
    few: int, pattern: str, text: str, options: str
) -> None:
    """With hardly any step for each place of the text it is one match of the whole that finds it."""
    flags = pcre2.A
    for letter in options:
        flags |= regexes.OPTIONS[letter]
    try:
        expected = pcre2.compile(pattern, flags, jit=False).search(text)
    except pcre2.LibraryError:
        assume(False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(regexes, "_FEW", few)
        try:
            found = regexes._Search(pattern, flags, options)(text)
        except RegexFailed:
            # What cannot be searched for as one match is given up, never found elsewhere.
            assume(False)
    assert spans(found) == spans(expected)


def test_a_pattern_is_no_longer_than_those_of_mongodb() -> None:
    assert compile_regex("a" * MAX_PATTERN, "")("a") is None
    with pytest.raises(ValueError, match="at most 32764 bytes"):
        compile_regex("é" * (MAX_PATTERN // 2 + 1), "")


# Expressions that make much of little, with a document for each.
L40 = {"l": list(range(64))}
EXPRESSIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "loop in a loop": (each(each({"$add": ["$$this", 1]}, "$$ROOT.l")), {"l": NUMBERS}),
    "long body": (each({"$add": ["$$this", *range(3000)]}), {"l": NUMBERS}),
    "filter in filter": ({"$filter": {"input": "$l", "cond": {"$in": ["$$this", "$l"]}}}, {"l": NUMBERS}),
    "dates": (each({"$dateToString": {"date": {"$toDate": {"$toLong": "$$this"}}}}), {"l": NUMBERS}),
    "text doubled": (reduced("x", {"$concat": ["$$value", "$$value"]}), L40),
    "text of squares": (reduced("", {"$concat": ["$$value", "0123456789"]}), {"l": NUMBERS}),
    "array doubled": (reduced([1], {"$concatArrays": ["$$value", "$$value"]}), L40),
    "array of squares": (reduced([], {"$concatArrays": ["$$value", ["$$this"]]}), {"l": NUMBERS}),
    "twice the same": (reduced(1, ["$$value", "$$value"]), L40),
    "twice the same, compared": ({"$eq": [reduced(1, ["$$value", "$$value"]), 1]}, L40),
    "twice the same, sorted": ({"$max": [reduced(1, {"a": "$$value", "b": "$$value"}), {"a": 1}]}, L40),
    "copies of the document": (each("$$ROOT"), {"l": NUMBERS[:20_000]}),
    "copies of a text": (each("$t"), {"l": NUMBERS[:1000], "t": "x" * 1_000_000}),
    "copies by name": (["$t"] * 500, {"t": ["x" * 1000] * 1000}),
    "a long text each time": (each({"$strLenCP": {"$toLower": "$t"}}), {"l": NUMBERS, "t": "X" * 4_000_000}),
    "a part of it each time": (each({"$substrCP": ["$t", 1, 3_000_000]}), {"l": NUMBERS, "t": "x" * 4_000_000}),
    "a search each time": (each({"$indexOfCP": ["$t", "xy"]}), {"l": NUMBERS, "t": "x" * 4_000_000}),
    "parts": (each({"$size": {"$split": ["$t", ","]}}), {"l": NUMBERS, "t": "," * 100_000}),
    "trimmed": (
        {"$trim": {"input": "$a", "chars": "$b"}},
        {"a": "a" * 1_000_000, "b": "".join(map(chr, range(300, 50_000))) + "a"},
    ),
    "fields": (each({"$objectToArray": "$o"}), {"l": NUMBERS, "o": {f"k{i}": i for i in range(5000)}}),
    "merged": (each({"$mergeObjects": ["$o", {"a": 1}]}), {"l": NUMBERS, "o": {f"k{i}": i for i in range(5000)}}),
    "pairs": (each({"$arrayToObject": "$p"}), {"l": NUMBERS, "p": [[f"k{i}", i] for i in range(5000)]}),
    "path through arrays": (each("$l.x"), {"l": [{"x": i} for i in range(20_000)]}),
    "sorted each time": (each({"$sortArray": {"input": "$l", "sortBy": 1}}), {"l": NUMBERS[:20_000]}),
    "totals": (each({"$sum": "$l"}), {"l": NUMBERS[:20_000]}),
    "found each time": (each({"$indexOfArray": ["$l", -1]}), {"l": NUMBERS[:20_000]}),
    "any": (each({"$anyElementTrue": ["$z"]}), {"l": NUMBERS, "z": [0] * 20_000}),
    "slices": (each({"$slice": ["$l", 20_000]}), {"l": NUMBERS[:20_000]}),
    "backwards": (each({"$reverseArray": "$l"}), {"l": NUMBERS[:20_000]}),
    "decimals": (each({"$multiply": ["$d", "$d"]}), {"l": NUMBERS[:20_000], "d": Decimal128("9.99E3000")}),
    "remainders": (
        each({"$mod": ["$d", "$e"]}),
        {"l": NUMBERS[:20_000], "d": Decimal128("9E6144"), "e": Decimal128("7E-6176")},
    ),
    "format": (each({"$dateToString": {"date": "$o", "format": "$f"}}), {"l": NUMBERS, "f": "%B" * 10_000, "o": None}),
    "patterns of the document": (
        each(matching({"$concat": ["(a|b){1,99}", {"$toString": "$$this"}]}, "x")),  # type: ignore[arg-type]
        {"l": NUMBERS},
    ),
    "groups": (matching("(?=(.*))" * 200, name="$regexFind"), {"a": "a" * 100_000}),
    "many texts": (each(matching("(y+)+z?!", "$$this")), {"l": ["y" * 50] * 5000}),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_stopped(name: str) -> None:
    expression, document = EXPRESSIONS[name]
    with pytest.raises((RegexFailed, BudgetSpent)):
        compile_expression(expression, "e")(document)


def test_an_expression_of_an_everyday_size_is_not() -> None:
    found = compile_expression(
        each({"name": {"$toUpper": "$$this.name"}, "at": {"$dateToString": {"date": {"$toDate": "$$this.at"}}}}), "e"
    )
    members = [{"name": f"name {number}", "at": "2024-01-01T00:00:00Z"} for number in range(2000)]
    assert len(found({"l": members})) == 2000  # type: ignore[arg-type]


def test_what_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="nested deeper than 200 levels"):
        compile_expression(reduced(1, {"a": "$$value"}), "e")({"l": NUMBERS[:50_000]})


@pytest.mark.parametrize("text", ["1" * 200_000 + "x", "1" * 9000 + "x", "." + "1" * 9000 + "e" + "1" * 900 + "x"])
@pytest.mark.parametrize("to", ["double", "decimal", "int", "long"])
def test_long_digits_are_read_in_linear_time(text: str, to: str) -> None:
    with pytest.raises(ValueError, match=f"the string is no {to}"):
        compile_expression({"$convert": {"input": "$a", "to": to}}, "e")({"a": text})


@pytest.mark.parametrize("number", ["9.99E6144", "-1E6000", "1E20"])
def test_decimals_of_huge_exponents_become_no_integers(number: str) -> None:
    document = {"d": Decimal128(number), "l": [1, 2]}
    for expression in (
        {"$toInt": "$d"},
        {"$toLong": "$d"},
        {"$arrayElemAt": ["$l", "$d"]},
        {"$substrCP": ["a", "$d", 1]},
    ):
        with pytest.raises(ValueError, match=r"beyond the range|no integer of 32 bits"):
            compile_expression(expression, "e")(document)


FILTERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "path of indexes": ({".".join(["0"] * 120): 2}, {"0": DEEP}),
    "elements of elements": ({"l": {"$elemMatch": {"$elemMatch": {"$gt": 9999}}}}, {"l": [NUMBERS[:1000]] * 1000}),
    "all of many": ({"l": {"$all": NUMBERS[:3000]}}, {"l": NUMBERS[::-1]}),
    "one of many": ({"$or": [{"l": {"$gt": 10**9 + i}} for i in range(3000)]}, {"l": NUMBERS}),
    "whole arrays": (
        {"$and": [{"l": {"$ne": [*NUMBERS[:98], -1]}} for _ in range(50)]},
        {"l": [NUMBERS[:99]] * 50_000},
    ),
    "many texts": ({"l": {"$regex": "(y+)+z?!"}}, {"l": ["y" * 50] * 5000}),
    "expression": ({"$expr": each(each("$$this", "$$ROOT.l"))}, {"l": NUMBERS}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_stopped(name: str) -> None:
    query, document = FILTERS[name]
    with pytest.raises((RegexFailed, BudgetSpent)):
        compile_filter(query, "f")(document)


@pytest.mark.parametrize(
    ("compile_it", "words"),
    [
        (lambda: compile_expression({"$add": [1] * 30_000}, "e"), "more than 20000 parts"),
        (lambda: compile_expression({"$and": [{"$regexMatch": {"input": "$a", "regex": "a"}}] * 20_000}, "e"), "parts"),
        (lambda: compile_filter({"$or": [{"a": 1}] * MAX_CLAUSES}, "f"), "more than 10000 clauses"),
        (lambda: compile_pipeline([{"$unset": "a"}] * (MAX_STAGES + 1), "p"), "more than 1000 stages"),
        (lambda: compile_expression(deep_regex(), "e"), "deeper than 100 levels"),
    ],
)
def test_what_is_too_large_is_refused_when_it_is_compiled(compile_it: Any, words: str) -> None:
    with pytest.raises(MappingError, match=words):
        compile_it()


def deep_regex(levels: int = 99) -> Any:
    """Searches for what searches give: each level is compiled once, not twice."""
    expression: Any = "$a"
    for _ in range(levels):
        expression = {"$regexMatch": {"input": "a", "regex": {"$toString": expression}}}
    return expression


def test_nested_searches_are_compiled_once() -> None:
    assert compile_expression(deep_regex(45), "e")({"a": "a"}) is False


def test_constants_are_bounded_too_when_they_are_evaluated() -> None:
    for expression in (matching("(a+)+$", "a" * 50_000 + "!"), matching("(a|b)+?$", {"$concat": ["ab" * 9000] * 900})):
        with pytest.raises(MappingError, match=r"too many steps|more steps"):
            compile_expression(expression, "e")


# Whole tables: what is stopped is an error of the row.


def table(pipeline: list[Any], **columns: Any) -> MappedTable:
    key = ["id", *(name for name in columns if name == "i")]
    entry = {
        "collection": "m",
        "columns": {"id": {"type": "string", "path": "_id"}, **columns},
        "primaryKey": key,
        "pipeline": pipeline,
    }
    return MappedTable(read_specification({"tables": {"m": entry}}).tables[0], "d")


def encoded(mapped: MappedTable, **fields: Any) -> tuple[int, list[RowFault]]:
    faults: list[RowFault] = []
    return len(mapped.encoded({"_id": "x", **fields}, mapped.inserts, faults.append)), faults


JSON = {"type": "json", "optional": True}
INDEX = {"type": "number", "path": "l"}
PIPELINES: dict[str, tuple[MappedTable, dict[str, Any]]] = {
    "unwind, wide": (
        table([{"$unwind": "$l"}], i=INDEX),
        {"l": NUMBERS[:90_000], **{f"f{i}": i for i in range(3000)}},
    ),
    "copies at a path": (table([{"$addFields": {"l.c": "$l"}}] * 4, j={**JSON, "path": "l"}), {"l": [{}] * 300}),
    "copies of a text": (
        table([{"$addFields": {"l.c": "$s"}}], j={**JSON, "path": "l"}),
        {"l": [{}] * 1000, "s": "x" * 1_000_000},
    ),
    "doubled by stages": (table([{"$set": {"l": ["$l", "$l"]}}] * 60, j={**JSON, "path": "l"}), {"l": 1}),
    "a search for each row": (
        table([{"$unwind": "$l"}], i=INDEX, j={**JSON, "expression": matching("(x+)+!", "$s")}),
        {"l": NUMBERS[:1000], "s": "x" * 5000 + "?"},
    ),
    "a document for each row": (
        table([{"$unwind": "$l"}], i=INDEX, j={**JSON, "path": "o"}),
        {"l": NUMBERS[:90_000], "o": {f"k{i}": [i] for i in range(2000)}},
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_is_stopped(name: str) -> None:
    mapped, document = PIPELINES[name]
    rows, faults = encoded(mapped, **document)
    assert rows < 5000
    assert any("steps" in fault.reason or "bytes" in fault.reason for fault in faults)
    assert len(faults) < 1000


def test_a_document_of_many_rows_is_not() -> None:
    assert encoded(table([{"$unwind": "$l"}], i=INDEX), l=NUMBERS[:50_000], a=1, b=2) == (50_000, [])


def test_a_row_that_takes_too_much_is_an_error_of_the_row_on_every_way() -> None:
    mapped = table([], c={"type": "boolean", "expression": matching("(a+)+$")})
    bad, good = {"_id": "x", "a": "a" * 50 + "!"}, {"_id": "y", "a": "a"}
    rows, faults = encoded(mapped, a=bad["a"])
    assert (rows, [fault.column for fault in faults], faults[0].left_out) == (0, ["c"], True)
    assert "too many steps" in faults[0].reason
    frames = Blocks(mapped).frames([good, bad, good], inserted=True)
    assert [frame is None for frame in frames] == [False, True, False]
    told: list[RowFault] = []
    assert sum(some.rows for some in Blocks(mapped, 10, 10_000).encoded([good, bad, good], told.append)) == 2
    assert told == faults


def test_an_optional_column_is_null_where_it_takes_too_much() -> None:
    rows, faults = encoded(
        table([], c={"type": "boolean", "optional": True, "expression": matching("(a+)+$")}), a="a" * 50 + "!"
    )
    assert (rows, [(fault.column, fault.left_out) for fault in faults]) == (1, [("c", False)])


# The counting itself.


def test_nothing_is_counted_outside_of_an_evaluation() -> None:
    charge(10 * STEPS)
    bounded(charge)(STEPS)
    with pytest.raises(BudgetSpent):
        bounded(charge)(STEPS + 1)
    charge(10 * STEPS)


def test_an_evaluation_within_another_takes_of_what_that_has() -> None:
    inner = bounded(charge)

    def twice(steps: int) -> None:
        inner(steps)
        inner(steps)

    bounded(twice)(STEPS // 2)
    with pytest.raises(BudgetSpent):
        bounded(twice)(STEPS // 2 + 1)


def test_an_allowance_is_shared_by_its_calls() -> None:
    allowance = Allowance()
    allowance.spend(charge, ALL_STEPS)
    assert not allowance.is_spent
    with pytest.raises(BudgetSpent):
        allowance.spend(charge, 1)
    assert allowance.is_spent
    charge(10 * ALL_STEPS)


def test_threads_count_apart() -> None:
    begun, go_on = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def other(_: None) -> None:
        begun.set()
        go_on.wait(10)
        charge(STEPS)

    def run() -> None:
        try:
            bounded(other)(None)
        except BaseException as exc:  # noqa: BLE001 - told below
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    bounded(charge)(STEPS)
    go_on.set()
    thread.join(10)
    assert failures == []
    assert budget._meter.left > STEPS


def doubled(column: str) -> dict[str, Any]:
    return {**JSON, "expression": {"$map": {"input": f"${column}", "in": {"$multiply": ["$$this", 2]}}}}


def test_the_columns_of_a_row_take_no_more_together_than_one_document_may() -> None:
    within, beyond = (table([], **{f"c{i}": doubled("l") for i in range(count)}) for count in (4, 40))
    assert encoded(within, l=NUMBERS[:20_000]) == (1, [])
    rows, faults = encoded(beyond, l=NUMBERS[:20_000])
    assert (rows, [fault.column for fault in faults], faults[0].left_out) == (0, [""], True)
    assert "more steps together" in faults[0].reason
    # And so on the way of many at once.
    assert Blocks(beyond).frames([{"_id": "x", "l": NUMBERS[:20_000]}], inserted=True) == [None]


@pytest.mark.parametrize("filter", [{}, {"$expr": {"$gt": [{"$size": doubled("l")["expression"]}, 0]}}])
def test_documents_that_take_long_together_go_one_by_one(filter: dict[str, Any]) -> None:
    """So that others can go on in between; those that do not go at once as ever."""
    mapped = table([], c=doubled("l"), d=doubled("l"))
    mapped.compiled = replace(mapped.compiled, matches=compile_filter(filter, "f") if filter else None)
    light = [{"_id": str(number), "l": [number]} for number in range(50)]
    heavy = [{"_id": str(number), "l": NUMBERS[:20_000]} for number in range(12)]
    for documents, one_by_one in ((light, False), (heavy, True)):
        found = list(Blocks(mapped, 1000, 1 << 24).encoded(documents, ignore_fault))
        assert found.count(NOTHING) == (len(documents) if one_by_one else 0)
        plain = [row for document in documents for row in mapped.encoded(document, mapped.values, ignore_fault)]
        assert b",".join(bytes(some.body) for some in found if some.rows) == b",".join(plain)
        frames = Blocks(mapped).frames(documents, inserted=True)
        assert [frame is None for frame in frames] == [one_by_one] * len(documents)


class Turns:
    """Notes how many documents were mapped whenever the event loop comes by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pausing, "AT_MOST", 0.0)
        monkeypatch.setattr(blocks, "BLOCK_STEPS", 1000)
        self.mapped = 0
        self.seen: set[int] = set()
        encoded = MappedTable.encoded

        def counted(table: MappedTable, document: Any, encoder: Any, report: Any) -> list[bytes]:
            self.mapped += 1
            return encoded(table, document, encoder, report)

        monkeypatch.setattr(MappedTable, "encoded", counted)

    async def run(self) -> None:
        while True:
            self.seen.add(self.mapped)
            await asyncio.sleep(0)


@pytest.mark.parametrize("backfill", [True, False])
async def test_others_go_on_while_a_snapshot_maps(backfill: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = CompiledMapping([table([], c=doubled("l"))], {})
    source = ScriptedSource(snapshot_batch=500)
    for number in range(500):
        source.insert("m", {"_id": f"{number:03}", "l": NUMBERS[:100]})
    turns, snapshot = Turns(monkeypatch), Snapshot(source, mapping)
    snapshot.limits = replace(snapshot.limits, backfill=backfill)
    running = asyncio.create_task(turns.run())
    await snapshot.run()
    running.cancel()
    assert len(snapshot.model.rows("m")) == 500
    assert len(turns.seen) > 400


async def test_others_go_on_while_changes_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = CompiledMapping([table([], c=doubled("l"))], {})
    source = ScriptedSource(feed_batch=500)
    after = await source.barrier("began")
    source.transaction([Write("insert", "m", {"_id": f"{number:03}", "l": NUMBERS[:100]}) for number in range(500)])
    turns = Turns(monkeypatch)
    running = asyncio.create_task(turns.run())
    stream = batches(source, Transform(mapping), mapping.needs, after, bounds=Bounds(rows=1000, age=1e9), idle_ms=1)
    async with aclosing(stream):
        batch = await anext(stream)
    running.cancel()
    assert batch is not None
    assert len(batch.frames) == 500
    assert len(turns.seen) > 400
