"""The watcher, the publisher and the subscriber, over Channels' own layer in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from channels.layers import InMemoryChannelLayer

from changesource.exceptions import CursorLost, SourceUnavailable, WatermarkInFuture
from changesource.mapping.compiled import ignore_fault
from changesource.mapping.spec import TableSpec
from changesource.services import subscriber as subscriber_module
from changesource.services.publisher import MESSAGE_TYPE, Publisher
from changesource.services.subscriber import Subscriber
from changesource.services.watcher import Revision, Watcher
from changesource.sources.scripted import ScriptedSource, Write
from changesource.stream.batches import BARRIER, Batch
from changesource.stream.grouping import Bounds
from tests.harness.chat import CHAT, MESSAGE, compiled
from tests.harness.waiting import DEADLINE, until

GROUP = "zerosource"


class Ear(asyncio.Queue[Batch]):
    """In a mailbox's place: keeps everything, in the order in which it came."""

    def offer(self, batch: Batch, size: int) -> None:
        self.put_nowait(batch)


class Scene:
    """A watcher, the layer, and a mailbox that hears it."""

    def __init__(self, keepalive: float = 30.0) -> None:
        self.source = ScriptedSource(feed_batch=3)
        self.layer = InMemoryChannelLayer(capacity=10_000)
        self.publisher = Publisher(self.layer)
        self.subscriber = Subscriber(self.layer)
        self.mailbox = Ear()
        self.revision = Revision(1, compiled())
        self.watcher = Watcher(
            self.source,
            self.publisher,
            self.current,
            bounds=Bounds(rows=5, age=0.05),
            keepalive=keepalive,
            report=ignore_fault,
        )
        self.heard: list[Batch] = []

    async def current(self) -> Revision:
        return self.revision

    def insert(self, one: str) -> int:
        return self.source.insert("messages", {"_id": one, "body": "x"})

    async def hear(self, wanted: Callable[[Batch], bool]) -> Batch:
        """Return the first batch from now on that is ``wanted``."""
        async with asyncio.timeout(DEADLINE):
            while True:
                batch = await self.mailbox.get()
                self.heard.append(batch)
                if wanted(batch):
                    return batch

    async def hear_up_to(self, cluster_time: int) -> Batch:
        return await self.hear(lambda batch: batch.end >= cluster_time)

    def follows(self) -> bool:
        """Whether each batch that was heard follows the one before."""
        return all(one.end == other.follows for one, other in zip(self.heard, self.heard[1:], strict=False))


@asynccontextmanager
async def watching(scene: Scene) -> AsyncIterator[Scene]:
    """Run the watcher, and a subscriber that hears it from its beginning."""
    scene.subscriber.attach(scene.mailbox)
    await until(lambda: bool(scene.layer.groups.get(GROUP)))
    task = asyncio.create_task(scene.watcher.run())
    try:
        await until(lambda: bool(scene.source.feeds))
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        scene.subscriber.detach(scene.mailbox)
        await until(lambda: not scene.layer.groups.get(GROUP))
    assert not scene.source.feeds


async def test_batches_follow_each_other_from_a_barrier_on() -> None:
    async with watching(Scene()) as it:
        start = it.watcher.position
        for number in range(50):
            end = it.insert(str(number))
            if number % 7 == 0:
                await asyncio.sleep(0.003)
        await it.hear_up_to(end)
        assert it.heard[0].follows == start
        assert it.follows()
        assert sum(len(batch.frames) for batch in it.heard) == 50
        assert it.watcher.position == end
        assert it.publisher.published == len(it.heard)


async def test_a_transaction_too_large_for_the_layer_is_announced() -> None:
    async with watching(Scene()) as it:
        first = it.insert("a")
        await it.hear_up_to(first)
        end = it.source.transaction([Write("insert", "messages", {"_id": str(n), "body": "x"}) for n in range(40)])
        announced = await it.hear_up_to(end)
        assert announced == Batch(first, end, it.revision.mapping.fingerprints, pull=True)
        after = await it.hear_up_to(it.insert("z"))
        assert (after.follows, after.pull) == (end, False)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_a_passing_fault_leaves_no_gap(nth: int) -> None:
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.source.fail("poll", CursorLost(), nth)
        it.source.fail("feed", SourceUnavailable())
        for number in range(20):
            end = it.insert(str(number))
        await it.hear_up_to(end)
        assert it.follows()
        assert sum(len(batch.frames) for batch in it.heard) == 21


async def test_a_fault_in_a_large_transaction_leaves_no_gap() -> None:
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.source.fail("poll", CursorLost(), 5)
        end = it.source.transaction([Write("insert", "messages", {"_id": str(n), "body": "x"}) for n in range(40)])
        announced = await it.hear_up_to(end)
        assert announced.pull
        assert it.follows()


async def test_at_first_faults_it_waits() -> None:
    it = Scene()
    for nth in (1, 2):
        it.source.fail("barrier", SourceUnavailable(), nth)
    async with watching(it):
        await it.hear_up_to(it.insert("a"))


