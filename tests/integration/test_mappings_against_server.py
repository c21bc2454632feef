"""Random mappings of random documents under random writes: what arrives is what the server's own aggregate says."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import Specification
from changesource.protocol.watermark import Watermark
from tests.conftest import MongoServer
from tests.harness.whole import Whole
from tests.harness.zoo import Zoo, random_table, rows_of

# The stand-in leaves a value that has no fields as it is where $set adds a field below it. MongoDB puts a
# document of the new field in its place (manual: "$addFields", "Overwriting an existing field"), which
# unit/test_pipelines.py holds.
pytestmark = pytest.mark.django_db(transaction=True)
TABLES = 8


async def run(
    mongodb: MongoServer, mongo: Database[Any], seed: int, *, history: bool, images: str, steps: int, watched: bool
) -> None:
    zoo = Zoo(mongodb.client, mongo.name, seed)
    await asyncio.to_thread(zoo.fill, 20)
    chosen = random.Random(seed)
    tables = [random_table(chosen, f"t{n}", history=history and n % 2 == 0) for n in range(TABLES)]
    mapping = CompiledMapping.compile(Specification(tuple(tables)), mongo.name)
    whole = Whole(mongodb.uri, mongo, mapping=mapping, post_images=images)

    async def write(count: int) -> None:
        for _ in range(count):
            await asyncio.to_thread(zoo.step)

    try:
        await whole.source.prepare(mapping.needs, mapping.with_history)
        replica = whole.replica()
        writer = asyncio.create_task(write(steps // 3))
        await replica.sync()
        async with whole.watched(report=lambda fault: None) if watched else asyncio.timeout(None):
            async with replica.connection() as connection:
                await writer
                await write(steps - steps // 3)
                end = await whole.source.barrier("end")
                await connection.until(lambda: Watermark.parse(replica.model.last_watermark).cluster_time >= end, 60)
                assert replica.model.reset is None
                # A replica is exact after any commit once nothing is written: not even a second barrier is needed.
                for table in tables:
                    servers = await asyncio.to_thread(rows_of, zoo.database, table)
                    assert replica.model.rows(table.name) == servers, table
        assert zoo.writes.total() - zoo.writes["refused"] - zoo.writes["aborted"] > steps / 2
    finally:
        await whole.close()


CASES = [
    (1, True, "auto", True),
    (2, True, "auto", False),
    (3, False, "off", True),
    (4, False, "auto", True),
]


@pytest.mark.parametrize(("seed", "history", "images", "watched"), CASES)
async def test_what_arrives_is_what_aggregate_gives(
    mongodb: MongoServer, mongo: Database[Any], seed: int, history: bool, images: str, watched: bool
) -> None:
    await run(mongodb, mongo, seed, history=history, images=images, steps=150, watched=watched)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
async def test_what_arrives_is_what_aggregate_gives_with_more_seeds(
    mongodb: MongoServer, mongo: Database[Any], seed: int
) -> None:
    history = seed % 3 != 0
    images = "auto" if history else ("off", "auto")[seed % 2]
    await run(mongodb, mongo, seed, history=history, images=images, steps=400, watched=seed % 2 == 0)
