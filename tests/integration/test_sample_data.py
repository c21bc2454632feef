"""The sample data: loaded once, the same each time, and mapped without a fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from changesource import sample_data
from changesource.mapping.formats import read_specification
from changesource.mapping.json_reading import parse
from changesource.mapping.rows import Problem, compile_table
from devtools.secantusdb import SecantusDB

Document = dict[str, object]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database[Document]]:
    """An empty database, on TEST_MONGODB_URI or on a server of its own."""
    given = os.environ.get("TEST_MONGODB_URI")
    server = None if given else SecantusDB(tmp_path / "mongodb")
    if server is not None:
        server.start()
    try:
        client: MongoClient[Document] = MongoClient(given or server.uri, tz_aware=True)  # type: ignore[union-attr]
        with client:
            name = f"sample_{os.getpid()}"
            yield client[name]
            client.drop_database(name)
    finally:
        if server is not None:
            server.stop()


def content(database: Database[Document]) -> dict[str, list[Document]]:
    return {name: list(database[name].find().sort("_id")) for name in sorted(database.list_collection_names())}


def test_it_is_loaded_once_and_mapped_without_a_fault(database: Database[Document]) -> None:
    sample_data.load(database)
    first = content(database)
    assert {name: len(found) for name, found in first.items()} == {
        "accounts": 5,
        "messages": 300,
        "rooms": 12,
        "users": 20,
    }
    database["users"].delete_many({"admin": False})
    sample_data.load(database)
    assert database["users"].count_documents({}) == 1  # not empty, so left alone
    database["users"].drop()
    sample_data.load(database)
    assert content(database) == first

    spec = read_specification(parse(sample_data.MAPPINGS_FILE.read_bytes(), "sample"))
    rows = {}
    for table in spec.tables:
        compiled = compile_table(table)
        found = [row for document in first[table.collection] for row in compiled.rows(document)]
        assert not [problem for problem in found if isinstance(problem, Problem)]
        rows[table.name] = len(found)
    assert rows == {
        "user": 20,
        "chat": 4,
        "channel": 4,
        "group": 4,
        "message": 270,
        "systemMessage": 30,
        "account": 5,
        "accountMember": 20,
    }
