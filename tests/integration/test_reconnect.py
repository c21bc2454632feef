"""Reconnects: what follows, whole, once, and the same whoever answers."""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson.binary import Binary
from channels.layers import InMemoryChannelLayer
from pymongo.database import Database

from changesource.models import Watermark as WatermarkRow
from changesource.protocol.watermark import Watermark
from tests.conftest import MongoServer
from tests.harness.app import MAPPINGS, everything, fill, item, people
from tests.harness.layers import FaultyLayer
from tests.harness.link import Connection, Replica
from tests.harness.model import ModelReplica, Row
from tests.harness.whole import Whole, without_history

pytestmark = pytest.mark.django_db(transaction=True)
TABLES = list(MAPPINGS["tables"])
State = dict[str, dict[Any, Row]]
ROUNDS = 60


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    fill(mongo, 40, others=20)
    made = Whole(mongodb.uri, mongo, keepalive=0.2)
    yield made
    await made.close()


def shown(model: ModelReplica) -> State:
    return {table: dict(model.rows(table)) for table in TABLES}


def play(database: Database[Any], chance: random.Random, name: str) -> None:
    """Write single changes, a burst, a transaction, or what is no data."""
    items = database["items"]
    match chance.randrange(12):
        case 0 | 1 | 2:
            items.update_one({"_id": f"item-{chance.randrange(40)}"}, {"$set": {"name": name}}, upsert=True)
        case 3 | 4:
            items.insert_many([{"_id": f"{name}-{n}", "name": name} for n in range(chance.randint(5, 60))])
        case 5:
            items.delete_many({"_id": {"$in": [f"item-{chance.randrange(40)}" for _ in range(5)]}})
        case 6 | 7:
            kind = chance.choice(["chat", "channel", "none"])
            change = {"$set": {"kind": kind, "title": name, "people": people(chance)}}
            database["rooms"].update_one({"_id": chance.randrange(20)}, change)
        case 8 | 9:
            with database.client.start_session() as session, session.start_transaction():
                items.insert_one({"_id": f"t-{name}", "name": name}, session=session)
                items.update_one({"_id": "item-1"}, {"$set": {"name": name}}, session=session)
                database["rooms"].update_one({"_id": 1}, {"$set": {"title": name}}, session=session)
                size = chance.choice([1, 60])  # beyond the bound of a group, or not
                items.insert_many([{"_id": f"t-{name}-{n}", "name": name} for n in range(size)], session=session)
        case 10:
            database.drop_collection("rooms")
            # Its history is never lost here, which would have tables filled anew: see test_history.
            rooms = database.create_collection("rooms", changeStreamPreAndPostImages={"enabled": True})
            rooms.insert_many([{"_id": n, "kind": "chat", "title": name, "people": people(chance)} for n in range(10)])
        case _:
            database["notes"].insert_one({"_id": Binary.from_uuid(uuid.UUID(int=chance.randrange(10**6)))})
            database["notes"].rename(f"notes-{name}")
            items.update_one({"_id": "item-2"}, {"$set": {"name": name}}, upsert=True)


