"""Mappings that are edited and published while replicas stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import pytest
from channels.db import database_sync_to_async
from pymongo.database import Database
from websockets.exceptions import ConnectionClosed

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification
from changesource.models import MappingRevision, TableMapping, Watermark
from changesource.services.configuration import publish
from changesource.services.runtime import Runtime
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill, last_write
from tests.harness.link import Connection, Replica
from tests.harness.reader import Reader
from tests.harness.runtimes import published, running
from tests.harness.waiting import until
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
TOLD_WITHIN = 2.0
TABLES = ["item", "chat", "channel", "resident"]  # of the publication "places"


def edited() -> dict[str, Any]:
    """The application's mappings with another filter of the table ``chat``, in the publication ``places``."""
    mappings: dict[str, Any] = json.loads(json.dumps(MAPPINGS))
    mappings["tables"]["chat"]["filter"] = {"kind": "group"}
    return mappings


def titles(database: Database[Any], kind: str) -> dict[Any, dict[str, Any]]:
    rooms = database["rooms"].find({"kind": kind})
    return {(room["_id"],): {"id": room["_id"], "title": room["title"]} for room in rooms}


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    fill(mongo, 20, others=30)
    made = Whole(mongodb.uri, mongo)
    yield made
    await made.close()


@asynccontextmanager
async def serving(mongodb: MongoServer, mongo: Database[Any], *, watch: bool) -> AsyncIterator[Runtime]:
    """A runtime of the published mappings, maybe with its watcher."""
    await published(MAPPINGS)
    async with running(mongodb.uri, mongo.name) as runtime:
        task = asyncio.create_task(runtime.watch()) if watch else None
        try:
            yield runtime
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def replica_of(whole: Whole, runtime: Runtime, publication: str) -> Replica:
    replica = whole.replica(publication, app_id=publication)
    replica.server = runtime.session
    return replica


async def syncing(*app_ids: str) -> None:
    """Wait until it is known of these replicas that their snapshots are under way."""
    async with asyncio.timeout(10):
        rows = Watermark.objects.filter(app_id__in=app_ids, state="syncing", sync_end="").exclude(replica_version="")
        while await rows.acount() < len(app_ids):
            await asyncio.sleep(0.01)


async def told(connection: Connection) -> None:
    """Wait for the reset that a changed mapping gives; it comes in time, once and last."""
    replica, began = connection.replica, monotonic()
    await connection.until(lambda: replica.model.reset is not None)
    await asyncio.wait_for(connection.task, 10)
    assert monotonic() - began < TOLD_WITHIN
    assert replica.model.reset is not None
    assert replica.model.reset["errorDetails"]["code"] == "ZS203"
    assert "mappings of the replica's tables changed" in replica.model.reset["message"]
    assert replica.frames[-1].startswith('["control"')


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_publishing_while_streaming(
    whole: Whole, mongodb: MongoServer, mongo: Database[Any], watched: bool
) -> None:
    """The replicas of changed tables are told, and sync anew by the new mappings; the others notice nothing."""
    async with serving(mongodb, mongo, watch=watched) as runtime:
        people, places = replica_of(whole, runtime, "people"), replica_of(whole, runtime, "places")
        await people.sync()
        await places.sync()
        async with people.connection() as undisturbed:
            async with places.connection() as connection:
                await whole.settle(undisturbed)
                await whole.settle(connection, "item")
                frames = len(people.frames)
                await published(edited())
                await told(connection)
            anew = replica_of(whole, runtime, "places")
            await anew.sync()
            async with anew.connection() as connection:
                key = await asyncio.to_thread(last_write, mongo, "item")
                mongo["rooms"].update_one({"_id": 3}, {"$set": {"kind": "group", "title": "moved"}})
                await connection.until(
                    lambda: key in anew.model.rows("item") and (3,) in anew.model.rows("chat") and not anew.model.open
                )
                assert anew.model.rows("chat") == await asyncio.to_thread(titles, mongo, "group")
            await whole.settle(undisturbed)
            changes = [frame for frame in people.frames[frames:] if frame.startswith('["data"')]
            assert len(changes) == 1, "the last write"
        assert anew.version > places.version


