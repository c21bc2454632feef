"""Every reason for a reset, each of which is told once, last and in words; ``test_passing_faults`` has what is none."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.db import OperationalError
from pymongo import MongoClient
from pymongo.database import Database
from websockets.exceptions import ConnectionClosed

from changesource.consumers import CLOSE_ENDED
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification
from changesource.models import Watermark as WatermarkRow
from changesource.protocol.watermark import Watermark
from changesource.store import watermarks
from devtools.processes import wait_until
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill
from tests.harness.failpoints import HISTORY_LOST, fail_next, failing
from tests.harness.link import Replica
from tests.harness.reader import Reader
from tests.harness.runtimes import published, running
from tests.harness.waiting import until
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
OPLOG = 1000
# Told when the reset is: what an operator looks for in the message.
WORDS = {
    "ZS201": "is not one of ours",
    "ZS202": "oplog",
    "ZS203": "mappings of the replica's tables changed",
    "ZS204": "later than anything MongoDB has",
    "ZS205": "operator asked",
}


def check_reset(replica: Replica, code: str) -> None:
    """Fail unless the reset came, last and well worded (the model replica refuses a frame after it)."""
    body = replica.model.reset
    assert body is not None
    assert body["errorDetails"]["code"] == code
    assert body["message"].startswith(f"{code} ")
    assert WORDS[code] in body["message"], body["message"]
    assert "Traceback" not in body["message"]
    assert not replica.model.open
    assert replica.frames[-1].startswith('["control"')


async def refused(replica: Replica, code: str) -> None:
    """Connect; the reset must be the only frame, and the session ends."""
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
        await asyncio.wait_for(connection.task, 10)
    assert len(replica.frames) == 1
    check_reset(replica, code)
    row = await WatermarkRow.objects.aget(kind="replica", app_id=replica.app_id)
    assert row.state == "reset"
    assert row.message.startswith(code)


async def reset_while_connected(replica: Replica, act: Callable[[], object], code: str) -> None:
    """Stream, do something, and wait for the reset."""
    async with replica.connection() as connection:
        await connection.until(lambda: len(replica.model.commits) > 1)
        await asyncio.to_thread(act)
        await connection.until(lambda: replica.model.reset is not None, 40)
        await asyncio.wait_for(connection.task, 10)
    check_reset(replica, code)


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    fill(mongo, 20, others=10)
    made = Whole(mongodb.uri, mongo)
    yield made
    await made.close()


class Own:
    """A SecantusDB of the test's own, with a short oplog."""

    def __init__(self, server: SecantusDB) -> None:
        self.server = server
        self.client: MongoClient[dict[str, Any]] = MongoClient(server.uri)
        self.database = self.client["own"]
        fill(self.database, 20, others=10)
        self.whole = Whole(server.uri, self.database)

    def forget(self) -> None:
        """Write so much that the oplog loses what was before."""
        for start in range(0, 3 * OPLOG + 100, 500):
            self.database["elsewhere"].insert_many([{"_id": n} for n in range(start, start + 500)])
        self.database["items"].insert_one({"_id": "after", "name": "x"})

    def replace(self, storage: Path | None = None) -> None:
        """Put another MongoDB in its place: with nothing in it, or with another's storage."""
        self.server.kill()
        shutil.rmtree(self.server.directory / "storage")
        if storage is not None:
            shutil.copytree(storage, self.server.directory / "storage")
        self.server.start()
        self.database["items"].insert_one({"_id": "another", "name": "x"})


@pytest.fixture
async def own(secantusdb: Callable[..., SecantusDB]) -> AsyncIterator[Own]:
    made = await asyncio.to_thread(lambda: Own(secantusdb(oplog_entries=OPLOG)))
    yield made
    await made.whole.close()
    made.client.close()


# A watermark that is not one.


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "0a",
        "00",
        "00.00.00",
        "z" * 100_000,
        "0A.00",
        "10a.00",
        "d" + "z" * 14 + ".00",
        "00.00\n",
        "'; DROP TABLE",
        "00.0é",
    ],
    ids=lambda text: repr(text[:12]),
)
async def test_a_watermark_that_is_not_ours(whole: Whole, text: str) -> None:
    """Garbage, one too long, of another form, beyond the greatest cluster time."""
    replica = whole.replica()
    replica.model.commits.append(text)
    replica.version = text
    await refused(replica, "ZS201")
    assert replica.model.reset is not None
    assert len(replica.model.reset["message"]) < 300


