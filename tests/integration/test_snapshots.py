"""Snapshots of many collections, and of several replicas, from MongoDB while writers never stop."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import Specification
from changesource.services.turns import Turns
from tests.conftest import MongoServer
from tests.harness.chat import MESSAGE
from tests.harness.link import Replica
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
COLLECTIONS, DOCUMENTS = 16, 120
NAMES = [f"m{number:02}" for number in range(COLLECTIONS)]


@contextmanager
def writing(database: Database[Any], seed: int) -> Iterator[None]:
    """Insert, change and delete documents of all collections from a thread, for as long as the context lasts."""
    stop = threading.Event()

    def write() -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            collection, key = database[chance.choice(NAMES)], f"{chance.randrange(DOCUMENTS * 2):04}"
            if chance.random() < 0.3:
                collection.delete_one({"_id": key})
            else:
                collection.update_one({"_id": key}, {"$set": {"body": f"{chance.random()}"}}, upsert=True)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def held(database: Database[Any]) -> dict[str, dict[object, object]]:
    return {name: {document["_id"]: document["body"] for document in database[name].find()} for name in NAMES}


def shown(replica: Replica) -> dict[str, dict[object, object]]:
    return {name: {key[0]: row["body"] for key, row in replica.model.rows(name).items()} for name in NAMES}


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    """Many collections, read in small batches."""
    for name in NAMES:
        mongo[name].insert_many([{"_id": f"{number:04}", "body": "old"} for number in range(DOCUMENTS)])
    tables = tuple(replace(MESSAGE, name=name, collection=name) for name in NAMES)
    mapping = CompiledMapping.compile(Specification(tables), mongo.name)
    made = Whole(mongodb.uri, mongo, mapping=mapping, snapshot_batch=25)
    yield made
    await made.close()


@pytest.mark.parametrize("catch_up", [0.05, 300.0])
async def test_many_collections_under_writers(whole: Whole, catch_up: float) -> None:
    """Read by several cursors at once, in several rounds or one."""
    whole.limits = replace(whole.limits, catch_up=catch_up, turns=Turns(4))
    replica = whole.replica()
    with writing(whole.database, seed=3):
        await replica.sync()
    async with replica.connection() as connection:
        await connection.until(lambda: shown(replica) == held(whole.database))
    assert replica.model.reset is None
