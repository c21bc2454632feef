"""Documents of 12 MB, whose events are beyond 16 MB, and replies that are beyond what a message may be."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification
from changesource.sources.mongodb.feed import ChangeCursor
from tests.conftest import MongoServer
from tests.harness import app
from tests.harness.app import fill
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
LARGE = 12 * 1024 * 1024


def text(size: int, seed: int) -> str:
    """Return a text of so many characters that no two seeds share."""
    block = "".join(random.Random(seed).choices(string.ascii_letters, k=1024))
    return (block * (size // 1024 + 1))[:size]


# A table that needs the items' pre-images: an event holds two of 12 MB then.
TAG: dict[str, Any] = {
    "collection": "items",
    "columns": {"id": {"type": "string", "path": "_id"}, "at": {"type": "number", "path": "at"}},
    "primaryKey": ["id", "at"],
    "pipeline": [{"$unwind": {"path": "$tags", "includeArrayIndex": "at"}}],
    "filter": {"name": {"$ne": "small"}},
    "idType": "string",
}


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    fill(mongo, 5, others=5)
    oracle = [{"$match": TAG["filter"]}, *TAG["pipeline"], {"$project": {"_id": 0, "id": "$_id", "at": 1}}]
    monkeypatch.setitem(app.PIPELINES, "tag", ("items", oracle))
    monkeypatch.setitem(app.COLUMNS, "tag", list(TAG["columns"]))
    monkeypatch.setitem(app.KEYS, "tag", TAG["primaryKey"])
    tables = read_specification({"tables": {**app.MAPPINGS["tables"], "tag": TAG}})
    made = Whole(mongodb.uri, mongo, mapping=CompiledMapping.compile(tables, mongo.name), snapshot_batch=3)
    yield made
    await made.close()


@pytest.fixture
def fragments(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which (fragment, of) of an event the server sent, of those that it split into several."""
    found: list[tuple[int, int]] = []
    read = ChangeCursor.more

    async def noting(self: ChangeCursor, wait_ms: int) -> Sequence[Any]:
        batch = await read(self, wait_ms)
        parts = [raw["splitEvent"] for raw in batch if "splitEvent" in raw]
        found.extend((part["fragment"], part["of"]) for part in parts if part["of"] > 1)
        return batch

    monkeypatch.setattr(ChangeCursor, "more", noting)
    return found


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_documents_of_12_mb(
    whole: Whole, mongo: Database[Any], fragments: list[tuple[int, int]], watched: bool
) -> None:
    """In the snapshot, inserted, updated (the event holds the new text and the whole document) and deleted."""
    items = mongo["items"]
    items.insert_one({"_id": "there", "name": text(LARGE, 1)})
    replica = whole.replica()
    await replica.sync()
    await whole.compare(replica)

    def write() -> None:
        items.insert_one({"_id": "new", "name": text(LARGE, 2)})
        items.update_one({"_id": "there"}, {"$set": {"name": text(LARGE, 3)}})
        items.update_one({"_id": "item-1"}, {"$set": {"name": "small"}})
        items.update_one({"_id": "there"}, {"$set": {"tags": ["a", "b"]}})
        items.delete_one({"_id": "new"})
        items.insert_one({"_id": "last", "name": text(LARGE, 4)})

    if watched:
        async with whole.watched(), replica.connection() as connection:
            await whole.settle(connection)
            await asyncio.to_thread(write)
            await whole.settle(connection)
    else:
        await asyncio.to_thread(write)
        async with replica.connection() as connection:
            await whole.settle(connection)
    assert len(replica.model.rows("item")[("there",)]["name"]) == LARGE
    # The update's event was in fact split, and every part of it came.
    assert len(fragments) > 1
    assert {fragment for fragment, _ in fragments} == set(range(1, fragments[0][1] + 1))


async def test_a_reply_beyond_the_message_limit(whole: Whole, mongo: Database[Any], mongodb: MongoServer) -> None:
    """A hundred documents of 600 KB at once: 60 MB of events, which the server may put into one reply."""
    replica = whole.replica()
    await replica.sync()

    def write(seed: int) -> None:
        for start in range(0, 100, 20):
            documents = [{"_id": f"{seed}-{n}", "name": text(600_000, seed + n)} for n in range(start, start + 20)]
            mongo["items"].insert_many(documents)

    await asyncio.to_thread(write, 100)
    async with replica.connection() as connection:
        await whole.settle(connection)
    await asyncio.to_thread(mongo["items"].delete_many, {"_id": {"$regex": "^100-"}})
    async with whole.watched(), replica.connection() as connection:
        await whole.settle(connection)
        await asyncio.to_thread(write, 300)
        await whole.settle(connection)
