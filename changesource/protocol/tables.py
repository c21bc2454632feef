"""Tables as zero-cache is told of them, and the three that every replica must have besides the mapped ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

DataType = Literal["text", "float8", "int8", "boolean", "json"]

# Zero's numbers are doubles: an int8 column would hand out integers that its queries refuse.
DATA_TYPES: dict[str, DataType] = {"string": "text", "number": "float8", "boolean": "boolean", "json": "json"}


@dataclass(frozen=True)
class Column:
    """One column: ``data_type`` is PostgreSQL's name of its type."""

    name: str
    data_type: DataType
    not_null: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the replica; ``key`` names the columns of its row key."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def relation(self) -> dict[str, object]:
        """Return the ``relation`` of a data change. ``keyColumns`` is the older name, sent for older readers."""
        return {
            "schema": self.schema,
            "name": self.name,
            "rowKey": {"columns": list(self.key)},
            "keyColumns": list(self.key),
        }

    def create(self) -> list[dict[str, object]]:
        """Return the ``create-table`` and ``create-index`` changes; without a unique index zero-cache skips it."""
        spec = {
            "schema": self.schema,
            "name": self.name,
            "primaryKey": list(self.key),
            "columns": {
                column.name: {"pos": position, "dataType": column.data_type, "notNull": column.not_null}
                for position, column in enumerate(self.columns, start=1)
            },
        }
        index = {
            "schema": self.schema,
            "tableName": self.name,
            # SQLite has one namespace for tables and indexes; no table's name holds a dot.
            "name": f"{self.name}.key",
            "unique": True,
            "columns": dict.fromkeys(self.key, "ASC"),
        }
        return [
            {"tag": "create-table", "spec": spec, "metadata": {"rowKey": {"columns": list(self.key)}}},
            {"tag": "create-index", "spec": index},
        ]


def mapped_table(name: str, columns: Iterable[tuple[str, str, bool]], key: tuple[str, ...]) -> Table:
    """Return the table of a mapping; ``columns`` are (name, Zero type, optional)."""
    return Table(
        "public",
        name,
        tuple(Column(column, DATA_TYPES[kind], not optional) for column, kind, optional in columns),
        key,
    )


def required_tables(app_id: str, shard_num: int) -> tuple[Table, Table, Table]:
    """Return ``clients``, ``mutations`` and ``permissions``, which zero-cache checks after the initial sync."""
    shard = f"{app_id}_{shard_num}"
    clients = Table(
        shard,
        "clients",
        (
            Column("clientGroupID", "text", True),
            Column("clientID", "text", True),
            Column("lastMutationID", "int8"),
            Column("userID", "text"),
        ),
        ("clientGroupID", "clientID"),
    )
    mutations = Table(
        shard,
        "mutations",
        (
            Column("clientGroupID", "text", True),
            Column("clientID", "text", True),
            Column("mutationID", "int8", True),
            Column("mutation", "json"),
            Column("result", "json"),
        ),
        ("clientGroupID", "clientID", "mutationID"),
    )
    permissions = Table(
        app_id,
        "permissions",
        (Column("lock", "boolean", True), Column("permissions", "json"), Column("hash", "text")),
        ("lock",),
    )
    return clients, mutations, permissions