async def test_publishing_while_a_snapshot_is_under_way(
    whole: Whole, mongodb: MongoServer, mongo: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It ends at once, however long it would have taken, and without a commit; that of other tables goes on."""
    async with serving(mongodb, mongo, watch=True) as runtime:
        people, places = replica_of(whole, runtime, "people"), replica_of(whole, runtime, "places")
        async with people.connection() as undisturbed, places.connection() as connection:
            undisturbed.paused = connection.paused = True
            await syncing("people", "places")
            await published(edited())
            await until(lambda: "replica must be reset" in caplog.text)
            connection.paused = False
            await told(connection)
            assert places.model.commits == []
            undisturbed.paused = False
            await undisturbed.until(lambda: bool(people.model.commits))
        anew = replica_of(whole, runtime, "places")
        await anew.sync()
        assert anew.model.rows("chat") == await asyncio.to_thread(titles, mongo, "group")


async def test_a_wish_to_resync_is_fulfilled_by_the_snapshot_and_ends_a_later_one(
    whole: Whole, mongodb: MongoServer, mongo: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(mongodb, mongo, watch=True) as runtime:
        replica = replica_of(whole, runtime, "places")
        rows = Watermark.objects.filter(app_id="places")
        await replica.sync()
        await rows.aupdate(resync_wanted=True)
        replica = replica_of(whole, runtime, "places")
        await replica.sync()
        row = await rows.aget()
        assert not row.resync_wanted
        assert row.snapshot["rows"] == sum(map(len, map(replica.model.rows, TABLES)))
        assert row.snapshot["documents"] == row.snapshot["expected"] > 0
        replica = replica_of(whole, runtime, "places")
        async with replica.connection() as connection:
            connection.paused = True
            await syncing("places")
            await rows.aupdate(resync_wanted=True)
            await until(lambda: "replica must be reset" in caplog.text)
            connection.paused = False
            await connection.until(lambda: replica.model.reset is not None)
        assert replica.model.reset is not None
        assert replica.model.reset["errorDetails"]["code"] == "ZS205"


async def test_publishing_again_what_is_served_changes_nothing(
    whole: Whole, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    """Nor does a description, or a table of no publication of the replica's."""
    async with serving(mongodb, mongo, watch=True) as runtime:
        replica = replica_of(whole, runtime, "places")
        await replica.sync()
        async with replica.connection() as connection:
            await whole.settle(connection, "item")
            await published(MAPPINGS)
            assert await MappingRevision.objects.acount() == 1
            described = json.loads(json.dumps(MAPPINGS))
            described["tables"]["chat"]["description"] = "Rooms to talk in."
            described["tables"]["note"]["filter"] = {"body": "x"}
            await published(described)
            assert await MappingRevision.objects.acount() == 2
            started = monotonic()
            while monotonic() - started < TOLD_WITHIN:
                await whole.settle(connection, "item")


async def test_a_draft_changes_nothing_until_it_is_published(
    whole: Whole, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    async with serving(mongodb, mongo, watch=True) as runtime:
        replica = replica_of(whole, runtime, "places")
        await replica.sync()
        async with replica.connection() as connection:
            await TableMapping.objects.filter(name="chat").aupdate(filter={"kind": "group"})
            started = monotonic()
            while monotonic() - started < TOLD_WITHIN:
                await whole.settle(connection, "item")
            other = whole.replica("places", app_id="another")
            other.server = runtime.session
            await other.sync()
            await whole.compare(other)
            await database_sync_to_async(publish)("test")
            await told(connection)


@pytest.mark.parametrize("newer", ["watcher", "session"])
async def test_a_watcher_and_a_session_of_different_revisions(whole: Whole, mongo: Database[Any], newer: str) -> None:
    """The session takes nothing from such a watcher, but for tables of which both have the same mapping."""
    other = CompiledMapping.compile(read_specification(edited()), mongo.name)
    mine, theirs = (whole.mapping, other) if newer == "watcher" else (other, whole.mapping)
    kind = "chat" if newer == "watcher" else "group"
    people, places = whole.replica("people", app_id="people"), whole.replica("places", app_id="places")
    for replica in (people, places):
        replica.mapping = mine
        await replica.sync()
    async with whole.watched(theirs), people.connection() as one, places.connection() as two:
        for number in range(40):
            change = {"$set": {"kind": ["chat", "group"][number % 2], "title": f"t{number}"}}
            mongo["rooms"].update_one({"_id": number % 7}, change)
            await asyncio.to_thread(last_write, mongo, "note")
            key = await asyncio.to_thread(last_write, mongo, "item")
            await two.until(lambda key=key: key in places.model.rows("item") and not places.model.open)  # type: ignore[misc]
            assert places.model.rows("chat") == titles(mongo, kind)
        await whole.settle(one)
        assert two.session.tallies.sent == 0
        assert one.session.tallies.sent > 0
    async with whole.watched(theirs), whole.watched(mine), places.connection() as two:
        while two.session.tallies.sent == 0:
            key = await asyncio.to_thread(last_write, mongo, "item")
            await two.until(lambda key=key: key in places.model.rows("item") and not places.model.open)  # type: ignore[misc]
        assert places.model.rows("chat") == titles(mongo, kind)
    assert places.model.reset is None


async def test_a_file_that_is_reloaded_reaches_a_real_server(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """``reloadmappings`` runs in another process; the server finds out by itself."""
    fill(mongo, 10, others=10)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    places, people = Reader(server.stream_url, "places", ("places",)), Reader(server.stream_url, "people", ("people",))
    await places.sync()
    await people.sync()
    ended: list[float] = []
    async with places.connection() as one, people.connection() as two:
        place.configure(mappings=edited())
        # Read meanwhile: the server may tell before the command has ended.
        reloading = asyncio.create_task(asyncio.to_thread(place.manage, "reloadmappings"))
        reloading.add_done_callback(lambda _: ended.append(monotonic()))
        with suppress(ConnectionClosed):
            async for _ in places.frames(one):
                pass
        told_at = monotonic()
        await reloading
        assert told_at - ended[0] < TOLD_WITHIN
        assert places.model.reset is not None
        assert places.model.reset["errorDetails"]["code"] == "ZS203"
        key = await asyncio.to_thread(last_write, mongo, "note")
        async for frame in people.frames(two):
            if frame.startswith('["commit"') and key in people.model.rows("note"):
                break