async def test_after_history_was_lost_it_goes_on_from_now() -> None:
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.source.fail("poll", CursorLost())
        it.insert("lost")
        it.source.truncate(it.source.now)
        await until(lambda: it.source.calls["barrier"] == 2 and bool(it.source.feeds))
        batch = await it.hear_up_to(it.insert("b"))
        assert batch.follows > it.heard[0].end
        assert len(batch.frames) == 1


async def test_after_mongodb_was_set_back_it_goes_on_from_now() -> None:
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.source.fail("poll", WatermarkInFuture())
        await until(lambda: it.source.calls["barrier"] == 2 and bool(it.source.feeds))
        await it.hear_up_to(it.insert("b"))


async def test_while_nothing_happens_it_writes_heartbeats() -> None:
    async with watching(Scene(keepalive=0.05)) as it:
        for _ in range(3):
            batch = await it.hear(lambda batch: not batch.pull)
            assert {table for _, table, _ in batch.runs} == {BARRIER}
            assert batch.frames == ()
        assert it.follows()


async def test_what_others_write_to_the_barrier_collection_counts_as_a_heartbeat() -> None:
    """Two watchers do not write twice as many."""
    async with watching(Scene(keepalive=0.3)) as it:
        for _ in range(20):
            await it.source.barrier("another")
            await it.hear_up_to(it.source.now)
            await asyncio.sleep(0.05)
        assert it.source.calls["mark"] <= 1


async def test_a_new_revision_is_taken_up() -> None:
    other = TableSpec(**{**CHAT.__dict__, "filter": {"kind": "other"}})
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.revision = Revision(2, compiled(MESSAGE, other))
        # Half a second is left for what is known of the database, which a process asks twice a second.
        await until(lambda: it.source.calls["barrier"] == 2 and bool(it.source.feeds), 1.5)
        batch = await it.hear_up_to(it.source.insert("rooms", {"_id": 1, "kind": "other"}))
        assert batch.fingerprints == it.revision.mapping.fingerprints
        assert len(batch.frames) == 1
        # Whatever came between is a gap, never a wrong batch.
        assert batch.follows > it.heard[0].end


async def test_a_refill_is_published() -> None:
    async with watching(Scene()) as it:
        it.source.insert("temporary", {"_id": "x", "body": "x"})
        renamed = it.source.rename("temporary", "messages")
        batch = await it.hear_up_to(renamed)
        assert batch.refill == {"message": renamed}


# The way through the layer.


async def send(it: Scene, message: dict[str, object]) -> None:
    await it.layer.group_send(GROUP, message)


async def test_what_is_not_a_batch_is_passed_over() -> None:
    async with watching(Scene()) as it:
        for payload in (b"", b"{}", b"\x80\x04", b'{"follows":1}\nx'):
            await send(it, {"type": MESSAGE_TYPE, "payload": payload})
        await send(it, {"type": MESSAGE_TYPE, "payload": "text"})
        await send(it, {"type": "another"})
        await it.hear_up_to(it.insert("a"))
        assert it.subscriber.unreadable == 4
        assert it.subscriber.received == 2, "that it began, and this"


async def test_all_mailboxes_of_a_process_are_filled_by_one_receiver() -> None:
    async with watching(Scene()) as it:
        second = Ear()
        it.subscriber.attach(second)
        batch = await it.hear_up_to(it.insert("a"))
        assert await second.get() == batch
        assert len(it.layer.groups[GROUP]) == 1
        it.subscriber.detach(second)
        await it.hear_up_to(it.insert("b"))
        assert second.empty()


async def test_nothing_is_left_behind_once_nobody_listens() -> None:
    """A membership or a channel that stays would fill up with what nobody reads."""
    it = Scene()
    before = asyncio.all_tasks()
    for _ in range(3):
        async with watching(it):
            await it.hear_up_to(it.insert(f"a{it.source.now}"))
        await it.publisher.publish(Batch(0, 1, {}))
        assert not it.layer.channels
        await until(lambda: asyncio.all_tasks() == before)


async def test_a_membership_that_expired_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber_module, "REJOIN_SECONDS", 0.01)
    async with watching(Scene()) as it:
        await it.hear_up_to(it.insert("a"))
        it.layer.groups.clear()
        await until(lambda: bool(it.layer.groups.get(GROUP)))
        await it.hear_up_to(it.insert("b"))


class BrokenLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """A layer whose server goes away at times."""

    broken = False

    async def group_send(self, group: str, message: dict[str, object]) -> None:
        await self._may_break(super().group_send(group, message))

    async def group_add(self, group: str, channel: str) -> None:
        await self._may_break(super().group_add(group, channel))

    async def _may_break(self, action: Awaitable[None]) -> None:
        await action
        if self.broken:
            raise ConnectionResetError("the layer is gone")


async def test_a_layer_that_fails_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber_module, "REJOIN_SECONDS", 0.01)
    it = Scene()
    layer = it.layer = BrokenLayer(capacity=10_000)
    it.publisher._layer = it.subscriber._layer = layer
    async with watching(it):
        await it.hear_up_to(it.insert("a"))
        layer.broken = True
        it.insert("b")
        await until(lambda: it.publisher.failed > 0)
        layer.broken = False
        layer.groups.clear()
        await until(lambda: bool(layer.groups.get(GROUP)))
        await it.hear_up_to(it.insert("c"))
