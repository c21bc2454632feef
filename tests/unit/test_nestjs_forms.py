"""Schemas and mappings as applications of the NestJS zero-sources server hand them over."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from bson import json_util
from bson.objectid import ObjectId

from changesource.exceptions import MappingError
from changesource.mapping.formats import combine, read_mappings, read_schema, read_specification
from changesource.mapping.rows import Problem, compile_table
from changesource.mapping.spec import Json, Specification, TableSpec
from tests.harness.documentation import ROOT

OID = ObjectId("65f000000000000000000001")


def column(kind: str, *, optional: bool = True) -> dict[str, Json]:
    return {"type": kind, "optional": optional, "customType": None}


def schema(**tables: dict[str, Json]) -> dict[str, Json]:
    """As ``JSON.stringify(createSchema(...))`` gives it."""
    made: dict[str, Json] = {
        name: {"name": name, "columns": {"_id": column("string", optional=False), **columns}, "primaryKey": ["_id"]}
        for name, columns in tables.items()
    }
    return {"tables": made, "relationships": {}, "enableLegacyMutators": False}


SCHEMA = schema(book={"title": column("string"), "shelf": column("json")})
SPECS: list[Json] = [
    {
        "schema": "public",
        "name": "book",
        "primaryKey": ["_id"],
        "columns": {
            "_id": {"pos": 0, "dataType": "text", "notNull": True},
            "title": {"pos": 1, "dataType": "varchar", "notNull": False},
            "shelf": {"pos": 2, "dataType": "jsonb", "notNull": False},
        },
    }
]
MAPPING: Json = {"source": "library", "filter": {"kind": "book"}, "projection": {"_id": 1, "title": 1, "shelf": 1}}
META: Json = {"application": "library", "exportedAt": "2026-01-01T00:00:00.000Z", "sourceVersion": "1.0.0"}
EXPORT: Json = {"version": 1, "tables": SPECS, "metadata": META}
MAPPINGS: Json = {"version": 1, "mappings": {"book": MAPPING}, "metadata": META}
WITHIN: Json = [{**SPECS[0], "tableMapping": MAPPING}]  # type: ignore[dict-item]
NAMED = json.loads(json.dumps(SCHEMA))
NAMED["tables"]["book"]["serverName"] = json.dumps(MAPPING)


@pytest.mark.parametrize(
    ("given", "mappings"),
    [
        (SCHEMA, {"book": MAPPING}),
        (SCHEMA, MAPPINGS),
        (EXPORT, MAPPINGS),
        (SPECS, {"book": MAPPING}),
        ({"version": 1, "tables": WITHIN, "metadata": META}, None),
        (WITHIN, {}),
        (NAMED, None),
        ({"schema": EXPORT, "mapping": MAPPINGS, "exportedAt": "2026-01-01T00:00:00.000Z"}, None),
        ({"schema": SCHEMA, "mapping": {"book": MAPPING}}, {}),
    ],
)
def test_every_export_gives_the_same_table(given: Json, mappings: Json) -> None:
    """A mapping comes beside the schema, in its file, or in a table's upstream name."""
    both = combine(read_schema(given), read_mappings(mappings or {}))
    found = [both, read_specification(given)] if mappings is None else [both]
    (wanted,) = combine(read_schema(SCHEMA), read_mappings({"book": MAPPING})).tables
    assert (wanted.name, wanted.collection, wanted.filter) == ("book", "library", {"kind": "book"})
    for one in found:
        assert one.tables == (wanted,)


def test_a_mapping_of_its_own_file_goes_before_that_in_the_schemas() -> None:
    (table,) = combine(read_schema(NAMED), read_mappings({"book": {"source": "archive"}})).tables
    assert (table.collection, table.filter) == ("archive", {})


def test_what_comes_beside_the_schema_is_of_its_tables() -> None:
    with pytest.raises(MappingError, match=r"schema\.mapping\.bock: the schema has no such table"):
        read_schema({"schema": SCHEMA, "mapping": {"bock": MAPPING}})


@pytest.mark.parametrize("name", ["{", '{"source": 1}', "{" * 5000, '{"source": "a", "source": "b"}', "{\ud800}"])
def test_a_name_that_is_no_mapping_is_a_name(name: str) -> None:
    named = json.loads(json.dumps(SCHEMA))
    named["tables"]["book"]["serverName"] = name
    (table,) = read_schema(named)
    assert (table.name, table.mapping) == (name, None)