async def test_a_watermark_of_the_future(whole: Whole) -> None:
    now = await whole.source.barrier("test")
    replica = whole.replica()
    replica.model.commits.append(str(Watermark(now + (3600 << 32), whole.mapping.fingerprint)))
    await refused(replica, "ZS204")


async def test_a_watermark_at_no_event(whole: Whole) -> None:
    """As of another cluster whose clock was alike."""
    now = await whole.source.barrier("test")
    replica = whole.replica()
    replica.model.commits.append(str(Watermark(now - 1, whole.mapping.fingerprint)))
    await refused(replica, "ZS202")


async def test_another_fingerprint(whole: Whole) -> None:
    replica = whole.replica()
    await replica.sync()
    changed = json.loads(json.dumps(MAPPINGS))
    changed["tables"]["chat"]["filter"] = {"kind": "group"}
    replica.mapping = CompiledMapping.compile(read_specification(changed), whole.database.name)
    await refused(replica, "ZS203")


async def test_another_database_is_another_fingerprint(whole: Whole) -> None:
    replica = whole.replica()
    await replica.sync()
    replica.mapping = CompiledMapping.compile(read_specification(MAPPINGS), "another")
    await refused(replica, "ZS203")


# History lost.


async def test_the_oplog_rolled_over_while_the_replica_was_away(own: Own) -> None:
    """This server opens the stream all the same, with a silent gap; the position does not come again."""
    replica = own.whole.replica()
    await replica.sync()
    await asyncio.to_thread(own.forget)
    await refused(replica, "ZS202")


async def test_the_oplog_rolled_over_during_the_snapshot(own: Own) -> None:
    """What changed since the first barrier is lost, so there is nothing to commit."""
    replica = own.whole.replica()

    async def on_frame(frame: str) -> None:
        if '"backfill"' in frame:
            replica.on_frame = None
            await asyncio.to_thread(own.forget)

    replica.on_frame = on_frame
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
        await asyncio.wait_for(connection.task, 10)
    assert replica.model.commits == []
    assert replica.model.rollbacks == 1
    check_reset(replica, "ZS202")


async def test_the_oplog_rolled_over_while_the_server_was_cut_off(own: Own) -> None:
    """The stream is opened anew at the position, which is gone."""
    replica = own.whole.replica()
    await replica.sync()

    def act() -> None:
        with failing(own.client, ["getMore", "aggregate"], "alwaysOn", code=189):
            own.forget()

    await reset_while_connected(replica, act, "ZS202")


@pytest.mark.parametrize("code", HISTORY_LOST)
@pytest.mark.parametrize("command", ["getMore", "aggregate"])
async def test_the_server_says_that_history_is_lost(whole: Whole, command: str, code: int) -> None:
    """While the snapshot begins, and when the replica connects."""
    client, replica = whole.database.client, whole.replica()
    with failing(client, [command], "alwaysOn", code=code):
        await refused(replica, "ZS202")
    replica.model.reset = None
    await replica.sync()
    with failing(client, [command], "alwaysOn", code=code):
        await refused(replica, "ZS202")


