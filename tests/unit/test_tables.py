"""Table specifications as zero-cache wants them."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from changesource.protocol.tables import Table, mapped_table, required_tables

ITEM = mapped_table(
    "item",
    [("id", "string", False), ("n", "number", True), ("ok", "boolean", False), ("j", "json", True)],
    ("id",),
)


def test_a_mapped_table_is_created_with_its_unique_index() -> None:
    assert ITEM.create() == [
        {
            "tag": "create-table",
            "spec": {
                "schema": "public",
                "name": "item",
                "primaryKey": ["id"],
                "columns": {
                    "id": {"pos": 1, "dataType": "text", "notNull": True},
                    "n": {"pos": 2, "dataType": "float8", "notNull": False},
                    "ok": {"pos": 3, "dataType": "boolean", "notNull": True},
                    "j": {"pos": 4, "dataType": "json", "notNull": False},
                },
            },
            "metadata": {"rowKey": {"columns": ["id"]}},
        },
        {
            "tag": "create-index",
            "spec": {
                "schema": "public",
                "tableName": "item",
                "name": "item.key",
                "unique": True,
                "columns": {"id": "ASC"},
            },
        },
    ]


def test_the_required_tables_are_those_of_the_protocol() -> None:
    found = {
        (table.schema, table.name): ({c.name: (c.data_type, c.not_null) for c in table.columns}, table.key)
        for table in required_tables("app", 3)
    }
    assert found == {
        ("app_3", "clients"): (
            {
                "clientGroupID": ("text", True),
                "clientID": ("text", True),
                "lastMutationID": ("int8", False),
                "userID": ("text", False),
            },
            ("clientGroupID", "clientID"),
        ),
        ("app_3", "mutations"): (
            {
                "clientGroupID": ("text", True),
                "clientID": ("text", True),
                "mutationID": ("int8", True),
                "mutation": ("json", False),
                "result": ("json", False),
            },
            ("clientGroupID", "clientID", "mutationID"),
        ),
        ("app", "permissions"): (
            {"lock": ("boolean", True), "permissions": ("json", False), "hash": ("text", False)},
            ("lock",),
        ),
    }


@pytest.mark.parametrize("table", [ITEM, *required_tables("app", 0)], ids=lambda table: table.name)
def test_every_unique_index_is_over_columns_that_are_never_null(table: Table) -> None:
    create, index = (change["spec"] for change in table.create())
    assert isinstance(create, dict)
    assert isinstance(index, dict)
    assert all(create["columns"][column]["notNull"] for column in index["columns"])


def test_an_index_takes_no_tables_name() -> None:
    """zero-cache keeps all in one SQLite file, where tables and indexes share one namespace."""
    database = sqlite3.connect(":memory:")
    names = ("item", "item_key", "key", "item_pkey", "permissions", "app", "permissions_key")
    tables = [mapped_table(name, [("id", "string", False)], ("id",)) for name in names]
    for table in (*required_tables("app", 0), *tables):
        for change in table.create():
            spec: Any = change["spec"]
            prefix = "" if spec["schema"] == "public" else f"{spec['schema']}."
            if change["tag"] == "create-table":
                database.execute(f'CREATE TABLE "{prefix}{spec["name"]}" ({", ".join(spec["columns"])})')
            else:
                columns = ", ".join(spec["columns"])
                database.execute(f'CREATE INDEX "{prefix}{spec["name"]}" ON "{prefix}{spec["tableName"]}" ({columns})')
    database.close()
