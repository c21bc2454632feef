"""The JSON forms: each is read into the same specification; a wrong key is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from changesource import sample_data
from changesource.exceptions import MappingError
from changesource.mapping.formats import combine, read_mappings, read_schema, read_specification, write_specification
from changesource.mapping.json_reading import parse
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import ColumnSpec, Json, Specification, TableSpec
from tests.specifications import specifications

KEYED: Json = {
    "message": {
        "tableName": "message",
        "columns": {"id": {"type": "string"}, "content": {"type": "string", "optional": True}},
        "primaryKey": ["id"],
    }
}
CREATE_SCHEMA: Json = {
    "tables": {
        "message": {
            "name": "message",
            "columns": {
                "id": {"type": "string", "optional": False, "customType": None},
                "content": {"type": "string", "optional": True, "customType": None},
            },
            "primaryKey": ["id"],
        }
    },
    "relationships": {"message": {"author": [{"sourceField": ["authorId"], "cardinality": "one"}]}},
}
PROTOCOL: Json = [
    {
        "schema": "public",
        "name": "message",
        "primaryKey": ["id"],
        "columns": {
            "content": {"pos": 1, "dataType": "text", "notNull": False},
            "id": {"pos": 0, "dataType": "text", "notNull": True},
        },
    }
]
MESSAGE = TableSpec(
    "message",
    "messages",
    (ColumnSpec("id", "string", "_id"), ColumnSpec("content", "string", "content", optional=True)),
    ("id",),
)


def spec_of(mapping: Json, schema: Json = KEYED) -> TableSpec:
    (table,) = combine(read_schema(schema), read_mappings({"message": mapping})).tables
    return table


def changed(**parts: Json) -> Json:
    return {"message": {**KEYED["message"], **parts}}  # type: ignore[index,call-overload,dict-item]


@pytest.mark.parametrize("schema", [KEYED, CREATE_SCHEMA, PROTOCOL], ids=["keyed", "createSchema", "protocol"])
def test_every_schema_form_gives_the_same(schema: Json) -> None:
    assert spec_of({"collection": "messages"}, schema) == MESSAGE


@pytest.mark.parametrize("schema", [KEYED, CREATE_SCHEMA, PROTOCOL], ids=["keyed", "createSchema", "protocol"])
def test_a_schema_alone_maps_collections_of_its_own_names(schema: Json) -> None:
    (table,) = read_specification(schema).tables
    assert (table.collection, [column.path for column in table.columns]) == ("message", ["_id", "content"])


def test_server_names_are_the_tables_and_columns() -> None:
    schema: Json = {
        "tables": {
            "note": {
                "name": "note",
                "serverName": "notes",
                "columns": {
                    "id": {"type": "string"},
                    "authorId": {"type": "string", "serverName": "author_id"},
                },
                "primaryKey": ["id"],
            }
        }
    }
    data: Json = {
        "tables": {"note": {"collection": "n", "fields": {"authorId": "by"}}},
        "publications": {"p": ["note"]},
    }
    spec = combine(read_schema(schema), read_mappings(data))
    (table,) = spec.tables
    assert (table.name, [(column.name, column.path) for column in table.columns]) == (
        "notes",
        [("id", "_id"), ("author_id", "by")],
    )
    assert spec.publications == {"p": ("notes",)}


@pytest.mark.parametrize(
    ("mapping", "paths"),
    [
        ({"collection": "m", "fields": {"id": "_id", "content": "body.text"}}, ["_id", "body.text"]),
        ({"collection": "m", "fields": {}}, ["_id", "content"]),
        ({"source": "m", "projection": {"_id": 1, "content": 1}}, ["_id", "content"]),
        ({"source": "m", "projection": {"_id": 0, "id": "$_id", "content": "$body.text"}}, ["_id", "body.text"]),
        ({"source": "m", "projection": {"id": "_id", "content": True}}, ["_id", "content"]),
        ({"collection": "m", "columns": {"content": {"type": "string", "path": "x"}}}, ["_id", "x"]),
    ],
)
def test_paths(mapping: Json, paths: list[str]) -> None:
    assert [column.path for column in spec_of(mapping).columns] == paths


def test_projected_id_is_a_column_where_the_schema_has_it() -> None:
    schema: Json = {"message": {"columns": {"_id": {"type": "string"}}, "primaryKey": ["_id"]}}
    assert spec_of({"source": "m", "projection": {"_id": 1}}, schema).columns == (ColumnSpec("_id", "string", "_id"),)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"collection": "m", "filter": {"a": {"$gt": 1}}}, {"a": {"$gt": 1}}),
        ({"collection": "m", "discriminator": {"field": "type", "value": "chat"}}, {"type": "chat"}),
        (
            {"collection": "m", "filter": {"a": 1}, "discriminator": {"field": "type", "value": "chat"}},
            {"a": 1, "type": "chat"},
        ),
        (
            {"collection": "m", "filter": {"type": {"$ne": 1}}, "discriminator": {"field": "type", "value": None}},
            {"$and": [{"type": {"$ne": 1}}, {"type": None}]},
        ),
    ],
)
def test_filters(mapping: Json, expected: Json) -> None:
    assert spec_of(mapping).filter == expected


def test_optional_keys() -> None:
    mapping: Json = {
        "source": "m",
        "pipeline": [{"$unwind": "$x"}],
        "idType": "objectId",
        "errorPolicy": "skip",
        "primaryKey": ["id"],
        "enabled": False,
        "description": "d",
    }
    table = spec_of(mapping)
    assert (table.pipeline, table.id_type, table.error_policy) == (({"$unwind": "$x"},), "objectId", "skip")
    assert (table.enabled, table.description) == (False, "d")


@pytest.mark.parametrize(
    ("mapping", "place"),
    [
        ("messages", "tables.message"),
        ({}, "tables.message.collection"),
        ({"collection": 1}, "tables.message.collection"),
        ({"collection": ""}, "tables.message.collection"),
        ({"collection": "m", "colour": 1}, "tables.message.colour"),
        ({"collection": "m", "source": "m"}, "tables.message.source"),
        ({"collection": "m", "fields": {}, "projection": {}}, "tables.message.projection"),
        ({"collection": "m", "fields": {"body": "b"}}, "tables.message.fields.body"),
        ({"collection": "m", "fields": {"id": 1}}, "tables.message.fields.id"),
        ({"source": "m", "projection": {"content": None}}, "tables.message.projection.content"),
        ({"source": "m", "columns": {"content": {"expression": None}}}, "tables.message.columns.content.expression"),
        ({"source": "m", "columns": {"content": {"keyType": "int"}}}, "tables.message.columns.content.keyType"),
        ({"source": "m", "largeIntegers": "no"}, "tables.message.largeIntegers"),
        ({"source": "m", "projection": {"_id": 1, "id": "x"}}, "tables.message.projection.id"),
        ({"source": "m", "projection": {"_id": 2}}, "tables.message.projection._id"),
        ({"collection": "m", "filter": []}, "tables.message.filter"),
        ({"collection": "m", "pipeline": {}}, "tables.message.pipeline"),
        ({"collection": "m", "discriminator": {"field": "a"}}, "tables.message.discriminator.value"),
        ({"collection": "m", "discriminator": {"field": "$a", "value": 1}}, "tables.message.discriminator.field"),
        ({"collection": "m", "discriminator": {"field": "a", "value": {}}}, "tables.message.discriminator.value"),
        ({"collection": "m", "discriminator": {"field": "a", "value": 1, "x": 1}}, "tables.message.discriminator.x"),
        ({"collection": "m", "idType": "oid"}, "tables.message.idType"),
        ({"collection": "m", "errorPolicy": "ignore"}, "tables.message.errorPolicy"),
        ({"collection": "m", "enabled": 1}, "tables.message.enabled"),
        ({"collection": "m", "primaryKey": ["content"]}, "tables.message.primaryKey"),
        ({"collection": "m", "primaryKey": "id"}, "tables.message.primaryKey"),
        ({"collection": "m", "columns": {"content": {"type": "text"}}}, "tables.message.columns.content.type"),
        ({"collection": "m", "columns": {"content": {"type": "number"}}}, "tables.message.columns.content.type"),
        ({"collection": "m", "columns": {"content": {"optional": False}}}, "tables.message.columns.content.optional"),
        ({"collection": "m", "columns": {"body": {}}}, "tables.message.columns.body"),
        (
            {"collection": "m", "columns": {"id": {"expression": 1, "path": "a"}}},
            "tables.message.columns.id.expression",
        ),
        (
            {"collection": "m", "columns": {"content": {"path": "a"}}, "fields": {"content": "b"}},
            "tables.message.columns.content.path",
        ),
    ],
)
def test_a_wrong_mapping_names_the_key(mapping: Json, place: str) -> None:
    with pytest.raises(MappingError) as caught:
        spec_of(mapping)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ("x", "schema"),
        ({"message": 1}, "schema.message"),
        ({"message": {"primaryKey": ["id"]}}, "schema.message.columns"),
        (changed(primaryKey=["other"]), "schema.message.primaryKey"),
        (changed(columns={"id": {}}), "schema.message.columns.id.type"),
        (changed(columns={"id": {"type": "text"}}), "schema.message.columns.id.type"),
        (changed(columns={"id": {"type": "string", "colour": 1}}), "schema.message.columns.id.colour"),
        (changed(colour=1), "schema.message.colour"),
        ({"tables": {"message": {"name": "message", "columns": {}}}}, "schema.message.primaryKey"),
        (
            [{"name": "m", "primaryKey": ["id"], "columns": {"id": {"dataType": "uuid"}}}],
            "schema.m.columns.id.dataType",
        ),
        ([{"name": "m", "schema": "other", "columns": {}}], "schema.0.schema"),
        ([{"name": "m", "colour": 1}], "schema.0.colour"),
    ],
)
def test_a_wrong_schema_names_the_key(schema: Json, place: str) -> None:
    with pytest.raises(MappingError) as caught:
        read_schema(schema)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"message": {"collection": "m", "fields": {"id": "_id"}}}, "tables.message.columns"),
        ({"message": {"collection": "m", "columns": {"id": {"path": "_id"}}}}, "tables.message.primaryKey"),
        (
            {"message": {"collection": "m", "columns": {"id": {"path": "_id"}}, "primaryKey": ["id"]}},
            "tables.message.columns.id.type",
        ),
        ({"tables": {}, "publications": {"p": ["message"]}}, "publications.p"),
        ({"tables": {}, "publications": {"p": "message"}}, "publications.p"),
        ({"tables": {}, "colour": 1}, "mappings.colour"),
        ({"tables": []}, "tables.tables"),
    ],
)
def test_mappings_without_a_schema_must_be_whole(data: Json, place: str) -> None:
    with pytest.raises(MappingError) as caught:
        read_specification(data)
    assert caught.value.place == place


def test_a_mapping_of_a_table_that_the_schema_lacks_is_refused() -> None:
    with pytest.raises(MappingError, match=r"tables\.massage: the schema has no such table; it has message"):
        combine(read_schema(KEYED), read_mappings({"massage": {"collection": "m"}}))


def test_a_table_may_be_called_tables() -> None:
    columns: Json = {"id": {"type": "string"}}
    mapping: Json = {"tables": {"collection": "t", "columns": columns, "primaryKey": ["id"]}}
    assert [table.name for table in read_specification(mapping).tables] == ["tables"]
    schema: Json = {"tables": {"tableName": "tables", "columns": columns, "primaryKey": ["id"]}}
    assert [table.name for table in read_schema(schema)] == ["tables"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' is given twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e400}', "f.json.a: is a number too large"),
        (rb'{"a": ["x\u0000"]}', "f.json.a.0: holds U.0000"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b"[" * 200 + b"]" * 200, "nested deeper"),
    ],
)
def test_what_is_no_sound_json_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(MappingError, match=problem):
        parse(content, "f.json")


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert parse(b"\xef\xbb\xbf{}", "f.json") == {}


@given(specifications())
def test_writing_and_reading_lose_nothing(spec: Specification) -> None:
    text = json.dumps(write_specification(spec)).encode()
    found = read_specification(parse(text, "f.json"))
    assert found == Specification(
        tuple(sorted(spec.tables, key=lambda table: table.name)),
        {name: tuple(sorted(members)) for name, members in spec.publications.items()},
    )
    # Order within filters counts in MongoDB.
    assert json.dumps(write_specification(found)).encode() == text


def test_the_sample_mappings_are_valid() -> None:
    path: Path = sample_data.MAPPINGS_FILE
    spec = read_specification(parse(path.read_bytes(), path.name))
    for table in spec.tables:
        compile_table(table)
    assert {table.collection for table in spec.tables} == {"users", "rooms", "messages", "accounts"}