@pytest.mark.parametrize("code", HISTORY_LOST)
@pytest.mark.parametrize("command", ["getMore", "aggregate"])
async def test_the_server_says_so_while_the_replica_streams(
    whole: Whole, command: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    client, replica = whole.database.client, whole.replica()

    def lose() -> None:
        if command == "getMore":
            fail_next(client, command, code=code)
            return
        # It opens its stream anew after another error.
        with failing(client, ["getMore", command], "alwaysOn", code=189):
            wait_until(lambda: "replica waits for MongoDB" in caplog.text, "the error", 20)
            fail_next(client, command, code=code)
            wait_until(lambda: replica.model.reset is not None, "the reset", 20)

    await replica.sync()
    await reset_while_connected(replica, lose, "ZS202")


# MongoDB is another one.


async def test_mongodb_was_replaced_while_the_replica_was_away(own: Own) -> None:
    replica = own.whole.replica()
    await replica.sync()
    await asyncio.to_thread(own.replace)
    await refused(replica, "ZS202")


async def test_mongodb_was_replaced_while_streaming(own: Own) -> None:
    replica = own.whole.replica()
    await replica.sync()
    await reset_while_connected(replica, own.replace, "ZS202")
    assert ("another",) not in replica.model.rows("item")


async def test_mongodb_was_restored_to_an_earlier_time(own: Own, tmp_path: Path) -> None:
    """The position was after the backup; what was written since is another history."""
    replica = own.whole.replica()

    def back_up() -> None:
        own.server.stop()
        shutil.copytree(own.server.directory / "storage", tmp_path / "backup")
        own.server.start()

    await asyncio.to_thread(back_up)
    await replica.sync()
    async with replica.connection() as connection:
        await own.whole.settle(connection)
    await asyncio.to_thread(own.replace, tmp_path / "backup")
    # Within the second of the position, what is written now may be earlier than that: then it is in the future.
    written = Watermark.parse(replica.model.last_watermark).cluster_time >> 32
    await until(lambda: int(time.time()) > written)
    await refused(replica, "ZS202")


# An operator's wish.


@database_sync_to_async
def wish(app_id: str) -> None:
    WatermarkRow.objects.filter(app_id=app_id).update(resync_wanted=True)


async def test_an_operators_wish(mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Told when connected, within seconds, and when it connects; only that one, and only until it has synced anew."""
    fill(mongo, 20, others=10)
    await published(MAPPINGS)
    async with running(mongodb.uri, mongo.name) as runtime:
        base = Whole(mongodb.uri, mongo)
        one, other = base.replica(app_id="one"), base.replica(app_id="other")
        one.server = other.server = runtime.session
        await one.sync()
        await other.sync()
        async with one.connection() as connection, other.connection() as undisturbed:
            await connection.until(lambda: len(one.model.commits) > 1)
            await wish("one")
            async with asyncio.timeout(3):
                await connection.until(lambda: one.model.reset is not None)
            await asyncio.wait_for(connection.task, 10)
            check_reset(one, "ZS205")
            await base.settle(undisturbed)
        again = base.replica(app_id="one")
        again.server = runtime.session
        again.model.commits.append(one.model.last_watermark)
        await refused(again, "ZS205")
        anew = base.replica(app_id="one")
        anew.server = runtime.session
        await anew.sync()
        async with anew.connection() as connection:
            await base.settle(connection)
        assert anew.version > one.version
        await base.close()


@pytest.mark.parametrize("fault", ["a failed query", "a database that takes no writes"])
async def test_a_wish_that_is_fulfilled_resets_nobody(
    mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Neither where the database cannot be asked once at the reconnect, nor where it cannot take note."""
    fill(mongo, 5, others=5)
    await published(MAPPINGS)
    async with running(mongodb.uri, mongo.name) as runtime:
        base = Whole(mongodb.uri, mongo)
        one = base.replica(app_id="one")
        one.server = runtime.session
        await one.sync()
        await wish("one")
        await refused_by(one, "ZS205")

        def broken(*_: object, **__: object) -> None:
            raise OperationalError("no")

        if fault == "a database that takes no writes":
            for name in ("begin_sync", "end_sync", "note_progress"):
                monkeypatch.setattr(watermarks, name, broken)
        anew = base.replica(app_id="one")
        anew.server = runtime.session
        await anew.sync()
        if fault == "a failed query":
            asked = watermarks.resyncs_wanted

            def once() -> dict[tuple[str, int], str]:
                monkeypatch.setattr(watermarks, "resyncs_wanted", asked)
                raise OperationalError("the server closed the connection")

            monkeypatch.setattr(watermarks, "resyncs_wanted", once)
        async with anew.connection() as connection:
            await base.settle(connection)
        await base.close()


async def refused_by(replica: Replica, code: str) -> None:
    """Connect, and be reset at once."""
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
    check_reset(replica, code)


# The same over the wire.


async def test_over_the_wire(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """One frame, and then the socket is closed; a wish reaches the one that is connected."""
    fill(mongo, 10, others=5)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    reader = Reader(server.stream_url)

    async def all_frames(act: Callable[[], object] | None = None) -> list[str]:
        frames = []
        async with reader.connection() as socket:
            with suppress(ConnectionClosed):
                async for frame in reader.frames(socket):
                    frames.append(frame)
                    if act is not None and len(frames) == 2:
                        act()
            assert socket.close_code == CLOSE_ENDED
        return frames

    await reader.sync()
    reader.model.commits.append("garbage")
    assert len(await all_frames()) == 1
    assert reader.model.reset is not None
    assert reader.model.reset["errorDetails"]["code"] == "ZS201"
    reader.model.reset = None
    reader.model.commits.pop()
    frames = await all_frames(lambda: wish_in(place.directory / "zerosource.sqlite3"))
    assert reader.model.reset["errorDetails"]["code"] == "ZS205"
    assert [frame.startswith('["control"') for frame in frames].index(True) == len(frames) - 1
    assert "ZS201" in server.log_text()


def wish_in(database: Path) -> None:
    """As the admin does."""
    with sqlite3.connect(database, timeout=10) as connection:
        connection.execute("UPDATE changesource_watermark SET resync_wanted = 1 WHERE app_id = 'reader'")
    connection.close()
