"""A channel layer that loses, repeats and reorders: replicas are exact all the same."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from pymongo.database import Database

from changesource.services.publisher import Layer
from tests.conftest import MongoServer
from tests.harness.app import PIPELINES, Writers, fill
from tests.harness.whole import KEEPALIVE, Whole

pytestmark = pytest.mark.django_db(transaction=True)
SECONDS = 90.0
BATCHES = 60
WRITES = 200


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


@pytest.fixture(params=["memory", "redis"])
async def whole(request: pytest.FixtureRequest, mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Whole]:
    """The parts of one process, over each kind of layer, made unreliable."""
    inner: Any = InMemoryChannelLayer()
    if request.param == "redis":
        inner = RedisChannelLayer(hosts=[request.getfixturevalue("redis").url])
    made = Whole(mongodb.uri, mongo, layer=Unreliable(inner, seed=3))
    yield made
    await made.close()
    if request.param == "redis":
        await inner.close_pools()


async def test_a_layer_that_loses_repeats_and_swaps(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Each fault struck, gaps were pulled, the replica is exact and its watermarks rise strictly."""
    fill(mongo, 300)
    replica = whole.replica()
    counts = whole.layer.counts
    async with whole.watched():
        await replica.sync()
        async with replica.connection() as connection:
            session = connection.session
            with Writers(mongodb.uri, mongo.name, threads=2, items=300) as writers:
                await connection.until(
                    lambda: (counts["sent"] > BATCHES and session.tallies.gaps > 5) or bool(writers.errors), SECONDS
                )
            await whole.settle(connection, "item", SECONDS)
    print(f"layer {dict(counts)}, session {session.tallies}")
    for fault in ("dropped", "repeated", "swapped"):
        assert counts[fault] > 0, fault
    assert session.tallies.gaps > 0
    assert session.tallies.sent > 0
    assert session.tallies.pulled > 0
    assert session.mailbox.skipped > 0
    assert all(a < b for a, b in itertools.pairwise(replica.model.commits))
    assert set(PIPELINES) <= set(replica.model.tables)


async def test_no_watcher_at_all(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """With nobody publishing, the session reads MongoDB itself, and writes the heartbeats that keep it fresh."""
    fill(mongo, 100)
    replica = whole.replica()
    await replica.sync()
    async with replica.connection() as connection:
        with Writers(mongodb.uri, mongo.name, threads=1, items=100) as writers:
            await connection.until(lambda: writers.total > WRITES, SECONDS)
        await whole.settle(connection, "item", SECONDS)
        quiet = len(replica.model.commits)
        await connection.until(lambda: len(replica.model.commits) >= quiet + 2, 10 * KEEPALIVE)
    assert [changes for _, changes in replica.model.transactions[quiet:]] == [0, 0]


async def test_two_watchers_at_once_do_no_harm(whole: Whole, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Both publish everything; the replica takes each change once."""
    fill(mongo, 100)
    replica = whole.replica()
    await replica.sync()
    async with whole.watched(), whole.watched(), replica.connection() as connection:
        with Writers(mongodb.uri, mongo.name, threads=1, items=100) as writers:
            await connection.until(lambda: writers.total > WRITES, SECONDS)
        await whole.settle(connection, "item", SECONDS)
