"""The server's memory is bounded, whatever it copies, whoever reads slowly or not at all, however many follow.

Each is measured at full size (slow), and in a form that takes seconds and can fail as well: what a server without
flow control would hold is beyond the same bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from tests.conftest import DeploymentFactory, MongoServer, mongo_server
from tests.harness.deployment import Server
from tests.harness.memory import MIB, Memory
from tests.harness.reader import Reader
from tests.harness.scraping import scraped, value_of
from tests.harness.tally import COLLECTION, MAPPINGS, MORE, TABLE, WARM, Tally, insert

GROWTH = 64 * MIB
A_REPLICA = MIB
# What the last two thirds of a phase may add: less than a reply of MongoDB (16 MB), which comes and goes, and far less
# than what passes through the server in that time, some 50 MB at least, part of which a leak would keep.
FLAT = 8 * MIB
LONG = 3.5  # seconds; what is shorter has no slope
RECEIVE_BUFFER = 64 * 1024
BYTES_A_SECOND = 1_000_000


@pytest.fixture
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """One for each test, not for all: SecantusDB opens change streams the more slowly the more its oplog holds."""
    with mongo_server(tmp_path_factory) as server:
        yield server


async def warm_server(deployment: DeploymentFactory, mongo: Database[Any]) -> Server:
    """Start a server and have it serve a sync and a change, so that what a first connection costs is not counted."""
    mongo[WARM].insert_one({"_id": "first", "name": "x"})
    place = deployment(KEEPALIVE_SECONDS="10")
    place.configure(mappings=MAPPINGS)
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url, WARM, (WARM,))
    await reader.sync()
    mongo[WARM].insert_one({"_id": "second", "name": "x"})
    await reader.follow(lambda: ("second",) in reader.model.rows(WARM))
    return server


def check(memory: Memory, bound: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Print and hold each phase to ``bound``, and those that are steady to being flat."""
    with capsys.disabled():
        for phase in memory.phases:
            print(f"\n{phase}", end=" ")
    for phase in memory.phases:
        assert phase.growth < bound, str(phase)
        assert not phase.steady or phase.seconds < LONG or phase.drift < FLAT, str(phase)


async def at_a_pace(frames: AsyncIterator[str], seconds: float) -> int:
    """Take frames for so many seconds at 1 MB/s, or, with 0, at any pace, up to the commit at most.

    Return how many bytes came.
    """
    began, received = time.monotonic(), 0
    async for frame in frames:
        received += len(frame)
        passed = time.monotonic() - began
        if frame.startswith('["commit"') or 0 < seconds <= passed:
            break
        if seconds:
            # The pace of the reader, not a wait for something.
            await asyncio.sleep(max(0.0, received / BYTES_A_SECOND - passed))
    return received


@dataclass(frozen=True)
class Copied:
    """``rows`` documents with names of ``width``, read at 1 MB/s for so many ``seconds``, then at any pace."""

    rows: int
    width: int
    seconds: float


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Copied(1_000, 100_000, 10), id="short"),
        pytest.param(Copied(1_000_000, 80, 3600), id="full", marks=pytest.mark.slow),
    ],
)
async def test_a_snapshot_for_a_slow_reader(
    deployment: DeploymentFactory, mongo: Database[Any], capsys: pytest.CaptureFixture[str], size: Copied
) -> None:
    server = await warm_server(deployment, mongo)
    tally = Tally(size.width, size.rows)
    reader = Reader(server.stream_url, "slow", (TABLE,), tally, RECEIVE_BUFFER)
    with Memory(server.pid) as memory:
        with memory.phase(f"{size.rows:,} documents are inserted"):
            await asyncio.to_thread(insert, mongo, range(size.rows), size.width)
        async with reader.connection() as socket:
            frames = reader.frames(socket)
            # Not counted in the phase: before the first row SecantusDB sorts, for as long as half a minute.
            async for frame in frames:
                if frame.startswith('["data",{"tag":"backfill"'):
                    break
            with memory.phase(f"a snapshot of {size.rows:,} rows at 1 MB/s"):
                received = await at_a_pace(frames, size.seconds)
            if not tally.commits:
                with memory.phase("the rest of it at any pace"):
                    received += await at_a_pace(frames, 0)
    assert memory.phases[1].seconds > min(size.seconds, received / BYTES_A_SECOND) * 0.9
    assert tally.count == tally.changes == size.rows == mongo[COLLECTION].estimated_document_count()
    # Piled up in the server, it would be seen.
    assert received > GROWTH * 1.3
    check(memory, GROWTH, capsys)


