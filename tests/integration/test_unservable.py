"""What is published is valid no more, as with a release that refuses what an older one took."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.deployment import Deployment, ends_with
from tests.harness.reader import Reader

pytestmark = pytest.mark.django_db(transaction=True)
Change = Callable[[str], str]


def with_keys(**keys: object) -> Change:
    """Gives a table of the specification these keys."""

    def change(text: str) -> str:
        specification = json.loads(text)
        specification["tables"]["item"].update(keys)
        return json.dumps(specification)

    return change


REFUSED, UNREADABLE = with_keys(filter={"name": {"$unknown": 1}}), with_keys(colour="red")
KINDS = pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(REFUSED, "operator $unknown is not", id="refused"),
        pytest.param(UNREADABLE, "colour: is not a known key", id="unreadable"),
    ],
)


def spoil(place: Deployment, change: Change, *, again: bool = False) -> None:
    """Change what is published; ``again``, as if it had been published so anew."""
    path = place.environment["DATABASE_URL"].removeprefix("sqlite:///")
    table, columns = "changesource_mappingrevision", "specification, fingerprints, created_at, created_by, note"
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        if again:
            database.execute(f"INSERT INTO {table} ({columns}, content_hash) SELECT {columns}, '' FROM {table}")  # noqa: S608
        ((number, text),) = database.execute(
            f"SELECT number, specification FROM {table} ORDER BY number DESC LIMIT 1"  # noqa: S608
        )
        statement = f"UPDATE {table} SET specification = ?, content_hash = 'another' WHERE number = ?"  # noqa: S608
        database.execute(statement, [change(text), number])


def imported(place: Deployment) -> str:
    """Import the mappings; what the command says."""
    file = place.directory / "mappings.json"
    file.write_text(json.dumps(MAPPINGS))
    return place.manage("importmappings", str(file))


async def synced(place: Deployment) -> Reader:
    """A replica that was served before, and its server ended."""
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url)
    await reader.sync()
    assert server.stop() == 0
    return reader


async def goes_on(reader: Reader, place: Deployment, mongo: Database[Any]) -> None:
    """It is served again, and need not sync anew."""
    server = await asyncio.to_thread(place.server)
    reader.stream_url = server.stream_url
    mongo["items"].insert_one({"_id": "new", "name": "new"})
    await reader.follow(lambda: ("new",) in reader.model.rows("item"))


@KINDS
async def test_an_import_mends_it(
    deployment: DeploymentFactory, mongo: Database[Any], change: Change, why: str
) -> None:
    fill(mongo, 5, others=5)
    place = deployment()
    imported(place)
    reader = await synced(place)
    spoil(place, change)
    await asyncio.to_thread(ends_with, place, "ZS110", why)
    # By what is published; what the replica has is not looked at.
    assert "sync anew: reader/0" in imported(place)
    await goes_on(reader, place, mongo)


@KINDS
async def test_a_corrected_file_mends_what_came_from_it(
    deployment: DeploymentFactory, mongo: Database[Any], change: Change, why: str
) -> None:
    fill(mongo, 5, others=5)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    reader = await synced(place)
    spoil(place, change)
    await asyncio.to_thread(ends_with, place, "ZS110", why)
    corrected = json.loads(json.dumps(MAPPINGS))
    corrected["tables"]["item"]["description"] = "Another content."
    place.configure(mappings=corrected)
    await goes_on(reader, place, mongo)


@KINDS
async def test_a_process_that_runs_keeps_to_what_it_served(
    deployment: DeploymentFactory, mongo: Database[Any], change: Change, why: str
) -> None:
    """Another process may be of another release, and publish what this one refuses."""
    fill(mongo, 5, others=5)
    place = deployment()
    imported(place)
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url)
    await reader.sync()
    spoil(place, change, again=True)
    says = "what is published is not valid here, keeping the mappings"
    await asyncio.to_thread(server.wait_until, lambda: says in server.log_text(), "it to be noticed", 20)
    watching = server.log_text().count(" watching ")
    for number in range(8):
        name = f"new-{number}"
        mongo["items"].insert_one({"_id": name, "name": name})
        await reader.follow(lambda name=name: (name,) in reader.model.rows("item"))  # type: ignore[misc]
        assert server.answers("/readyz")
    log = server.log_text()
    assert why in log
    assert log.count(says) == 1
    assert log.count(" watching ") == watching
    assert "watcher retries" not in log
