"""Writers never stop while a real zero-cache syncs, streams, and is killed and restarted: it ends exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.change_stream import DatabaseChangeStream
from pymongo.database import Database

from devtools.processes import alive, wait_until
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import MAPPINGS, PIPELINES, Writers, fill
from tests.harness.proxy import RecordingProxy, check_finds_a_repeat, check_watermarks
from tests.harness.replicas import settle, stored_watermark

ITEMS = 30_000
MANY_ITEMS = 50_000
FEW_ITEMS = 2_000
WRITES = 5_000
TABLES = list(PIPELINES)
# Slow enough that the copy cannot end, whatever buffers are on the way, before enough was written.
HELD_BACK = 20_000
BARRIERS = "_zerosource"
SNAPSHOT = "snapshot zero/0"


class Order:
    """The order in which MongoDB has the snapshot's barriers and the test's own marks, by a change stream."""

    def __init__(self, database: Database[Any], stream: DatabaseChangeStream[Any]) -> None:
        self._marks = database["marks"]
        self._stream = stream
        self.seen: list[str] = []

    def mark(self, name: str) -> None:
        """Write a mark; it is acknowledged when this returns."""
        self._marks.insert_one({"_id": name})

    def wait(self, count: int, timeout: float = 60) -> list[str]:
        """Wait until so many barriers and marks have been written; return their names."""
        wait_until(lambda: self._read() >= count, f"{count} barriers and marks", timeout, detail=lambda: str(self.seen))
        return self.seen

    def _read(self) -> int:
        while event := self._stream.try_next():
            name = event["documentKey"]["_id"]
            if event["ns"]["coll"] == "marks" or name == SNAPSHOT:
                self.seen.append(name)
        return len(self.seen)


@pytest.fixture
def order(mongo: Database[Any]) -> Iterator[Order]:
    """Watches from now on."""
    wanted = [{"$match": {"ns.coll": {"$in": [BARRIERS, "marks"]}}}]
    with mongo.watch(wanted, max_await_time_ms=50) as stream:
        yield Order(mongo, stream)


@pytest.mark.parametrize("items", [ITEMS, pytest.param(MANY_ITEMS, marks=pytest.mark.slow)])
def test_writers_during_the_initial_sync(
    deployment: DeploymentFactory,
    mongodb: MongoServer,
    mongo: Database[Any],
    zero_cache: ZeroCacheFactory,
    order: Order,
    items: int,
) -> None:
    """At least 5,000 writes are acknowledged between the two barriers; the replica equals MongoDB row for row."""
    fill(mongo, items)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    with RecordingProxy(place.server().port, HELD_BACK) as proxy:
        cache = zero_cache(proxy.stream_url)
        write_between_the_barriers(proxy, order, Writers(mongodb.uri, mongo.name, items=items))
        settle(cache, mongo, TABLES)
        assert cache.exits == []
        check_watermarks(proxy.connections)


def test_a_snapshot_that_catches_up_while_it_copies(
    deployment: DeploymentFactory,
    mongodb: MongoServer,
    mongo: Database[Any],
    zero_cache: ZeroCacheFactory,
    order: Order,
) -> None:
    """zero-cache takes rows, changes and rows again in one transaction; in the end it equals MongoDB row for row."""
    fill(mongo, FEW_ITEMS * 3)
    place = deployment(SNAPSHOT_CATCH_UP_SECONDS="0.01", SNAPSHOT_BATCH_ROWS="1500")
    place.configure(mappings=MAPPINGS)
    with RecordingProxy(place.server().port) as proxy:
        with Writers(mongodb.uri, mongo.name, threads=2, items=FEW_ITEMS * 3, pause=0.02) as writers:
            cache = zero_cache(proxy.stream_url)
            wait_until(lambda: proxy.connections and proxy.connections[0].commits, "the snapshot", 180)
            assert writers.total > 100
        settle(cache, mongo, TABLES)
        assert cache.exits == []
        check_watermarks(proxy.connections)
    # T0, Tb, and one after each turn of a copy.
    assert len(order.wait(6)) >= 6


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_zero_cache_killed_in_mid_stream(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], zero_cache: ZeroCacheFactory, kills: int
) -> None:
    """Again and again, while writers run: it always comes back from a higher place, and ends exact."""
    fill(mongo, FEW_ITEMS)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    with RecordingProxy(place.server().port) as proxy:
        cache = zero_cache(proxy.stream_url)
        cache.wait_ready()
        # Gentle ones: they run all the time, and zero-cache needs the processor to start.
        with Writers(mongodb.uri, mongo.name, threads=2, items=FEW_ITEMS, pause=0.1) as writers:
            for _ in range(kills):
                kill_in_mid_stream(cache, proxy, writers)
        settle(cache, mongo, TABLES)
        assert cache.exits == []
        marks = [connection.last_watermark for connection in proxy.connections]
        assert marks[0] == ""
        assert len(set(marks)) == len(marks) >= kills + 2
        assert marks == sorted(marks)
        check_watermarks(proxy.connections)
        check_finds_a_repeat(proxy.connections)


def write_between_the_barriers(proxy: RecordingProxy, order: Order, writers: Writers) -> None:
    """Hold the copy back until enough was acknowledged after the first barrier; the last one comes only then."""
    with writers:
        assert order.wait(1) == [SNAPSHOT]
        order.mark("counting begins")
        before = dict(writers.counts)
        # What each thread had under way when the first mark came may be counted late.
        wait_until(
            lambda: writers.total - sum(before.values()) >= WRITES + 100 or writers.errors, f"{WRITES} writes", 60
        )
        after = dict(writers.counts)
        order.mark("counting ends")
        proxy.release()
        assert order.wait(4) == [SNAPSHOT, "counting begins", "counting ends", SNAPSHOT]
        # Some more while zero-cache takes over.
        wait_until(lambda: len(proxy.connections) > 1 and len(proxy.connections[-1].commits) > 20, "live changes", 60)
    written = {kind: after[kind] - before[kind] for kind in after}
    print(f"acknowledged between the two barriers: {written}; the snapshot took {proxy.connections[0].size} bytes")
    assert sum(written.values()) >= WRITES
    assert all(written.values())


def kill_in_mid_stream(cache: ZeroCache, proxy: RecordingProxy, writers: Writers) -> None:
    """Kill all of zero-cache once it has stored something, start it, and wait until it comes back from there."""
    connection = proxy.connections[-1]
    wait_until(
        lambda: len(connection.commits) > 5 and stored_watermark(cache) > connection.last_watermark,
        "zero-cache to move on",
        60,
        detail=cache.log_tail,
    )
    written, number = writers.total, len(proxy.connections)
    pids = cache.pids()
    assert len(pids) > 2
    cache.kill()
    assert not alive(pids)
    cache.start()
    wait_until(lambda: len(proxy.connections) > number, "zero-cache to come back", 60, detail=cache.log_tail)
    back = proxy.connections[-1]
    assert back.last_watermark > connection.last_watermark
    assert back.last_watermark in connection.commits
    assert back.query["replicaVersion"] == [proxy.connections[0].commits[0]]
    assert writers.total > written