async def test_a_snapshot_of_several_collections_at_once_for_a_slow_reader(
    deployment: DeploymentFactory, mongo: Database[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server = await warm_server(deployment, mongo)
    collections, rows, width = (COLLECTION, *MORE), 250, 100_000
    for number, collection in enumerate(collections):
        insert(mongo, range(number * rows, (number + 1) * rows), width, collection)
    tally = Tally(width, rows * len(collections))
    reader = Reader(server.stream_url, "slow", ("several",), tally, RECEIVE_BUFFER)
    with Memory(server.pid) as memory:
        async with reader.connection() as socket:
            frames = reader.frames(socket)
            with memory.phase(f"{len(collections)} collections at 1 MB/s"):
                received = await at_a_pace(frames, 5)
            with memory.phase("the rest of it at any pace"):
                received += await at_a_pace(frames, 0)
    assert tally.count == tally.changes == rows * len(collections)
    assert received > GROWTH * 1.3
    check(memory, GROWTH, capsys)


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        pytest.param(1_000, 100_000, id="short"),
        pytest.param(500_000, 150, id="full", marks=pytest.mark.slow),
    ],
)
async def test_a_backlog_for_a_paused_reader(
    deployment: DeploymentFactory, mongo: Database[Any], capsys: pytest.CaptureFixture[str], changes: int, width: int
) -> None:
    """A replica that follows reads nothing while others write, then goes on."""
    server = await warm_server(deployment, mongo)
    tally = Tally(width, changes)
    reader = Reader(server.stream_url, "paused", (TABLE,), tally, RECEIVE_BUFFER)
    await reader.sync()
    with Memory(server.pid) as memory:
        async with reader.connection() as socket:
            frames = reader.frames(socket)
            with memory.phase(f"{changes:,} changes for a paused reader"):
                await asyncio.to_thread(insert, mongo, range(changes), width)
                # The pause goes on for a while, in which nothing happens that could be waited for.
                await asyncio.sleep(4)
            assert tally.count < changes / 4
            with memory.phase("the same when it goes on"):
                async for frame in frames:
                    if frame.startswith('["commit"') and tally.count == changes:
                        break
    assert tally.count == tally.changes == changes == mongo[COLLECTION].estimated_document_count()
    assert "reader reads nothing any more" not in server.log_text()
    check(memory, GROWTH, capsys)


@pytest.mark.parametrize(
    ("replicas", "changes"),
    [
        pytest.param(50, 2_000, id="short"),
        pytest.param(200, 5_000, id="full", marks=pytest.mark.slow),
    ],
)
async def test_many_replicas(
    deployment: DeploymentFactory,
    mongo: Database[Any],
    capsys: pytest.CaptureFixture[str],
    replicas: int,
    changes: int,
) -> None:
    """All connect at once, as after a restart of the server; then they follow, and rest."""
    server = await warm_server(deployment, mongo)
    width, before = 1_000, 100
    insert(mongo, range(before), width)
    total = before + 1 + changes + 1
    tallies = [Tally(width, total) for _ in range(replicas)]
    readers = [Reader(server.stream_url, f"replica_{n}", (TABLE,), tally) for n, tally in enumerate(tallies)]
    ended = asyncio.Event()

    async def arrived(number: int) -> None:
        """Insert up to so many documents, and wait until every replica has them."""
        at_hand = min(tally.count for tally in tallies)
        writing = asyncio.create_task(asyncio.to_thread(insert, mongo, range(at_hand, number), width))
        async with asyncio.timeout(300):
            while any(tally.count < number for tally in tallies):
                await asyncio.sleep(0.1)
        await writing

    def served(name: str, **labels: str) -> float | None:
        return value_of(scraped(f"{server.url}/metrics"), f"zerosource_replica_{name}", **labels)

    async def shown(what: str, shows: Callable[[], bool]) -> None:
        await asyncio.to_thread(wait_until, shows, what, 60)

    with Memory(server.pid) as memory:
        with memory.phase(f"{replicas} replicas sync at once", steady=False):
            await asyncio.gather(*(reader.sync() for reader in readers))
        following = [asyncio.create_task(reader.follow(ended.is_set)) for reader in readers]
        with memory.phase(f"{replicas} replicas connect", steady=False):
            await shown("all to be connected", lambda: served("state", state="streaming") == replicas)
            await arrived(before + 1)
            # One that reads by itself holds replies of MongoDB: of how many that is so would be chance.
            await shown("all to be served by the watcher", lambda: served("reads_mongodb") == 0)
        with memory.phase(f"{changes:,} changes for each"):
            await arrived(before + 1 + changes)
        with memory.phase("at rest"):
            await asyncio.sleep(4)
        ended.set()
        await arrived(total)
        await asyncio.gather(*following)
    assert {tally.count for tally in tallies} == {total} == {mongo[COLLECTION].estimated_document_count()}
    # Piled up in the server, it would be seen.
    assert changes * width > A_REPLICA * 1.3
    check(memory, A_REPLICA * replicas, capsys)
