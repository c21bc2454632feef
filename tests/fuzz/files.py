"""JSON files: schemas, mappings, and whatever else may stand where they are looked for."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

from changesource.exceptions import MappingError
from changesource.mapping import filters, pipelines
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.expressions import operators
from changesource.mapping.formats import read_specification, write_specification
from changesource.mapping.literals import VALUES
from changesource.mapping.schema_formats import schema_of, write_schema
from changesource.mapping.spec import Json, Specification
from changesource.services.importing import specification_in
from tests.fuzz.drawing import FIELDS, json_value, mutated_bytes, mutated_json, seeded, text
from tests.fuzz.targets import Plant, Target, gives_nothing, hangs, raises_key_error, refused
from tests.harness.app import MAPPINGS
from tests.harness.documentation import JSON_FORMS
from tests.unit.test_documentation import json_blocks

SHORT: Json = {
    "message": {"collection": "messages", "fields": {"id": "_id", "content": {"$toUpper": "$body"}}},
    "draft": {"source": "messages", "filter": {"sent": False}, "projection": {"_id": 1, "content": "$body.text"}},
    "chat": {"collection": "rooms", "discriminator": {"field": "type", "value": "chat"}},
}
# As applications of the NestJS server hand it over.
THEIRS: Json = {
    "schema": {
        "version": 1,
        "tables": [
            {
                "schema": "public",
                "name": "line",
                "columns": {"_id": {"pos": 0, "dataType": "text", "notNull": True}, "at": {"dataType": "jsonb"}},
                "primaryKey": ["_id"],
                "tableMapping": {"source": "orders", "projection": {"at.x": 1, "b": 0, "at": "$a"}},
            },
            {"tableName": "own", "columns": {"id": {"type": "string", "notNull": True}}, "primaryKey": ["id"]},
        ],
    },
    "mapping": {
        "mappings": {
            "line": {
                "source": "orders",
                "pipeline": [
                    {"$unwind": {"path": "lines"}},
                    {"$project": {"_id": {"$concat": ["$_id", "_", "$lines.id"]}, "at": "$lines.at"}},
                ],
                "projection": {"at.x": 0},
            }
        }
    },
}
OPERATORS = (*operators(), *filters.TOP_LEVEL, *filters.FIELD_OPERATORS, *pipelines.STAGES, *VALUES)
WHOLE: list[Json] = [MAPPINGS, SHORT, THEIRS, *(json.loads(block) for block in json_blocks(JSON_FORMS))]


def _path(chance: random.Random) -> str:
    return ".".join(chance.choice((*FIELDS[:16], "0", "x")) for _ in range(chance.choice((1, 1, 2, 3))))


def wild(chance: random.Random, depth: int = 0) -> Any:
    """What looks like a filter, a pipeline or an expression, and mostly is none."""
    kind = chance.randrange(10)
    if depth > 3 or kind == 0:
        return chance.choice((json_value(chance, 4), f"${_path(chance)}", "$$ROOT", _path(chance)))
    if kind < 5:
        return {chance.choice(OPERATORS): wild(chance, depth + 1)}
    if kind < 7:
        return [wild(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        names = (
            "input",
            "in",
            "as",
            "cond",
            "vars",
            "date",
            "unit",
            "format",
            "regex",
            "to",
            "if",
            "then",
            "else",
            "path",
        )
        return {name: wild(chance, depth + 1) for name in chance.sample(names, 3)}
    return {chance.choice((_path(chance), text(chance))): wild(chance, depth + 1) for _ in range(chance.randrange(3))}


def wild_table(chance: random.Random) -> dict[str, Any]:
    """A table with parts that were drawn by chance."""
    columns: dict[str, Any] = {"id": {"type": chance.choice(("string", "number")), "path": "_id"}}
    for number in range(chance.randrange(1, 4)):
        source = {"path": _path(chance)} if chance.random() < 0.3 else {"expression": wild(chance)}
        columns[f"c{number}"] = {
            "type": chance.choice(("string", "number", "boolean", "json")), **source, "optional": chance.random() < 0.7
        }  # fmt: skip
    table: dict[str, Any] = {"collection": "things", "columns": columns, "primaryKey": ["id"], "idType": ""}
    if chance.random() < 0.5:
        table["filter"] = {_path(chance): {chance.choice(filters.FIELD_OPERATORS): wild(chance)}}
    elif chance.random() < 0.3:
        table["filter"] = {chance.choice(filters.TOP_LEVEL): wild(chance)}
    if chance.random() < 0.4:
        table["pipeline"] = [{chance.choice(pipelines.STAGES): wild(chance)} for _ in range(chance.randrange(1, 3))]
    table["errorPolicy"] = chance.choice(("coerce", "skip", "stop"))
    table["largeIntegers"] = chance.choice(("reject", "round"))
    return table


def _file(chance: random.Random) -> bytes:
    kind = chance.randrange(6)
    whole = chance.choice(WHOLE)
    if kind == 0:
        return mutated_bytes(json.dumps(whole).encode(), chance)
    if kind == 1:
        return json.dumps(json_value(chance)).encode()
    if kind == 2:
        return json.dumps({"tables": {"t": wild_table(chance)}}).encode()
    return json.dumps(mutated_json(whole, chance, rate=chance.choice((0.01, 0.03, 0.1)))).encode()


def check_file(content: bytes) -> None:
    """What is taken is written again as it was read; what is refused is refused at its place."""
    for read in (
        lambda: specification_in(content, "file"),
        lambda: specification_in(SHORT_TEXT, "file", content, "schema"),
    ):
        try:
            spec = read()
            CompiledMapping.compile(spec, "database")
        except MappingError as error:
            refused(error)
            assert error.place, str(error)
            assert error.problem, str(error)
        else:
            _check_kept(spec, content)


def _check_kept(spec: Specification, content: bytes) -> None:
    written = write_specification(spec)
    assert read_specification(json.loads(json.dumps(written))) == read_specification(written)
    assert len(written["tables"]) == len(spec.tables)  # type: ignore[arg-type]
    json.dumps(write_schema(schema_of(spec.tables))).encode()
    if (data := json.loads(content.decode("utf-8-sig"))) == MAPPINGS:
        assert {table.name for table in spec.tables} == set(data["tables"])


SHORT_TEXT = json.dumps(SHORT).encode()


def _deep(depth: int) -> bytes:
    return b'{"t":{"collection":"c","filter":' + b'{"$and":[' * depth + b"{}" + b"]}" * depth + b"}}"


def _many(count: int, entry: bytes) -> bytes:
    return b",".join(entry.replace(b"#", b"%d" % number) for number in range(count))


CORPUS = [
    *(json.dumps(one).encode() for one in WHOLE),
    b"", b"\xff", b"\xef\xbb\xbf{}", b"[" * 200_000, b'{"a":' * 200_000, _deep(60), _deep(5000), b"1" * 5000,
    b"-", b"NaN",
    b'{"t":{"collection":"c","collection":"d"}}', b'"\\ud800"', b'{"\\u0000":1}', b"[[[]]]", b'[{"name":{}}]',
    b'{"tables":null}', b'{"tables":[]}', b'{"tables":{"tables":{}}}', b'{"t":{"tableName":[],"columns":{}}}',
    # What is looked for among all the others, in files of a size that is taken.
    b"{" + _many(50_000, b'"k#":0') + b',"k0":0}',
    b'{"tables":{},"publications":{"p":[' + _many(50_000, b'"t#"') + b"]}}",
    b'{"t":{"tableName":"t","columns":{' + _many(10_000, b'"c#":{"type":"json"}') + b'},"primaryKey":["c0"]}}',
    b'[{"name":"t","columns":{' + _many(10_000, b'"c#":{"dataType":"text"}') + b'},"primaryKey":["c1"]}]',
    b"[" + _many(10_000, b'{"name":"t#","columns":{"id":{"dataType":"text"}},"primaryKey":["id"]}') + b"]",
    b'[{"name":"t","columns":{' + _many(5_000, b'"c#":{"dataType":"text","notNull":true}') + b'},"primaryKey":['
    + _many(5_000, b'"c#"') + b"]}]",
    b'[{"name":"t","columns":{"c0":{"dataType":"text","notNull":true},' + b",".join(
        b'"%s":{"dataType":"text"}' % bytes(b"!%&/()=?"[(number >> 3 * place) & 7] for place in range(4))
        for number in range(4096)
    ) + b'},"primaryKey":["c0"]}]',
    b'{"t":{"tableName":"t","columns":{"a":{"type":"json"}},"primaryKey":[' + _many(50_000, b'"c#"') + b"]}}",
    b'{"tables":{"t":{"collection":"c","primaryKey":["id"],"columns":{"id":{"type":"string"},'
    + _many(5_000, b'"c#":{"type":"json"}') + b"}}}}",
    b'{"tables":{"t":{"collection":"c","primaryKey":["id"],"columns":{"id":{"type":"string"}},"filter":{"a":{"$in":['
    + _many(50_000, b"#") + b"]}}}}}",
]  # fmt: skip

TARGETS = [
    Target(
        "files",
        st.one_of(st.binary(max_size=40), seeded(_file)),
        check_file,
        [
            Plant("a form that raises", "changesource.mapping.formats._read_filter", raises_key_error),
            Plant("a form that hangs", "changesource.mapping.formats._read_sources", hangs),
            Plant("tables that are lost", "changesource.mapping.formats._complete", gives_nothing),
            Plant("a refusal without a place", "changesource.mapping.json_reading._once", raises_key_error),
        ],
        CORPUS,
    )
]
