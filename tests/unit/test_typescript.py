"""The schema for clients: whatever tables are called, its names are identifiers, and read back as they were."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from changesource.exceptions import MappingError
from changesource.mapping.rows import compile_table
from changesource.mapping.schema_formats import is_schema, read_schema, schema_of, write_schema
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.mapping.typescript import zero_schema, zero_table
from tests.harness.chat import CHANNEL, CHAT, MESSAGE
from tests.specifications import tables as table_specs

HYPHENED = TableSpec(
    "class-of",
    "c",
    (
        ColumnSpec("the-id", "string", "_id"),
        ColumnSpec("the_id", "number", "n", optional=True),
        ColumnSpec("delete", "json", "d", optional=True),
    ),
    ("the-id",),
)
MESSAGE_AND_HYPHENED = """\
import {createSchema, json, number, string, table} from "@rocicorp/zero";

export const class_ofTable = table("class_of").from("class-of")
  .columns({
    the_id_2: string().from("the-id"),
    the_id: number().optional(),
    delete: json().optional(),
  })
  .primaryKey("the_id_2");

export const messageTable = table("message")
  .columns({
    id: string(),
    body: string(),
    likes: number().optional(),
    tags: json().optional(),
  })
  .primaryKey("id");

export const schema = createSchema({
  tables: [
    class_ofTable,
    messageTable,
  ],
});

export type Schema = typeof schema;
"""
LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,9}", fullmatch=True) | st.sampled_from(
    ["_-proto__", "_0-version", "a-b", "a_b"]
)


def named(name: str, columns: list[str]) -> TableSpec:
    """A table with these columns, the first of which is the key."""
    return TableSpec(name, "c", tuple(ColumnSpec(column, "string", "_id") for column in columns), (columns[0],))


def test_it_is_what_people_would_write() -> None:
    assert zero_schema([MESSAGE, HYPHENED]) == MESSAGE_AND_HYPHENED


def test_one_table_stands_alone_as_in_the_whole() -> None:
    whole = zero_schema([MESSAGE, CHAT, CHANNEL])
    for table in (MESSAGE, CHAT, CHANNEL):
        assert f"export {zero_table(table)}\n" in whole


def test_without_tables_nothing_unused_is_imported() -> None:
    assert zero_schema([]).startswith('import {createSchema} from "@rocicorp/zero";\n')
    assert "tables: []," in zero_schema([])


@given(st.lists(st.text(min_size=1) | NAMES, min_size=1, max_size=5, unique=True), st.text() | NAMES)
def test_no_name_leaves_its_quotes(columns: list[str], name: str) -> None:
    text = LITERAL.sub("", zero_schema([named(name, columns)]))
    assert text.isascii()
    assert re.fullmatch(r"[\w\s(){}:;.,=\[\]]*", text), text


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower), max_size=4), st.data())
def test_names_of_clients_are_identifiers_and_lead_back(columns: list[list[str]], data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=len(columns), max_size=len(columns), unique_by=str.lower))
    specs = []
    for spec in map(named, names, columns):
        try:
            compile_table(spec)
        except MappingError:
            continue  # a reserved name
        specs.append(spec)
    schema = schema_of(specs)
    assert [table.name for table in schema] == sorted(table.name for table in specs)
    for owner in ([table.alias for table in schema], *([c.alias for c in table.columns] for table in schema)):
        assert len(set(owner)) == len(owner)
        assert all(re.fullmatch(r"[A-Za-z_]\w*", alias, re.ASCII) and alias != "__proto__" for alias in owner)
    assert read_schema(json.loads(json.dumps(write_schema(schema)))) == schema


@given(table_specs("message"))
def test_the_json_has_types_and_what_is_optional(spec: TableSpec) -> None:
    written = write_schema(schema_of([spec]))
    assert is_schema(written)
    (table,) = read_schema(written)
    assert [(c.name, c.type, c.optional) for c in table.columns] == [(c.name, c.type, c.optional) for c in spec.columns]
    assert table.primary_key == spec.primary_key
