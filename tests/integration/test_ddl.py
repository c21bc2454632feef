"""Events other than data: collections and databases that are dropped, renamed, put into place and made again.

Whenever it happens, the replica ends equal to MongoDB, watermarks rise (the model replica sees to it), and nobody is
reset.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo.database import Database

from changesource.mapping.compiled import ignore_fault
from tests.conftest import MongoServer
from tests.harness.app import fill, item, last_write
from tests.harness.failpoints import catalog_held
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
Act = Callable[[Database[Any]], object]
ITEMS = 60


def staged(database: Database[Any]) -> Any:
    """Return a collection that no table shows, with items of which some have ids that are in use."""
    chance = random.Random(5)
    staging = database["staging"]
    staging.insert_many([item(n, chance) for n in range(ITEMS // 2, ITEMS + 20)])
    return staging


def drop(database: Database[Any]) -> None:
    database.drop_collection("items")


def drop_and_recreate(database: Database[Any]) -> None:
    database.drop_collection("items")
    database["items"].insert_many([{"_id": f"item-{n}", "name": "again"} for n in range(10, 90, 7)])


def drop_database(database: Database[Any]) -> None:
    database.client.drop_database(database.name)


def drop_database_and_refill(database: Database[Any]) -> None:
    """The stream is invalidated, opened anew, and goes on with what is written then."""
    database.client.drop_database(database.name)
    fill(database, 20, others=10, seed=9)
    database["items"].delete_one({"_id": "item-3"})


def rename_away(database: Database[Any]) -> None:
    database["items"].rename("elsewhere")
    database["elsewhere"].insert_one({"_id": "unseen", "name": "x"})


def rename_into_place(database: Database[Any]) -> None:
    staging = staged(database)
    database["items"].rename("elsewhere")
    staging.rename("items")


def rename_over(database: Database[Any]) -> None:
    staged(database).rename("items", dropTarget=True)


def out(database: Database[Any]) -> None:
    staging = staged(database)
    with catalog_held(database):
        staging.aggregate([{"$set": {"name": "out"}}, {"$out": "items"}])


def out_of_one_collection_into_two_tables(database: Database[Any]) -> None:
    pipeline = [{"$match": {"_id": {"$lt": 15}}}, {"$set": {"title": "out", "kind": "channel"}}, {"$out": "rooms"}]
    with catalog_held(database):
        database["rooms"].aggregate(pipeline)


ACTS = (
    drop,
    drop_and_recreate,
    drop_database,
    drop_database_and_refill,
    rename_away,
    rename_into_place,
    rename_over,
    out,
    out_of_one_collection_into_two_tables,
)
each_act = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)


def write_around(database: Database[Any], name: str) -> None:
    """Write to what the acts change, so that they have changes of documents on both sides."""
    database["items"].insert_one({"_id": name, "name": name})
    database["items"].update_one({"_id": f"item-{ITEMS - 1}"}, {"$set": {"name": name}})
    database["items"].delete_one({"_id": "item-10"})
    people = [{"name": "a", "since": len(name)}, {"name": name}]
    database["rooms"].update_one({"_id": 3}, {"$set": {"kind": "chat", "title": name, "people": people}}, upsert=True)


def act_among_writes(act: Act, database: Database[Any]) -> None:
    write_around(database, "before")
    act(database)
    write_around(database, "after")


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    """The application, read in small batches."""
    fill(mongo, ITEMS, others=20)
    made = Whole(mongodb.uri, mongo, snapshot_batch=25)
    yield made
    await made.close()


@each_act
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_while_streaming(whole: Whole, act: Act, watched: bool) -> None:
    """Twice on one connection: what follows the first is as sound as the first."""
    replica = whole.replica()
    await replica.sync()
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(whole.watched())
        connection = await stack.enter_async_context(replica.connection())
        await whole.settle(connection)
        if watched:
            await connection.until(lambda: connection.session.tallies.sent > 0)
        await asyncio.to_thread(act_among_writes, act, whole.database)
        await whole.settle(connection)
        await asyncio.to_thread(write_around, whole.database, "later")
        await whole.settle(connection)
    # Where it stands is a place to go on from.
    async with replica.connection() as connection:
        await whole.settle(connection)


@each_act
async def test_while_the_replica_is_away(whole: Whole, act: Act) -> None:
    replica = whole.replica()
    await replica.sync()
    async with replica.connection() as connection:
        await whole.settle(connection)
    await asyncio.to_thread(act_among_writes, act, whole.database)
    async with replica.connection() as connection:
        await whole.settle(connection)
    async with replica.connection() as connection:
        await whole.settle(connection)


@each_act
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param('"create-table"', marks=pytest.mark.slow, id="before the copy"),
        pytest.param('"backfill"', id="between collections"),
    ],
)
async def test_during_the_snapshot(whole: Whole, act: Act, frame: str) -> None:
    """``items`` is copied first; so it is changed before it was, or after."""
    replica = whole.replica()
    acted = False

    async def on_frame(sent: str) -> None:
        nonlocal acted
        if frame in sent and not acted:
            acted = True
            await asyncio.to_thread(act_among_writes, act, whole.database)

    replica.on_frame = on_frame
    await replica.sync()
    assert acted
    await whole.compare(replica)
    async with replica.connection() as connection:
        await whole.settle(connection)


@pytest.mark.parametrize("act", [drop_and_recreate, rename_over, drop_database], ids=lambda act: act.__name__)
async def test_within_the_copy_of_a_collection(whole: Whole, act: Act) -> None:
    """The collection goes while a cursor reads it: whatever the cursor gives then, the replay mends."""
    whole.database["items"].insert_many([{"_id": f"more-{n:04}", "name": "x"} for n in range(1100)])
    replica = whole.replica()
    acted = False

    async def on_frame(sent: str) -> None:
        nonlocal acted
        if '"backfill"' in sent and not acted:
            acted = True
            await asyncio.to_thread(act_among_writes, act, whole.database)

    replica.on_frame = on_frame
    await replica.sync()
    await whole.compare(replica)
    async with replica.connection() as connection:
        await whole.settle(connection)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_the_barrier_collection_is_renamed_into_place(whole: Whole, watched: bool) -> None:
    """Whoever does that: the table shows what is there then, and barriers go on in a new collection."""
    replica = whole.replica()
    await replica.sync()

    def rename() -> None:
        whole.database["_zerosource"].insert_one({"_id": "among them", "name": "x"})
        whole.database["_zerosource"].rename("items", dropTarget=True)

    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(whole.watched(report=ignore_fault))
        connection = await stack.enter_async_context(replica.connection())
        await asyncio.to_thread(rename)
        note = await asyncio.to_thread(last_write, whole.database, "note")
        await connection.until(lambda: note in replica.model.rows("note") and not replica.model.open)
        # Barriers have no name, which the table wants.
        await connection.until(lambda: replica.model.rows("item").keys() == {("among them",)})
    async with replica.connection() as connection:
        note = await asyncio.to_thread(last_write, whole.database, "note")
        await connection.until(lambda: note in replica.model.rows("note") and not replica.model.open)
    assert replica.model.rows("item").keys() == {("among them",)}
    assert replica.model.reset is None


async def test_a_replica_of_other_tables_notices_nothing(whole: Whole) -> None:
    """A rename into place of another publication's collection brings it not one frame."""
    replica = whole.replica("people")
    await replica.sync()
    async with whole.watched(), replica.connection() as connection:
        await whole.settle(connection)
        await asyncio.to_thread(act_among_writes, rename_over, whole.database)
        sent = len(replica.frames)
        await whole.settle(connection)
        changes = [frame for frame in replica.frames[sent:] if frame.startswith('["data"')]
        assert len(changes) == 1, "the last write"


async def test_the_watcher_goes_on_after_the_database_was_dropped(whole: Whole) -> None:
    """Later changes come over the layer, not by each replica's own reading."""
    replica = whole.replica()
    await replica.sync()
    async with whole.watched(), replica.connection() as connection:
        await whole.settle(connection)
        await asyncio.to_thread(drop_database_and_refill, whole.database)
        await whole.settle(connection)
        sent = connection.session.tallies.sent
        for number in range(20):
            await asyncio.to_thread(whole.database["items"].insert_one, {"_id": f"later-{number}", "name": "x"})
            await whole.settle(connection)
        assert connection.session.tallies.sent > sent
