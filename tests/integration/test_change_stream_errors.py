"""Every error by which a change stream ends, on ``aggregate`` and on ``getMore``: in a replica's own stream, in the
watcher's, and in a snapshot.

What passes is gone around, exact and without a reset; a refusal is waited out; only lost history resets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pymongo.database import Database

from changesource.services.filling import AT_ONCE
from tests.conftest import MongoServer
from tests.harness.app import fill
from tests.harness.failpoints import HISTORY_LOST, REFUSED, RETRYABLE, failing
from tests.harness.link import Connection
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
# 0 drops the connection. StaleConfig cannot be injected: MongoDB wants to know more of it (test_mongodb_errors has it).
CODES = [0, *sorted(RETRYABLE.keys() - {13388})]
COMMON = [0, 43, 189, 262]
TOO_LARGE = 10334
STREAM = ["getMore", "aggregate"]
WAITS = "replica waits for MongoDB"
RETRIES = "watcher retries"
LOST = "watcher lost its place, going on from now"
each_way = pytest.mark.parametrize("watched", [pytest.param(True, marks=pytest.mark.slow), False])
COPIES = ("copying waits for MongoDB", "copying goes on after a fault")


class Scene:
    """A replica on a database that holds the application, and what is logged of it."""

    def __init__(self, whole: Whole, caplog: pytest.LogCaptureFixture) -> None:
        self.whole = whole
        self.replica = whole.replica()
        self._caplog = caplog
        self._written = 0

    def told(self, *messages: str) -> list[str]:
        """The errors that were logged with one of these messages."""
        return [str(vars(record)["error"]) for record in self._caplog.records if record.message in messages]

    async def arrives(self, connection: Connection) -> None:
        """Write a document, and wait for its row."""
        self._written += 1
        name = f"written-{self._written}"
        await asyncio.to_thread(self.whole.database["items"].insert_one, {"_id": name, "name": "x"})
        await connection.until(lambda: (name,) in self.replica.model.rows("item"), 60)

    async def follows(self, connection: Connection) -> None:
        """Wait until changes come over the layer: the watcher's stream is the only one then."""
        sent = connection.session.tallies.sent
        while connection.session.tallies.sent == sent:
            await self.arrives(connection)

    @asynccontextmanager
    async def streaming(self, watched: bool) -> AsyncIterator[tuple[Connection, str]]:
        """Stream; give the connection, and what is logged where the stream is stopped: the watcher's, or its own."""
        await self.replica.sync()
        async with AsyncExitStack() as stack:
            if watched:
                await stack.enter_async_context(self.whole.watched())
            connection = await stack.enter_async_context(self.replica.connection())
            await (self.follows(connection) if watched else self.arrives(connection))
            yield connection, RETRIES if watched else WAITS
        assert self.replica.model.reset is None

    async def gone_around(self, connection: Connection, codes: Iterable[int], how: list[str], message: str) -> None:
        """Fail the stream's next commands by each code: ``how`` names them, one after the other.

        A stream asks for one thing at a time, so each failure is told of before the next command is sent.
        """
        for code in codes:
            before = len(self.told(message))
            with failing(self.whole.database.client, how, {"times": len(how)}, code=code):
                await self.arrives(connection)
            assert len(self.told(message)) == before + len(how), code
        await self.whole.settle(connection)

    async def waited_out(self, connection: Connection, code: int, how: list[str], message: str) -> None:
        """Fail the stream's commands for a while; it must be told of by our code, and nothing else must come of it."""
        before = len(self.told(message))
        with failing(self.whole.database.client, how, "alwaysOn", code=code):
            await connection.until(lambda: len(self.told(message)) >= before + len(how))
        assert {error.split()[0] for error in self.told(message)[before:]} == {REFUSED[code][1]}, code
        await self.arrives(connection)


