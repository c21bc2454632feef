"""The text that zerosource was made from, taken literally: its schema, its mapping and its environment serve."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymongo.database import Database

from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.application import application
from tests.harness.deployment import Deployment
from tests.harness.reader import Reader

pytestmark = pytest.mark.slow
# What `createTableSchema({...})` is given, as JSON, and the mapping beside it.
SCHEMA = """{
  "tableName": "message",
  "columns": {"id": {"type": "string"}, "content": {"type": "string"}},
  "primaryKey": ["id"]
}"""
MAPPING = """{
"message": {
"collection": "messages",
"fields": {
"id": "_id",
"content": "content"
}
}
}"""
DOCUMENT = {"_id": "123", "content": "Hello"}
EVENT = {"type": "insert", "table": "message", "key": {"id": "123"}, "value": {"id": "123", "content": "Hello"}}


@pytest.fixture
def app() -> Iterator[str]:
    """Where an application answers at /schema and /table-mappings."""
    with application({"/schema": SCHEMA, "/table-mappings": MAPPING}) as port:
        yield f"http://127.0.0.1:{port}"


def check(place: Deployment, mongo: Database[Any]) -> None:
    """A document that is there before, and one that comes after, have the rows that the text shows."""
    mongo["messages"].insert_one({"_id": "122", "content": "Before", "other": 1})
    reader = Reader(place.server().stream_url)
    asyncio.run(reader.sync())
    assert list(reader.model.rows("message").values()) == [{"id": "122", "content": "Before"}]
    mongo["messages"].insert_one(DOCUMENT)
    asyncio.run(reader.follow(lambda: len(reader.model.rows("message")) == 2))
    key, value = EVENT["key"], EVENT["value"]
    assert isinstance(key, dict)
    assert reader.model.rows("message")[tuple(key.values())] == value


def named(mongodb: MongoServer, mongo: Database[Any]) -> dict[str, str]:
    """The one variable that both deployments of the text have."""
    return {
        "MONGODB_URI": urlsplit(mongodb.uri)._replace(path=f"/{mongo.name}").geturl(),
        "MONGODB_DATABASE": "",
    }


def test_its_environment_for_docker(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], app: str
) -> None:
    urls = {"SCHEMA_URL": f"{app}/schema", "TABLE_MAPPINGS_URL": f"{app}/table-mappings"}
    check(deployment(**named(mongodb, mongo), **urls), mongo)


def test_its_environment_for_kubernetes(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], tmp_path: Path
) -> None:
    """There MONGODB_URI is all: tables are imported, or made in the admin."""
    place = deployment(**named(mongodb, mongo))
    for name, content in (("schema.json", SCHEMA), ("mappings.json", MAPPING)):
        (tmp_path / name).write_text(content)
    files = (str(tmp_path / "mappings.json"), "--schema", str(tmp_path / "schema.json"))
    assert place.manage("importmappings", *files) == "made: message\n"
    check(place, mongo)
    shown = json.dumps(EVENT["value"], separators=(",", ":"))
    assert f"row     {shown}\n" in place.manage("previewmapping", "message", "--id", "123")
