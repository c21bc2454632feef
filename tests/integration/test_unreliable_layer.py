"""A channel layer that loses, repeats and reorders: replicas are exact all the same."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification
from changesource.protocol.request import StreamRequest
from changesource.services.publisher import Layer, Publisher
from changesource.services.session import Limits, ReplicaSession
from changesource.services.subscriber import Subscriber
from changesource.services.watcher import Revision, Watcher
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.grouping import Bounds
from tests.conftest import MongoServer
from tests.harness.app import MAPPINGS, PIPELINES, Writers, everything, fill, last_write
from tests.harness.model import ModelReplica

pytestmark = pytest.mark.django_db(transaction=True)
KEEPALIVE = 1.0
BATCHES = 300


class Unreliable:
    """A layer that drops a third of what is sent, repeats a third, and swaps neighbours; it counts each."""

    def __init__(self, inner: Layer, seed: int) -> None:
        """``inner`` is a real channel layer."""
        self._inner = inner
        self._chance = random.Random(seed)
        self._held: dict[str, object] | None = None
        self.counts: Counter[str] = Counter()

    async def group_send(self, group: str, message: dict[str, object]) -> None:
        """Send, or not, or twice, or after the next one."""
        self.counts["sent"] += 1
        choice = self._chance.randrange(3)
        if choice == 0:
            self.counts["dropped"] += 1
            return
        if self._held is None and self._chance.random() < 0.3:
            self._held = message
            return
        await self._inner.group_send(group, message)
        if choice == 1:
            self.counts["repeated"] += 1
            await self._inner.group_send(group, message)
        if self._held is not None:
            self.counts["swapped"] += 1
            held, self._held = self._held, None
            await self._inner.group_send(group, held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass
class Whole:
    """A watcher and one replica's session in this process, over one layer."""

    source: MongoSource
    mapping: CompiledMapping
    layer: Any
    model: ModelReplica = field(default_factory=ModelReplica)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = Limits(Bounds(rows=50, age=0.05), KEEPALIVE)
        self.subscriber = Subscriber(self.layer)

    async def revision(self) -> Revision:
        """One revision, for good."""
        return Revision(1, self.mapping)

    def watch(self) -> None:
        """Start a watcher."""
        watcher = Watcher(
            self.source,
            Publisher(self.layer),
            self.revision,
            bounds=self.limits.bounds,
            keepalive=KEEPALIVE,
            report=lambda fault: pytest.fail(f"{fault}"),
        )
        self.tasks.append(asyncio.create_task(watcher.run()))

    async def send(self, frame: str) -> None:
        """Apply what the session sends."""
        self.model.apply(frame)

    def connect(self, version: str = "") -> ReplicaSession:
        """Start the session that zero-cache would get now."""
        last = self.model.last_watermark
        request = StreamRequest("layer", 0, (), last, version)
        session = ReplicaSession(request, self.mapping, self.source, self.subscriber, self.limits, self.send)
        self.tasks.append(asyncio.create_task(session.run()))
        return session

    async def until(self, condition: Any, seconds: float = 90) -> None:
        """Wait for a condition; a task that ends meanwhile fails the test with its cause."""
        async with asyncio.timeout(seconds):
            while not condition():
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.source.close()


@pytest.fixture(params=["memory", "redis"])
async def whole(
    request: pytest.FixtureRequest, mongodb: MongoServer, mongo: Database[Any]
) -> AsyncIterator[Whole]:
    """The parts of one process, over each kind of layer, made unreliable."""
    inner: Any = InMemoryChannelLayer()
    if request.param == "redis":
        inner = RedisChannelLayer(hosts=[request.getfixturevalue("redis").url])
    source = MongoSource(mongodb.uri, mongo.name, "_zerosource")
    mapping = CompiledMapping.compile(read_specification(MAPPINGS), mongo.name)
    made = Whole(source, mapping, Unreliable(inner, seed=3))
    yield made
    await made.close()
    if request.param == "redis":
        await inner.close_pools()


async def test_a_layer_that_loses_repeats_and_swaps(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Each fault struck, gaps were pulled, the replica is exact and its watermarks rise strictly."""
    fill(mongo, 300)
    whole.watch()
    whole.connect()
    await whole.until(lambda: whole.model.commits)
    session = whole.connect(whole.model.last_watermark)
    counts = whole.layer.counts
    with Writers(mongodb.uri, mongo.name, threads=2, items=300) as writers:
        await whole.until(lambda: (counts["sent"] > BATCHES and session.tallies.gaps > 5) or writers.errors)
    key = await asyncio.to_thread(last_write, mongo, "item")
    await whole.until(lambda: key in whole.model.rows("item"))
    print(f"layer {dict(counts)}, session {session.tallies}")
    for fault in ("dropped", "repeated", "swapped"):
        assert counts[fault] > 0, fault
    assert session.tallies.gaps > 0
    assert session.tallies.sent > 0
    assert session.tallies.pulled > 0
    assert session.mailbox.skipped > 0
    for table, rows in everything(mongo).items():
        assert whole.model.rows(table) == rows, table
    assert all(a < b for a, b in itertools.pairwise(whole.model.commits))
    assert set(PIPELINES) <= set(whole.model.tables)


async def test_no_watcher_at_all(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """With nobody publishing, the session reads MongoDB itself, and writes the heartbeats that keep it fresh."""
    fill(mongo, 100)
    whole.connect()
    await whole.until(lambda: whole.model.commits)
    whole.connect(whole.model.last_watermark)
    with Writers(mongodb.uri, mongo.name, threads=1, items=100) as writers:
        await whole.until(lambda: writers.total > 500)
    key = await asyncio.to_thread(last_write, mongo, "item")
    await whole.until(lambda: key in whole.model.rows("item"))
    for table, rows in everything(mongo).items():
        assert whole.model.rows(table) == rows, table
    quiet = len(whole.model.commits)
    await whole.until(lambda: len(whole.model.commits) >= quiet + 2, seconds=10 * KEEPALIVE)
    assert [changes for _, changes in whole.model.transactions[quiet:]] == [0, 0]


async def test_two_watchers_at_once_do_no_harm(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Both publish everything; the replica takes each change once."""
    fill(mongo, 100)
    whole.watch()
    whole.watch()
    whole.connect()
    await whole.until(lambda: whole.model.commits)
    whole.connect(whole.model.last_watermark)
    with Writers(mongodb.uri, mongo.name, threads=1, items=100) as writers:
        await whole.until(lambda: writers.total > 500)
    key = await asyncio.to_thread(last_write, mongo, "item")
    await whole.until(lambda: key in whole.model.rows("item"))
    for table, rows in everything(mongo).items():
        assert whole.model.rows(table) == rows, table