def test_tables_may_be_called_as_the_parts_of_an_export() -> None:
    own = {"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}
    mapped = {"collection": "c", **own, "columns": {"id": {"type": "string", "path": "_id"}}}
    assert [table.name for table in read_schema({"schema": own, "mapping": own})] == ["schema", "mapping"]
    assert list(read_mappings({"mappings": mapped, "schema": mapped}).tables) == ["mappings", "schema"]


def test_tables_that_name_themselves_need_no_key() -> None:
    """``createTableSchema`` gives one such; a list of them is one of tables."""
    one: Json = {"tableName": "message", "columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}
    other: Json = {**one, "tableName": "room"}
    assert [table.name for table in read_schema(one)] == ["message"]
    assert [table.name for table in read_schema([one, other, SPECS[0]])] == ["message", "room", "book"]
    assert [table.collection for table in read_specification(one).tables] == ["message"]
    with pytest.raises(MappingError, match=r"schema\.message\.columns\.id\.colour"):
        read_schema({**one, "columns": {"id": {"type": "string", "colour": 1}}})


def test_not_null_says_whether_a_column_is_optional() -> None:
    keyed: Json = {
        "tables": {
            "book": {
                "columns": {
                    "_id": {"type": "string", "notNull": True},
                    "title": {"type": "string", "notNull": False},
                    "pages": {"type": "number"},
                },
                "primaryKey": ["_id"],
            }
        }
    }
    (table,) = read_schema(keyed)
    assert [column.optional for column in table.columns] == [False, True, False]


def mapped(mapping: Json, **columns: dict[str, Json]) -> TableSpec:
    (table,) = combine(read_schema(schema(t=columns)), read_mappings({"t": mapping})).tables
    return table


def rows_of(spec: TableSpec, document: dict[str, Any]) -> list[Any]:
    compile_table(spec)
    return [one.reason if isinstance(one, Problem) else one for one in compile_table(spec).rows(document)]


TEXT, JSON, NUMBER = column("string"), column("json"), column("number")
DOCUMENT = {
    "_id": OID,
    "name": "n",
    "secret": "s",
    "by": {"id": "u1", "mail": "m"},
    "tags": ["a", "b"],
    "ownerId": ObjectId("65f000000000000000000002"),
    "count": "12",
}
COLUMNS = {"name": TEXT, "secret": TEXT, "by": JSON, "count": NUMBER}
ALL = {"_id": str(OID), "name": "n", "secret": "s", "by": {"id": "u1", "mail": "m"}, "count": None}


@pytest.mark.parametrize(
    ("projection", "row"),
    [
        ({}, ALL),
        ({"secret": 0}, {**ALL, "secret": None}),
        ({"secret": False, "elsewhere": 0, "_id": 0}, {**ALL, "secret": None}),
        ({"by.mail": 0}, {**ALL, "by": {"id": "u1"}}),
        ({"_id": 1, "name": 1}, {**ALL, "secret": None, "by": None}),
        ({"name": 1, "secret": 0}, {**ALL, "secret": None, "by": None}),
        ({"_id": 1, "by.id": 1}, {**ALL, "name": None, "secret": None, "by": {"id": "u1"}}),
        ({"by": {"id": 1}}, {**ALL, "name": None, "secret": None, "by": {"id": "u1"}}),
        ({"by": {"mail": 0}, "secret": 0}, {**ALL, "secret": None, "by": {"id": "u1"}}),
        ({"by": {"id": True, "name": "$name"}}, {**ALL, "name": None, "secret": None, "by": {"id": "u1", "name": "n"}}),
        ({"by": {"who": "$name"}}, {**ALL, "name": None, "secret": None, "by": {"who": "n"}}),
        ({"by": {"$literal": {"id": 1}}}, {**ALL, "name": None, "secret": None, "by": {"id": 1}}),
        ({"by.id": 1, "name": "secret"}, {**ALL, "name": "s", "secret": None, "by": {"id": "u1"}}),
        (
            {"name": "$by.id", "count": {"$toInt": "$count"}},
            {**ALL, "name": "u1", "secret": None, "by": None, "count": 12},
        ),
        ({"name": {"$hexToBase64Url": "$ownerId"}}, {**ALL, "name": "ZfAAAAAAAAAAAAAC", "secret": None, "by": None}),
        (
            {"name": {"$concat": ["$ownerId", "/", "$name"]}},
            {**ALL, "name": "65f000000000000000000002/n", "secret": None, "by": None},
        ),
    ],
)  # fmt: skip
def test_a_projection_shows_what_it_says_and_no_more(projection: Json, row: dict[str, Any]) -> None:
    found = rows_of(mapped({"source": "c", "projection": projection}, **COLUMNS), DOCUMENT)
    assert found[-1] == row
    # `count` is a text, which does not fit where it is shown as it is.
    everything = all(value in (0, False, {"mail": 0}) for value in projection.values())  # type: ignore[union-attr]
    assert found[:-1] == ["a value of type string does not fit a number column"] * everything


@pytest.mark.parametrize("projection", [{"_id": 1}, {"title": 0}, {"pages": 1}])
def test_a_column_that_must_have_a_value_is_not_left_out(projection: Json) -> None:
    with pytest.raises(MappingError, match=r"tables\.t\.projection\.title: is left out, so that the column is always"):
        mapped({"source": "c", "projection": projection}, title=column("string", optional=False), pages=NUMBER)


PIPELINES: list[list[Json]] = [
    [
        {"$unwind": "$lines"},
        {"$addFields": {"orderId": "$_id", "lineId": "$lines.id", "qty": "$lines.qty"}},
        {"$project": {"_id": {"$concat": ["$orderId", "_", "$lineId"]}, "orderId": 1, "lineId": 1, "qty": 1}},
    ],
    [
        {"$match": {"open": True}},
        {"$unwind": {"path": "lines", "includeArrayIndex": "at", "preserveNullAndEmptyArrays": False}},
        {"$project": {"_id": {"$concat": ["$_id", "_", "$lines.id"]}, "orderId": "$_id", "lineId": "$lines.id",
         "qty": "$lines.qty"}},
    ],
]  # fmt: skip
ORDER = {"_id": OID, "open": True, "lines": [{"id": "a", "qty": 2}, {"id": "b", "qty": 3}]}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_rows_of_an_array_have_a_joined_key(pipeline: list[Json]) -> None:
    columns = {"orderId": TEXT, "lineId": TEXT, "qty": NUMBER}
    spec = mapped({"source": "orders", "pipeline": pipeline}, **columns)
    assert rows_of(spec, ORDER) == [
        {"_id": f"{OID}_a", "orderId": str(OID), "lineId": "a", "qty": 2},
        {"_id": f"{OID}_b", "orderId": str(OID), "lineId": "b", "qty": 3},
    ]
    assert rows_of(spec, {**ORDER, "_id": "A-7"})[0]["_id"] == "A-7_a"
    assert "does not tell where it ends" in rows_of(spec, {**ORDER, "_id": "A_7"})[0]


def test_a_projection_goes_after_the_pipeline() -> None:
    mapping: Json = {
        "source": "orders",
        "pipeline": [{"$unwind": "$lines"}],
        "projection": {"_id": {"$concat": ["$_id", "_", "$lines.id"]}, "lineId": "$lines.id", "qty": "$lines.qty"},
    }
    found = rows_of(mapped(mapping, lineId=TEXT, qty=NUMBER), ORDER)
    assert found[1] == {"_id": f"{OID}_b", "lineId": "b", "qty": 3}


def test_mappings_without_a_source_stay_as_they_are() -> None:
    """Only a file of theirs takes fields of any type by their text."""
    mapping: Json = {"collection": "c", "fields": {"name": {"$concat": ["$ownerId", "/"]}}}
    assert mapped(mapping, name=TEXT).columns[1].expression == {"$concat": ["$ownerId", "/"]}


def test_what_is_not_understood_names_its_place() -> None:
    for mapping, words in (
        ({"source": "c", "filter": {"name": {"$regex": {}}}}, r"tables\.t\.filter\.name\.\$regex"),
        ({"source": "c", "pipeline": [{"$lookup": {}}]}, r"pipeline\.0\.\$lookup: the stage \$lookup is not supported"),
        ({"source": "c", "projection": {"name": {"$split": ["$name"]}}}, r"tables\.t\.columns\.name"),
    ):
        with pytest.raises(MappingError, match=words):
            compile_table(mapped(mapping, name=TEXT))


def test_the_export_of_all_in_one_is_a_specification() -> None:
    found = read_specification({"schema": SCHEMA, "mapping": {"book": MAPPING}})
    assert isinstance(found, Specification)
    assert [table.collection for table in found.tables] == ["library"]


def test_the_guides_recipes_give_their_rows() -> None:
    """Each: a heading, a schema, a mapping, documents and rows."""
    content = (ROOT / "docs" / "moving-from-nestjs.md").read_text(encoding="utf-8")
    seen = 0
    for section in re.split(r"^##+ ", content, flags=re.M):
        blocks = dict(re.findall(r"^```json (\w+)\n(.*?)^```", section, re.M | re.S))
        if not blocks:
            continue
        (spec,) = combine(
            read_schema(json.loads(blocks["schema"])), read_mappings(json.loads(blocks["mapping"]))
        ).tables
        document = json_util.loads(blocks["documents"], json_options=json_util.JSONOptions(tz_aware=True))
        wanted = json.loads(blocks["rows"])
        assert rows_of(spec, document) == (wanted if isinstance(wanted, list) else [wanted])
        seen += 1
    assert seen == 2
