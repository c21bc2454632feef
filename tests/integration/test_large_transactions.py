"""One MongoDB transaction beyond every bound, read in small replies, arrives as one Zero transaction."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import MongoServer
from tests.harness.app import fill
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
OPERATIONS = 5000


def transaction(database: Database[Any], name: str) -> None:
    """Insert, update and delete 5,000 times in one transaction, over two collections."""
    with database.client.start_session() as session, session.start_transaction():
        for start in range(0, OPERATIONS - 1000, 500):
            names = [{"_id": f"{name}-{n}", "name": name} for n in range(start, start + 500)]
            database["items"].insert_many(names, session=session)
        for start in range(0, 500, 100):
            few = {"_id": {"$in": [f"{name}-{n}" for n in range(start, start + 100)]}}
            database["items"].update_many(few, {"$set": {"name": "changed"}}, session=session)
            database["items"].delete_many(few, session=session)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_5000_operations_in_replies_of_100_events(
    mongodb: MongoServer, mongo: Database[Any], watched: bool
) -> None:
    """Other writes come before and after; nobody sees a part of it, and nothing else is in it."""
    fill(mongo, 20, others=10)
    whole = Whole(mongodb.uri, mongo, feed_batch=100)
    replica = whole.replica()
    await replica.sync()
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(whole.watched())
        connection = await stack.enter_async_context(replica.connection())
        for name in ("one", "two"):
            await whole.settle(connection)
            mongo["items"].insert_one({"_id": f"before-{name}", "name": name})
            await asyncio.to_thread(transaction, mongo, name)
            mongo["items"].insert_one({"_id": f"after-{name}", "name": name})
            await whole.settle(connection)
    large = [changes for _, changes in replica.model.transactions[1:] if changes > 100]
    assert large == [OPERATIONS, OPERATIONS]
    assert replica.model.rollbacks == 0
    await whole.close()
