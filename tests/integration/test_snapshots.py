"""Snapshots of many collections, and of several replicas, from MongoDB while writers never stop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import Specification
from changesource.services.turns import Turns
from changesource.sources.base import Batch
from changesource.sources.mongodb import copying
from changesource.sources.mongodb.copying import MongoCopy
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


async def test_many_replicas_at_once_under_writers(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is exact, and what several read is not decoded by each."""
    read = Counter({"read": 0, "given": 0})
    given, documents = MongoCopy.batches, copying.read_documents

    async def counted(self: MongoCopy, not_before: int) -> AsyncGenerator[Batch, None]:
        async with aclosing(given(self, not_before)) as batches:
            async for batch in batches:
                read["given"] += 1
                yield batch

    def counting(raw: bytes, options: Any) -> Any:
        found = documents(raw, options)
        read["read"] += len(found) > 1  # the last document of a reply may be read alone
        return found

    monkeypatch.setattr(MongoCopy, "batches", counted)
    monkeypatch.setattr(copying, "read_documents", counting)
    whole.limits = replace(whole.limits, turns=Turns(4))
    replicas = [whole.replica(app_id=f"app{number}") for number in range(6)]
    with writing(whole.database, seed=4):
        await asyncio.gather(*(replica.sync() for replica in replicas))
    assert read["given"] >= 6 * COLLECTIONS * DOCUMENTS // 25
    # What is written meanwhile makes replies differ.
    assert read["read"] < read["given"]
    assert whole.limits.shared_rows.size == 0
    for replica in replicas:
        async with replica.connection() as connection:
            await connection.until(lambda replica=replica: shown(replica) == held(whole.database))  # type: ignore[misc]
        assert replica.model.reset is None
