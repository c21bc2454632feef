"""Three ``runwatcher`` processes over Redis and PostgreSQL: one leads, whatever becomes of it, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer
from pymongo.database import Database

from changesource.services.publisher import group_of
from changesource.services.subscriber import Subscriber
from changesource.sources.mongodb.source import servers_of
from changesource.stream.batches import Batch
from devtools.processes import wait_until
from devtools.redis import RedisServer
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, Writers, everything, fill, last_write
from tests.harness.deployment import Running
from tests.harness.reader import Reader


def led(watcher: Running) -> int:
    """How often it began to lead."""
    return watcher.log_text().count("leading lease=watcher")


def last_said(watcher: Running) -> str:
    """What it said last of the lease."""
    lines = [line for line in watcher.log_text().splitlines() if "lease=watcher" in line]
    return lines[-1] if lines else ""


def leaders(watchers: list[Running]) -> list[Running]:
    return [watcher for watcher in watchers if watcher.exit_code is None and ": leading" in last_said(watcher)]


class Ear(asyncio.Queue[Batch]):
    """In a mailbox's place: keeps everything that watchers publish."""

    def offer(self, batch: Batch, size: int) -> None:
        """See ``Mailbox``."""
        self.put_nowait(batch)

    async def announcement(self) -> Batch:
        """Wait for what only a watcher that begins to lead publishes: all before it is to be pulled."""
        async with asyncio.timeout(60):
            while not ((batch := await self.get()).pull and batch.follows == batch.end):
                pass
        return batch

    async def rows(self, after: int) -> Batch:
        """Wait for rows that changed after the position ``after``."""
        async with asyncio.timeout(60):
            while not (batch := await self.get()).frames or batch.end <= after:
                pass
        return batch


@dataclass(frozen=True)
class Load:
    """What is written meanwhile, and how often the leader is killed; ``pause`` is in seconds."""

    name: str
    threads: int
    pause: float
    kills: int


@pytest.mark.parametrize(
    "load",
    [
        # First, while SecantusDB's oplog is short: it opens change streams the more slowly the more that holds.
        pytest.param(Load("quiet", 1, 0.1, 5), id="quiet-repeated", marks=pytest.mark.slow),
        pytest.param(Load("under load", 2, 0, 1), id="load"),
        pytest.param(Load("under load", 2, 0, 5), id="load-repeated", marks=pytest.mark.slow),
    ],
)
async def test_another_publishes_soon_after_the_leader_was_killed(
    deployment: DeploymentFactory,
    mongodb: MongoServer,
    mongo: Database[Any],
    redis: RedisServer,
    capsys: pytest.CaptureFixture[str],
    load: Load,
) -> None:
    """Within 10 s under load, with settings as they are by default. On a quiet machine it is under 5 s: printed."""
    fill(mongo, 200, others=50)
    place = deployment("postgres", redis=True)
    place.configure(mappings=MAPPINGS)
    layer = RedisChannelLayer(hosts=[{"address": redis.url, "socket_timeout": 15}], capacity=10_000)
    subscriber, ear = Subscriber(layer, group_of(*servers_of(mongodb.uri), mongo.name, "_zerosource")), Ear()
    subscriber.attach(ear)
    watchers = [place.watcher() for _ in range(2)]
    announced, published = [], []
    try:
        await ear.announcement()
        with Writers(mongodb.uri, mongo.name, threads=load.threads, items=200, pause=load.pause):
            for _ in range(load.kills):
                await asyncio.to_thread(wait_until, lambda: all(map(last_said, watchers)), "one to stand by", 30)
                (leader,) = leaders(watchers)
                killed = monotonic()
                await asyncio.to_thread(leader.kill)
                batch = await ear.announcement()
                announced.append(monotonic() - killed)
                await ear.rows(batch.end)
                published.append(monotonic() - killed)
                watchers.remove(leader)
                watchers.append(place.watcher())
    finally:
        subscriber.detach(ear)
        await layer.close_pools()
    with capsys.disabled():
        for what, seconds in (("announced", announced), ("first rows", published)):
            print(f"\ntake-over {load.name}: {what} {median(seconds):.2f} s median, {max(seconds):.2f} s most", end=" ")
    assert max(published) < 10


async def test_the_leader_is_killed_paused_and_stopped(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    fill(mongo, 200, others=50)
    place = deployment("postgres", redis=True, LEASE_SECONDS="1.5")
    place.configure(mappings=MAPPINGS)
    server = await asyncio.to_thread(place.server, "--no-watcher")
    watchers = [place.watcher() for _ in range(3)]

    async def one(before: Callable[[], object] | None = None) -> Running:
        """Do something, and return who leads, once it is one that did not before."""
        old = leaders(watchers)
        if before is not None:
            await asyncio.to_thread(before)
        await asyncio.to_thread(
            wait_until,
            lambda: len(leaders(watchers)) == 1 and leaders(watchers) != (old if before else []),
            "a leader",
            30,
            detail=lambda: "\n".join(last_said(watcher) for watcher in watchers),
        )
        return leaders(watchers)[0]

    reader = Reader(server.stream_url)
    await reader.sync()
    first = await one()
    with Writers(mongodb.uri, mongo.name, threads=1, items=200, pause=0.02) as writers:
        done = asyncio.Event()
        following = asyncio.create_task(reader.follow(done.is_set))
        # Paused: another leads; awake again it steps down.
        first.signal(signal.SIGSTOP)
        second = await asyncio.to_thread(
            wait_until, lambda: next((w for w in watchers if w is not first and led(w)), None), "another", 30
        )
        first.signal(signal.SIGCONT)
        await asyncio.to_thread(
            wait_until, lambda: "lost the lead" in first.log_text(), "the first one's stepping down", 30
        )
        assert await one() is second
        third = await one(second.kill)
        assert third is not second
        # A clean stop hands over at once; the last one left leads on.
        assert await one(third.stop) not in (second, third)
        written = writers.total
        await asyncio.to_thread(wait_until, lambda: writers.total > written + 100, "more writes", 30)
    done.set()
    await asyncio.to_thread(last_write, mongo, "item")
    await following
    assert reader.model.reset is None
    key = await asyncio.to_thread(last_write, mongo, "item")
    await reader.follow(lambda: key in reader.model.rows("item"))
    for name, rows in (await asyncio.to_thread(everything, mongo)).items():
        assert reader.model.rows(name) == rows, name
    assert len(leaders(watchers)) == 1
