"""The way of the data through a real server, read as zero-cache reads it, while writers never stop."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, PIPELINES, Writers, everything, fill, last_write
from tests.harness.reader import Reader

ITEMS = 50_000
WRITES = 5_000


async def catch_up(reader: Reader, database: Database[Any], tables: list[str] | None = None) -> None:
    """Read until a last write has arrived, and compare with MongoDB. All writers must have stopped."""
    table = "item" if tables is None or "item" in tables else "note"
    key = await asyncio.to_thread(last_write, database, table)
    await reader.follow(lambda: key in reader.model.rows(table))
    for name, rows in (await asyncio.to_thread(everything, database, tables)).items():
        assert reader.model.rows(name) == rows, name


@pytest.fixture
def rising() -> Any:
    """Checks that watermarks rise strictly."""

    def check(reader: Reader) -> None:
        assert all(a < b for a, b in itertools.pairwise(reader.model.commits))

    return check


@pytest.mark.slow
async def test_writers_during_the_snapshot_of_five_tables(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], rising: Any
) -> None:
    """At least 5,000 writes are acknowledged between the two barriers; nothing is lost."""
    fill(mongo, ITEMS)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    reader = Reader(server.stream_url)
    with Writers(mongodb.uri, mongo.name, items=ITEMS) as writers:
        before: dict[str, int] = {}

        async def pause(number: int) -> None:
            """Stop reading in mid-copy until enough was written: the server cannot have written Tb yet."""
            if number == 2:
                before.update(writers.counts)
            if number == 20:
                start = sum(before.values())
                while writers.total - start < WRITES and not writers.errors:
                    await asyncio.sleep(0.05)
                before["between"] = writers.total - start

        await reader.sync(pause)
        assert before["between"] >= WRITES
        assert all(writers.counts[kind] > before[kind] for kind in ("update", "delete", "insert", "transaction"))
        await reader.follow(lambda: len(reader.model.commits) > 20)
    await catch_up(reader, mongo)
    rising(reader)


async def test_two_replicas_with_different_publications_share_one_change_stream(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], rising: Any
) -> None:
    """Each gets its own tables; the server reads MongoDB's changes once."""
    fill(mongo, 500)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    people = Reader(server.stream_url, "people", ("people",))
    places = Reader(server.stream_url, "places", ("places",))
    await asyncio.gather(people.sync(), places.sync())
    with Writers(mongodb.uri, mongo.name, threads=2, items=500) as writers:
        await asyncio.gather(
            people.follow(lambda: writers.counts["transaction"] > 20),
            places.follow(lambda: writers.counts["transaction"] > 20),
        )
    await asyncio.gather(
        catch_up(people, mongo, ["user", "note"]), catch_up(places, mongo, ["chat", "channel", "item"])
    )
    for reader in (people, places):
        rising(reader)
    assert set(people.model.tables) & set(PIPELINES) == {"user", "note"}
