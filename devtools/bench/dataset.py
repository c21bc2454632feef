"""The data that every case measures: messages, whose rows take about 300 bytes, and how they are mapped.

Document ``n`` is always the same, so what reads a database and what makes frames beforehand give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.objectid import ObjectId

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification

DATABASE = "bench"
BARRIERS = "_zerosource"
# Updates go round the first so many documents.
UPDATED = 10_000
ROW_BYTES = 300

_MOMENT = datetime(2024, 5, 1, tzinfo=UTC)
_TEXT = ("Could you look at the release notes, please? I have put them where they were the last time. " * 3)[:205]


def collection(table: int) -> str:
    """Return the name of a collection, and of the table that shows it."""
    return f"messages{table}"


def document(number: int, likes: int | None = None) -> dict[str, Any]:
    """Return a document; ``likes`` is what an update changes."""
    return {
        "_id": ObjectId(number.to_bytes(12, "big")),
        "roomId": ObjectId((number % 500).to_bytes(12, "big")),
        "author": f"user {number % 50:02}",
        "text": _TEXT,
        "likes": number % 100 if likes is None else likes,
        "edited": number % 3 == 0,
        "sentAt": _MOMENT + timedelta(seconds=number),
    }


def updated(number: int) -> dict[str, Any]:
    """Return the document as an update leaves it."""
    return document(number, likes=1000 + number)


def shares(documents: int, tables: int) -> Iterator[tuple[str, range]]:
    """Give each collection, with the numbers of its documents."""
    size = documents // tables
    for table in range(tables):
        yield collection(table), range(table * size, documents if table == tables - 1 else (table + 1) * size)


def encoded(documents: int, tables: int) -> dict[str, list[bytes]]:
    """Return every collection's documents as BSON, in the order of ``_id``."""
    return {name: [bson.encode(document(n)) for n in numbers] for name, numbers in shares(documents, tables)}


def mappings(tables: int = 1) -> dict[str, Any]:
    """Return the mappings as a file holds them."""
    columns = {
        "id": {"type": "string", "path": "_id"},
        "roomId": {"type": "string", "path": "roomId"},
        "author": {"type": "string", "path": "author"},
        "text": {"type": "string", "path": "text"},
        "likes": {"type": "number", "path": "likes"},
        "edited": {"type": "boolean", "path": "edited"},
        "sentAt": {"type": "number", "path": "sentAt"},
    }
    one = {"columns": columns, "primaryKey": ["id"], "idType": "objectId"}
    return {"tables": {collection(n): {**one, "collection": collection(n)} for n in range(tables)}}


def compiled(tables: int = 1) -> CompiledMapping:
    """Return the mapping as the server compiles it."""
    return CompiledMapping.compile(read_specification(mappings(tables)), DATABASE)
