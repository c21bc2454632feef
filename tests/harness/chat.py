"""A small application for tests on the scripted source: three tables of two collections, and what they must hold.

``expected`` is the oracle: plain Python, written by hand, of which the mapper has no part.
"""

from __future__ import annotations

from typing import Any

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import ColumnSpec, Specification, TableSpec
from changesource.sources.scripted import State
from tests.harness.model import Key, ModelReplica, Row

DATABASE = "chat"
MESSAGE = TableSpec(
    name="message",
    collection="messages",
    columns=(
        ColumnSpec("id", "string", "_id"),
        ColumnSpec("body", "string", "body"),
        ColumnSpec("likes", "number", "stats.likes", optional=True),
        ColumnSpec("tags", "json", "tags", optional=True),
    ),
    primary_key=("id",),
    id_type="string",
)
CHAT = TableSpec(
    name="chat",
    collection="rooms",
    columns=(ColumnSpec("id", "number", "_id"), ColumnSpec("title", "string", "title", optional=True)),
    primary_key=("id",),
    filter={"kind": "chat"},
    id_type="number",
)
CHANNEL = TableSpec(
    name="channel",
    collection="rooms",
    columns=(
        ColumnSpec("id", "number", "_id"),
        ColumnSpec("title", "string", "title", optional=True),
        ColumnSpec("open", "boolean", "open", optional=True),
    ),
    primary_key=("id",),
    filter={"kind": "channel"},
    id_type="number",
)
TABLES = (MESSAGE, CHAT, CHANNEL)
PUBLICATIONS = {"talk": ("message",), "places": ("chat", "channel")}


def compiled(*tables: TableSpec) -> CompiledMapping:
    """Return the mapping of these tables (all three where none is named)."""
    return CompiledMapping.compile(Specification(tables or TABLES, PUBLICATIONS), DATABASE)


def expected(state: State, tables: tuple[str, ...] = ("message", "chat", "channel")) -> dict[str, dict[Key, Row]]:
    """Return the rows that the tables must have when the collections hold ``state``."""
    rows: dict[str, dict[Key, Row]] = {
        "message": {(_id,): _message(document) for _id, document in state.get("messages", {}).items()},
        "chat": {
            (_id,): {"id": _id, "title": document.get("title")}
            for _id, document in state.get("rooms", {}).items()
            if document.get("kind") == "chat"
        },
        "channel": {
            (_id,): {"id": _id, "title": document.get("title"), "open": document.get("open")}
            for _id, document in state.get("rooms", {}).items()
            if document.get("kind") == "channel"
        },
    }
    return {table: rows[table] for table in tables}


def shown(replica: ModelReplica, tables: tuple[str, ...] = ("message", "chat", "channel")) -> dict[str, dict[Key, Row]]:
    """Return the rows that a replica has in these tables."""
    return {table: replica.rows(table) for table in tables}


def _message(document: dict[str, Any]) -> Row:
    return {
        "id": document["_id"],
        "body": document["body"],
        "likes": document.get("stats", {}).get("likes"),
        "tags": document.get("tags"),
    }
