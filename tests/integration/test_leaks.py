"""Replicas that come and go in mid-snapshot leave nothing behind, here or on MongoDB."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from websockets.exceptions import ConnectionClosed

from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.reader import Reader
from tests.harness.waiting import until
from tests.harness.whole import Whole

CONNECTS = 200
AT_ONCE = 20
# A pool may still grow a little; what leaks would do so with each of the hundred connects of the second half.
SLACK = 20


def sockets(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(os.listdir(Path("/proc") / str(pid) / "fd"))


def cursors(client: MongoClient[dict[str, Any]]) -> int:
    """Return how many cursors are open on MongoDB."""
    return int(client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])


def connections(client: MongoClient[dict[str, Any]]) -> int:
    """Return how many connections MongoDB has."""
    return int(client.admin.command("serverStatus")["connections"]["current"])


async def settled(measure: Callable[[], int], limit: int, what: str) -> None:
    """Wait until what is measured is at most ``limit``."""
    found = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while (found := await asyncio.to_thread(measure)) > limit:
                await asyncio.sleep(0.1)
    assert found <= limit, f"{found} {what}, at most {limit} expected"


async def come_and_go(url: str, number: int, frames: int) -> None:
    """Begin an initial sync, read a few frames, and be gone, some in order and some not."""
    reader = Reader(url, f"passing_{number % 7}")
    async with reader.connection() as socket:
        with suppress(ConnectionClosed):
            for _ in range(frames):
                await socket.recv()
        if number % 2:
            socket.transport.abort()


@pytest.fixture
def dropped_sockets() -> Iterator[None]:
    """Take here, after the test, what it left to the garbage collector."""
    yield
    gc.collect()


# The driver does not close the socket of a connection that it was opening when that was cancelled; its end does.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("dropped_sockets")
@pytest.mark.django_db(transaction=True)
async def test_sessions_that_end_in_mid_snapshot_leave_no_task_or_cursor(
    secantusdb: Callable[..., SecantusDB],
) -> None:
    """Two hundred sessions in this process, where tasks can be counted, ended anywhere in the copy or the replay."""
    mongodb = await asyncio.to_thread(secantusdb)
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb.uri)
    await asyncio.to_thread(fill, client["own"], 600, 30)
    whole = Whole(mongodb.uri, client["own"], snapshot_batch=50)
    chance = random.Random(6)
    reached: set[str] = set()

    async def come_and_go(number: int) -> None:
        replica = whole.replica(app_id=f"passing_{number % 7}")
        left = chance.randint(0, 25)

        async def on_frame(frame: str) -> None:
            nonlocal left
            left -= 1
            reached.add(frame[:20])

        replica.on_frame = on_frame
        async with replica.connection() as connection:
            await connection.until(lambda: left <= 0 or bool(replica.model.commits))

    # What the driver keeps for good is there after the first of them.
    await come_and_go(0)
    before = asyncio.all_tasks()
    for start in range(0, CONNECTS, AT_ONCE):
        await asyncio.gather(*map(come_and_go, range(start, start + AT_ONCE)))
    assert '["data",{"tag":"back' in reached
    with suppress(TimeoutError):
        await until(lambda: len(asyncio.all_tasks()) <= len(before))
    assert len(asyncio.all_tasks()) <= len(before), asyncio.all_tasks() - before
    await settled(lambda: cursors(client), 0, "cursors")
    await whole.close()
    client.close()


@pytest.mark.slow
async def test_connects_and_disconnects_in_mid_snapshot(
    deployment: DeploymentFactory, secantusdb: Callable[..., SecantusDB]
) -> None:
    """Two hundred of them; then one replica syncs and streams as if nothing had been."""
    mongodb = await asyncio.to_thread(secantusdb)
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb.uri)
    await asyncio.to_thread(fill, client["own"], 1500, 50)
    place = deployment(MONGODB_URI=mongodb.uri, MONGODB_DATABASE="own", SNAPSHOT_BATCH_ROWS="100")
    place.configure(mappings=MAPPINGS)
    server = place.server()
    steady = Reader(server.stream_url, "steady")
    await steady.sync()
    chance = random.Random(4)

    async def rounds(connects: int) -> None:
        for start in range(0, connects, AT_ONCE):
            numbers = range(start, start + AT_ONCE)
            await asyncio.gather(*(come_and_go(server.stream_url, n, chance.randint(0, 12)) for n in numbers))

    # The first half warms up what a busy server keeps: the driver's pool, the database's threads.
    await rounds(CONNECTS // 2)
    await settled(lambda: cursors(client), 1, "cursors")
    before = {"fds": sockets(server.pid), "connections": connections(client)}
    await rounds(CONNECTS // 2)
    # The watcher's stream stays.
    await settled(lambda: cursors(client), 1, "cursors")
    await settled(lambda: connections(client), before["connections"] + SLACK, "connections")
    await settled(lambda: sockets(server.pid), before["fds"] + SLACK, "file descriptors")
    log = server.log_text()
    assert "Traceback" not in log, log[-3000:]
    client["own"]["items"].insert_one({"_id": "after", "name": "x"})
    await steady.follow(lambda: ("after",) in steady.model.rows("item"))
    client.close()