@pytest.fixture
async def scene(mongodb: MongoServer, mongo: Database[Any], caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    fill(mongo, 40, others=10)
    # Long, lest a replica that hears nothing of a watcher that waits reads MongoDB itself.
    whole = Whole(mongodb.uri, mongo, keepalive=10.0, snapshot_batch=20)
    yield Scene(whole, caplog)
    await whole.close()


@each_way
async def test_retryable_errors(scene: Scene, watched: bool) -> None:
    """Each code once on each command: reading on, and opening the stream anew."""
    async with scene.streaming(watched) as (connection, message):
        await scene.gone_around(connection, CODES, STREAM, message)


@each_way
async def test_refusals(scene: Scene, watched: bool) -> None:
    """The connection stays, without a reset, and goes on once MongoDB obliges."""
    async with scene.streaming(watched) as (connection, message):
        for code in REFUSED:
            await scene.waited_out(connection, code, STREAM, message)
        await scene.whole.settle(connection)


async def test_some_of_each_while_the_watcher_streams(scene: Scene) -> None:
    """The watcher goes around them; the replica hears nothing of it."""
    async with scene.streaming(watched=True) as (connection, message):
        await scene.gone_around(connection, COMMON, STREAM, message)
        for code in (13, 9):
            await scene.waited_out(connection, code, STREAM, message)
        await scene.whole.settle(connection)
    assert not scene.told(WAITS)


async def snapshots(scene: Scene, codes: Iterable[int], command: str, times: int) -> None:
    """Take an initial sync for each code, of which some commands fail: it waits in place, on one connection."""
    told = times
    if command == "find":
        # Tried once more by the driver itself, where it knows the code; and several collections are read at once.
        times, told = times * AT_ONCE, 1
    for code in codes:
        replica = scene.whole.replica(app_id=f"snapshot_{code}")
        before = len(scene.told(*COPIES))
        with failing(scene.whole.database.client, [command], {"times": times}, code=code):
            await replica.sync()
        assert len(scene.told(*COPIES)) >= before + told, code
        await scene.whole.compare(replica)
        assert len(replica.model.commits) == 1


@pytest.mark.parametrize("command", [*STREAM, "find", "update"])
async def test_retryable_errors_during_the_snapshot(scene: Scene, command: str) -> None:
    """A socket that closes would end zero-cache."""
    await snapshots(scene, COMMON, command, 2)


@pytest.mark.slow
@pytest.mark.parametrize("command", STREAM)
async def test_all_retryable_errors_during_the_snapshot(scene: Scene, command: str) -> None:
    await snapshots(scene, CODES, command, 1)


@pytest.mark.slow
@each_way
@pytest.mark.parametrize("how", [["getMore"] * 2, ["getMore", "aggregate", "aggregate"]], ids="-".join)
async def test_retryable_errors_again_and_again(scene: Scene, how: list[str], watched: bool) -> None:
    """Each code on the same command more than once, so that what comes back fails as well."""
    async with scene.streaming(watched) as (connection, message):
        await scene.gone_around(connection, CODES, how, message)


@each_way
async def test_a_reply_that_is_too_large(scene: Scene, watched: bool) -> None:
    """The stream is read in smaller batches, at once: nobody waits, unless opening it fails as well."""
    async with scene.streaming(watched) as (connection, message):
        for how, waits in (["getMore"], 0), (STREAM, 1):
            with failing(scene.whole.database.client, how, {"times": len(how)}, code=TOO_LARGE):
                await scene.arrives(connection)
            assert len(scene.told(message)) == waits
        await scene.whole.settle(connection)


@pytest.mark.parametrize("code", HISTORY_LOST)
async def test_the_watcher_loses_its_place(scene: Scene, code: int) -> None:
    """It goes on from now; replicas read what is between themselves, and nobody is reset."""
    async with scene.streaming(watched=True) as (connection, _):
        await scene.gone_around(connection, [code], STREAM, LOST)
        await scene.follows(connection)