class History:
    """What one replica showed at each of its commits, and how that connection went."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.states: dict[str, State] = {}
        replica.on_commit = self._note

    def _note(self, watermark: str) -> None:
        self.states[watermark] = shown(self.replica.model)

    def at(self, whole: Whole, watermark: str) -> Replica:
        """Return another replica that stands at this commit."""
        model = ModelReplica()
        model.tables = copy.deepcopy(self.replica.model.tables)
        for table, rows in self.states[watermark].items():
            model.tables[table].rows = dict(rows)
        model.commits = [watermark]
        made = whole.replica()
        made.model, made.version = model, self.replica.version
        return made


async def recorded(whole: Whole, chance: random.Random, commits: int) -> History:
    """Return the history of a stream with transactions, group commits, heartbeats and collections that come and go.

    It has so many ``commits`` or more.

    The first half of it comes from a watcher, the other from the session's own reading.
    """
    replica = whole.replica()
    await replica.sync()
    history = History(replica)

    async def heartbeat(connection: Connection) -> None:
        quiet = len(replica.model.commits)
        await connection.until(lambda: len(replica.model.commits) > quiet + 1)

    async def play_on(connection: Connection) -> None:
        began, number = len(history.states), 0
        while number < ROUNDS // 2 or len(history.states) - began < commits // 2:
            await asyncio.to_thread(play, whole.database, chance, f"r{began}-{number}")
            if number % 9 == 8:
                await heartbeat(connection)
            number += 1
        await whole.settle(connection)
        # Rows may come before their watermarks, where tables were filled anew.
        await heartbeat(connection)

    async with whole.watched(), replica.connection() as connection:
        await play_on(connection)
        assert connection.session.tallies.sent > 0
    async with replica.connection() as connection:
        await play_on(connection)
    return history


async def resumed(server: Whole, history: History, mark: str, end: int) -> History:
    """Reconnect at a watermark, read up to the cluster time ``end``, and return how that went."""
    replica = history.at(server, mark)
    again = History(replica)
    async with replica.connection() as connection:
        await connection.until(lambda: Watermark.parse(replica.model.last_watermark).cluster_time >= end)
    assert replica.model.reset is None
    return again


@pytest.mark.parametrize("times", [25, pytest.param(100, marks=pytest.mark.slow)])
async def test_at_random_watermarks_of_a_stream(whole: Whole, mongodb: MongoServer, times: int) -> None:
    """From each, exactly what follows comes, at this server and at another with another layer.

    Both show the same rows at the same watermark and send as many changes; so does the one at any later watermark.
    """
    chance = random.Random(11)
    history = await recorded(whole, chance, times + 10)
    changes = [count for _, count in history.replica.model.transactions[1:]]
    assert 0 in changes, "heartbeats"
    assert max(changes) > 40, "group commits"
    marks = list(history.states)
    assert len(marks) >= times + 10
    wanted = await asyncio.to_thread(everything, whole.database)
    end = Watermark.parse(marks[-1]).cluster_time
    other = Whole(mongodb.uri, whole.database, layer=FaultyLayer(InMemoryChannelLayer(), seed=5), keepalive=30.0)
    whole.limits = other.limits
    common = sent = 0
    for mark in chance.sample(marks[:-1], times):
        one, another = await asyncio.gather(*(resumed(server, history, mark, end) for server in (whole, other)))
        assert shown(one.replica.model) == shown(another.replica.model) == wanted
        for same in one.states.keys() & another.states.keys():
            common += 1
            assert one.states[same] == another.states[same], (mark, same)
        counts = [sum(count for _, count in it.replica.model.transactions) for it in (one, another)]
        assert counts[0] == counts[1]
        sent += counts[0]
    assert common > times
    assert sent > times
    await other.close()


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "forgotten"])
async def test_the_first_reconnect_after_the_initial_sync(whole: Whole, remembered: bool) -> None:
    """Changes made during the copy are not sent again where the position is known, and do no harm where it is not."""
    replica = whole.replica()

    async def on_frame(frame: str) -> None:
        if '"backfill"' in frame:
            replica.on_frame = None
            chance = random.Random(3)
            for number in range(6):
                await asyncio.to_thread(whole.database["items"].insert_one, item(1000 + number, chance))
            await asyncio.to_thread(whole.database["items"].delete_one, {"_id": "item-7"})
            await asyncio.to_thread(whole.database["rooms"].drop)

    replica.on_frame = on_frame
    await replica.sync()
    await whole.compare(replica)
    if not remembered:
        await WatermarkRow.objects.filter(app_id=replica.app_id).adelete()
    async with replica.connection() as connection:
        await whole.settle(connection)
    changes = sum(count for _, count in replica.model.transactions[1:])
    assert (changes == 1) if remembered else (changes >= 8), "the last write alone, or all since the first barrier"


@pytest.fixture
async def without_images(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    fill(mongo, 40, others=20)
    made = Whole(mongodb.uri, mongo, mapping=without_history(mongo.name), keepalive=0.2, post_images="off")
    yield made
    await made.close()


async def test_an_update_and_a_delete_of_one_document_while_away(without_images: Whole) -> None:
    """The lookup at the update finds nothing any more: the row goes, and nobody is reset."""
    whole = without_images
    replica = whole.replica()
    await replica.sync()
    items = whole.database["items"]
    items.update_one({"_id": "item-5"}, {"$set": {"name": "changed"}})
    items.delete_one({"_id": "item-5"})
    items.insert_one({"_id": "new", "name": "x"})
    items.update_one({"_id": "new"}, {"$set": {"name": "y"}})
    items.delete_one({"_id": "new"})
    async with replica.connection() as connection:
        await whole.settle(connection)
    assert ("item-5",) not in replica.model.rows("item")
    assert whole.source.full_document == "updateLookup"
