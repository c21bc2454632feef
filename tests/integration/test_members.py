"""Replica sets with a member that lags, and reads that a URI sends there: nothing older than T0 is copied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from changesource.protocol.watermark import Watermark
from changesource.stream.events import to_cluster_time
from devtools.secantusdb import SecantusDB
from tests.harness.app import fill
from tests.harness.members import LaggingPair, running
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
MAPPED = ("items", "notes", "rooms", "users")


@pytest.fixture
def mongo(secantusdb: Callable[..., SecantusDB]) -> Iterator[Database[Any]]:
    """A database of a server of the test's own, before which the proxies can stand."""
    with MongoClient[Any](secantusdb().uri) as client:
        yield client["own"]


@pytest.fixture
def pair(mongo: Database[Any]) -> Iterator[LaggingPair]:
    """The secondary has what was there at first; then much is changed, so that every table is another one."""
    fill(mongo, 30, others=20)
    stale = mongo.client["own_stale"]
    for name in MAPPED:
        stale[name].insert_many(list(mongo[name].find()))
    mongo["items"].delete_many({"_id": {"$lt": "item-2"}})
    mongo["items"].update_many({}, {"$set": {"name": "newer"}})
    mongo["rooms"].update_many({}, {"$set": {"kind": "chat", "title": "newer"}})
    mongo["users"].delete_one({})
    mongo["notes"].update_many({}, {"$set": {"body": "newer"}})
    host, port = mongo.client.address or ("", 0)
    made = LaggingPair(f"mongodb://{host}:{port}", mongo.name, stale.name)
    with running(made.primary, made.secondary):
        yield made


async def test_the_secondary_lags(pair: LaggingPair, mongo: Database[Any]) -> None:
    """What another client reads there is old: what follows could fail."""

    def names() -> set[str]:
        with MongoClient[Any](pair.uri) as client:
            return {document["name"] for document in client[mongo.name]["items"].find()}

    assert "newer" not in await asyncio.to_thread(names)
    assert pair.stale_reads == 1


async def test_a_snapshot_by_a_uri_that_reads_from_a_secondary_that_lags(
    pair: LaggingPair, mongo: Database[Any]
) -> None:
    """Every read of the copy waits for T0, whatever the URI says; what follows is read from the primary."""
    whole = Whole(pair.uri, mongo, snapshot_batch=7)
    replica = whole.replica()
    await replica.sync()
    await whole.compare(replica)
    began = Watermark.parse(replica.model.commits[0]).cluster_time
    # A sample of each collection, and the copy.
    assert len(pair.waited) == 2 * len(MAPPED)
    assert min(map(to_cluster_time, pair.waited)) == began
    async with replica.connection() as connection:
        await whole.settle(connection)
        mongo["items"].update_one({"_id": "item-5"}, {"$set": {"name": "newest"}})
        await whole.settle(connection)
    assert replica.model.rows("item")["item-5",]["name"] == "newest"
    assert pair.stale_reads == 0
    await whole.close()
