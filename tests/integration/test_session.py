"""Replicas on the scripted source and Channels' layer in memory: what they show at every single commit is exact.

The database is real: a session remembers there what its snapshot showed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import wraps
from time import monotonic, sleep
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer

from changesource.exceptions import (
    CursorLost,
    PrivilegeMissing,
    SourceUnavailable,
    UnknownPublication,
    ZerosourceError,
)
from changesource.mapping.compiled import CompiledMapping, ignore_fault
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.models import RowError
from changesource.models import Watermark as WatermarkRow
from changesource.protocol.watermark import Watermark
from changesource.services.limits import Limits
from changesource.services.publisher import Layer, Publisher
from changesource.services.replay import batches
from changesource.services.subscriber import Subscriber
from changesource.services.watcher import Revision, Watcher
from changesource.sources.scripted import Call, ScriptedSource, Write
from changesource.store import watermarks
from changesource.stream.batches import Batch
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from tests.harness.chat import CHANNEL, CHAT, MESSAGE, compiled, expected, shown
from tests.harness.layers import FaultyLayer
from tests.harness.link import LIMITS, Connection, Replica
from tests.harness.waiting import until
from tests.harness.writers import Writer

pytestmark = pytest.mark.django_db(transaction=True)
# Where the layer loses what came last, only silence tells.
BRISK = replace(LIMITS, keepalive=0.3)

ARCHIVE = TableSpec(
    name="archive", collection="archive", columns=(ColumnSpec("id", "string", "_id"),), primary_key=("id",)
)


class Place:
    """A source with documents, a layer, and what serves replicas."""

    def __init__(self, *, seed: int = 1, layer: Layer | None = None) -> None:
        self.source = ScriptedSource(feed_batch=5, snapshot_batch=10)
        self.writer = Writer(self.source, seed)
        self.writer.fill(20)
        self.layer: Layer = layer or InMemoryChannelLayer(capacity=1000)
        self.subscriber = Subscriber(self.layer)
        self.mapping = compiled()

    def replica(self, *publications: str, app_id: str = "app", limits: Limits = LIMITS) -> Replica:
        """Return a replica that compares itself with the source at each commit."""
        replica = Replica(
            self.source, self.subscriber, self.mapping, publications=publications, app_id=app_id, limits=limits
        )
        tables = tuple(self.mapping.published(publications).tables)
        history = self.source.history()

        def check(watermark: str) -> None:
            # The first commit shows the state at the second barrier, which is later than its watermark.
            if len(replica.model.commits) > 1:
                state = history.forward(Watermark.parse(watermark).cluster_time)
                assert shown(replica.model, tables) == expected(state, tables)

        replica.on_commit = check
        return replica

    def is_exact(self, replica: Replica) -> bool:
        """Whether the replica shows, committed, what is there now."""
        if replica.model.open:
            return False
        tables = tuple(self.mapping.published(replica.publications).tables)
        return shown(replica.model, tables) == expected(self.source.state, tables)

    async def batch(self, after: int) -> Batch:
        """Return all after ``after`` as one batch, as a watcher would make it."""
        stream = batches(
            self.source, Transform(self.mapping), self.mapping.needs, after, bounds=Bounds(age=1e9), idle_ms=1
        )
        async with aclosing(stream):
            async for batch in stream:
                if batch is not None:
                    return batch
        raise AssertionError("the stream ended")

    @asynccontextmanager
    async def watched(self, mapping: CompiledMapping | None = None, keepalive: float = 30.0) -> AsyncIterator[Watcher]:
        """Run a watcher."""
        revision = Revision(1, mapping or self.mapping)

        async def current() -> Revision:
            return revision

        watcher = Watcher(
            self.source,
            Publisher(self.layer),
            current,
            bounds=LIMITS.bounds,
            keepalive=keepalive,
            report=ignore_fault,
        )
        task = asyncio.create_task(watcher.run())
        try:
            await until(lambda: watcher.position > 0)
            yield watcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def rising(replica: Replica) -> bool:
    return all(one < other for one, other in itertools.pairwise(replica.model.commits))


@database_sync_to_async
def row(app_id: str = "app") -> WatermarkRow:
    return WatermarkRow.objects.get(kind="replica", app_id=app_id)


async def test_the_snapshot_is_exact_where_the_session_says_so() -> None:
    it = Place()
    replica = it.replica()
    it.source.before("documents", 2, it.writer.step)
    it.source.before("documents", 4, it.writer.step)
    await replica.sync()
    known = await row()
    assert known.replica_version == replica.version
    assert shown(replica.model) == expected(it.source.state_at(int(known.sync_end)))
    assert int(known.sync_end) > Watermark.parse(replica.version).cluster_time
    assert (known.state, known.acked) == ("disconnected", replica.version)


async def test_what_the_snapshot_shows_already_is_not_replayed() -> None:
    it = Place()
    replica = it.replica()
    for nth in (1, 3, 5):
        it.source.before("documents", nth, it.writer.step)
    await replica.sync()
    async with replica.connection() as connection:
        it.source.insert("messages", {"_id": "after", "body": "x"})
        await connection.until(lambda: it.is_exact(replica))
    assert [changes for _, changes in replica.model.transactions[1:]] == [1]


async def test_without_a_watcher_every_change_arrives() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with replica.connection() as connection:
        await it.writer.run(100)
        await connection.until(lambda: it.is_exact(replica))
        assert connection.session.tallies.pulled > 0
        assert connection.session.tallies.sent == 0
    assert rising(replica)
    assert not it.source.feeds


async def test_with_a_watcher_batches_come_by_the_layer() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with it.watched(), replica.connection() as connection:
        while connection.session.tallies.sent <= 3:
            await it.writer.run(10)
        await connection.until(lambda: it.is_exact(replica))
        await until(lambda: len(it.source.feeds) == 1)
    assert rising(replica)


async def test_the_lost_row_of_a_snapshot_only_costs_a_replay() -> None:
    it = Place()
    replica = it.replica()
    it.source.before("documents", 2, it.writer.step)
    await replica.sync()
    await database_sync_to_async(WatermarkRow.objects.all().delete)()
    replica.on_commit = lambda watermark: None
    async with replica.connection() as connection:
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
    assert rising(replica)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_layer_does_the_replica_is_exact_at_every_commit(seed: int) -> None:
    faulty = FaultyLayer(InMemoryChannelLayer(capacity=1000), seed)
    it = Place(seed=seed, layer=faulty)
    everything, talk = it.replica(limits=BRISK), it.replica("talk", app_id="talk", limits=BRISK)
    await everything.sync()
    await talk.sync()
    async with it.watched(keepalive=BRISK.keepalive), everything.connection() as one, talk.connection() as other:
        tallies = one.session.tallies
        # Until each kind of mischief was met: how soon follows from the seed and from the event loop.
        for _ in range(50):
            await it.writer.run(40, pause=0.01)
            mischief = faulty.mischief
            if min(mischief.dropped, mischief.repeated, mischief.swapped, tallies.gaps, tallies.sent) > 0:
                break
        await one.until(lambda: it.is_exact(everything))
        await other.until(lambda: it.is_exact(talk))
        assert min(mischief.dropped, mischief.repeated, mischief.swapped, tallies.gaps, tallies.sent) > 0
    assert rising(everything)
    assert rising(talk)
    assert not it.source.feeds


@pytest.mark.parametrize("seed", range(4))
async def test_connections_that_break_anywhere_lose_and_repeat_nothing(seed: int) -> None:
    it = Place(seed=seed, layer=FaultyLayer(InMemoryChannelLayer(capacity=1000), seed))
    replica = it.replica(limits=BRISK)
    await replica.sync()
    async with it.watched(keepalive=BRISK.keepalive):
        writing = asyncio.create_task(it.writer.run(300, pause=0.004))
        for length in range(1, 16):
            before = replica.model.last_watermark
            async with replica.connection() as connection:
                # Cut within a transaction, mostly: after so many frames, commit or not.
                await connection.until(lambda length=length: len(replica.frames) >= length or writing.done())
            assert replica.model.last_watermark >= before
        await writing
        async with replica.connection() as connection:
            it.writer.step()
            await connection.until(lambda: it.is_exact(replica))
    assert rising(replica)
    assert not it.source.feeds


async def test_a_transaction_too_large_for_the_layer_is_one_transaction() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with it.watched(), replica.connection() as connection:
        it.writer.step()
        # It has read what there was, and follows the layer now.
        await connection.until(lambda: connection.session.tallies.pulled > 0 and len(it.source.feeds) == 1)
        it.source.transaction([Write("insert", "messages", {"_id": f"t{n}", "body": "x"}) for n in range(500)])
        await connection.until(lambda: it.is_exact(replica))
        assert connection.session.tallies.gaps > 0
    assert max(changes for _, changes in replica.model.transactions[1:]) == 500


@pytest.mark.parametrize("nth", [2, 8, 20])
async def test_a_fault_within_a_large_transaction_rolls_it_back_and_sends_it_again(nth: int) -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with replica.connection() as connection:
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        it.source.transaction([Write("insert", "messages", {"_id": f"t{n}", "body": "x"}) for n in range(200)])
        it.source.fail("poll", CursorLost(), nth)
        it.source.fail("feed", SourceUnavailable())
        await connection.until(lambda: it.is_exact(replica))
    assert replica.model.rollbacks == (1 if nth > 4 else 0)
    assert replica.model.transactions[-1][1] == 200
    assert rising(replica)


async def test_an_initial_sync_waits_for_the_source_in_place() -> None:
    it = Place()
    replica = it.replica()
    it.source.fail("barrier", SourceUnavailable())
    it.source.fail("documents", CursorLost(), 3)
    it.source.fail("poll", CursorLost(), 1)
    await replica.sync()
    assert it.is_exact(replica)


# Resets.


async def reset_code(replica: Replica) -> str:
    """Connect, and return the code of the reset that must be the only frame."""
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
        await asyncio.wait_for(connection.task, 10)
    assert len(replica.frames) == 1
    assert replica.model.reset is not None
    code: str = replica.model.reset["errorDetails"]["code"]
    assert replica.model.reset["message"].startswith(code)
    print("OUT", monotonic())
    assert (await row()).state == "reset"
    return code


async def test_a_reset_is_noted_though_the_replica_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """zero-cache closes the connection as soon as it hears, while the database is still told that it had connected."""
    note_progress, send = watermarks.note_progress, Connection._send
    written: list[bool] = []

    @wraps(note_progress)
    def slow(*args: Any, connected: bool = False) -> None:
        sleep(0.2)
        note_progress(*args, connected=connected)
        written.append(connected)

    async def sends_late(self: Connection, frame: str) -> None:
        await asyncio.sleep(0.05)
        await send(self, frame)

    it = Place()
    replica = it.replica("places")
    await replica.sync()
    replica.mapping = compiled(MESSAGE, TableSpec(**{**CHAT.__dict__, "filter": {"kind": "x"}}), CHANNEL)
    monkeypatch.setattr(watermarks, "note_progress", slow)
    monkeypatch.setattr(Connection, "_send", sends_late)
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
    assert written == [True, False]
    assert (await row()).state == "reset"


async def test_history_that_was_lost_resets() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    it.writer.step()
    it.source.truncate(it.source.now)
    it.writer.step()
    assert await reset_code(replica) == "ZS202"


async def test_history_that_is_lost_while_streaming_resets() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with replica.connection() as connection:
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        it.source.fail("poll", CursorLost())
        it.source.insert("messages", {"_id": "lost", "body": "x"})
        it.source.truncate(it.source.now)
        await connection.until(lambda: replica.model.reset is not None)
    assert ("lost",) not in replica.model.rows("message")


async def test_history_that_is_lost_during_the_snapshot_resets() -> None:
    it = Place()
    replica = it.replica()

    def forget() -> None:
        it.writer.step()
        it.source.truncate(it.source.now)

    it.source.before("documents", 3, forget)
    async with replica.connection() as connection:
        await connection.until(lambda: replica.model.reset is not None)
    assert replica.model.commits == []


async def test_another_mapping_resets() -> None:
    it = Place()
    replica = it.replica("places")
    await replica.sync()
    # A table of another publication changes nothing.
    replica.mapping = compiled(TableSpec(**{**MESSAGE.__dict__, "filter": {"body": "x"}}), CHAT, CHANNEL)
    async with replica.connection() as connection:
        it.writer.fill(0)
        it.source.insert("rooms", {"_id": 500, "kind": "chat"})
        await connection.until(lambda: it.is_exact(replica))
    replica.mapping = compiled(MESSAGE, TableSpec(**{**CHAT.__dict__, "filter": {"kind": "x"}}), CHANNEL)
    assert await reset_code(replica) == "ZS203"


async def test_a_watermark_of_the_future_resets() -> None:
    """MongoDB was restored from a backup."""
    it = Place()
    replica = it.replica()
    for _ in range(30):
        it.writer.step()
    await replica.sync()
    replica.source = ScriptedSource()
    assert await reset_code(replica) == "ZS204"


async def test_a_watermark_that_is_not_ours_resets() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    replica.model.commits.append("0a")
    assert await reset_code(replica) == "ZS201"


@pytest.mark.parametrize("watched", [True, False])
async def test_a_collection_renamed_into_place_is_filled_anew(watched: bool) -> None:
    """Its documents have no events of their own; the table is copied within the stream, and nobody is reset."""
    it = Place()
    replica = it.replica()
    await replica.sync()
    for number in range(250):
        it.source.insert("temporary", {"_id": f"x{number}", "body": "x"})
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(it.watched())
        connection = await stack.enter_async_context(replica.connection())
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        # The transaction that fills the table bears the rename's watermark and shows a later state (see the code).
        replica.on_commit = lambda watermark: None
        it.source.rename("temporary", "messages")
        await it.writer.run(60, pause=0.002)
        await connection.until(lambda: it.is_exact(replica))
        assert max(changes for _, changes in replica.model.transactions[1:]) >= 250
    assert replica.model.reset is None
    assert rising(replica)


async def test_a_rename_followed_by_an_event_of_others_is_filled_anew() -> None:
    """Both are in one batch, whose end is then no event of the replica's own: it cannot be read on from there."""
    it = Place()
    replica = it.replica("talk")
    await replica.sync()
    it.source.insert("temporary", {"_id": "x", "body": "x"})
    it.source.rename("temporary", "messages")
    it.source.insert("rooms", {"_id": 500, "kind": "chat"})
    async with replica.connection() as connection:
        await connection.until(lambda: it.is_exact(replica) or replica.model.reset is not None)
    assert replica.model.reset is None
    assert set(replica.model.rows("message")) == {("x",)}


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("call", ["documents", "poll", "barrier", "feed"])
async def test_writes_and_faults_while_a_table_is_filled_anew(call: Call, nth: int) -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    for number in range(35):
        it.source.insert("temporary", {"_id": f"x{number}", "body": "x"})
    history = it.source.history()
    filled = checked = 0

    def check(watermark: str) -> None:
        nonlocal filled, checked
        cluster_time = Watermark.parse(watermark).cluster_time
        if replica.model.transactions[-1][1] >= 35:
            # The transaction that fills shows a later state, which those after it lead to.
            filled = it.source.now
        elif cluster_time > filled:
            checked += 1
            assert shown(replica.model) == expected(history.forward(cluster_time))

    replica.on_commit = check
    async with replica.connection() as connection:
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        for step in (1, 2, 3, 4):
            it.source.before("documents", step, it.writer.step)
        it.source.fail(call, CursorLost(), nth)
        it.source.rename("temporary", "messages")
        await connection.until(lambda: it.is_exact(replica) and filled > 0)
        seen = checked
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica) and checked > seen)
    assert replica.model.reset is None
    assert rising(replica)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_what_is_on_its_way_is_bounded_where_a_table_is_filled_anew(
    watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zero-cache stops storing: it may be killed with its replica at any commit that it was sent.

    So many source transactions of those that were not stored come singly after that, and the commit must be of them.
    """
    most = 40
    monkeypatch.setattr("changesource.services.flight.MOST", most)
    it = Place()
    replica = it.replica()
    await replica.sync()
    # The transaction that fills the table shows a later state.
    replica.on_commit = lambda watermark: None
    it.source.insert("temporary", {"_id": "x", "body": "x"})

    def write() -> None:
        for number in range(3 * most):
            it.source.insert("messages", {"_id": f"m{number}", "body": "x"})

    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(it.watched())
        connection = await stack.enter_async_context(replica.connection())
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        asked = it.source.calls["poll"]
        # Until it has heard that there is nothing more, so that it joins what comes.
        await connection.until(lambda: it.source.calls["poll"] > asked + 4 and len(it.source.feeds) == 1)
        stored = Watermark.parse(replica.model.last_watermark).cluster_time
        connection.stores = False
        it.source.before("documents", 1, write)
        it.source.rename("temporary", "messages")
        await connection.until(lambda: ("x",) in replica.model.rows("message"))
        await asyncio.sleep(0.3)
        reached = Watermark.parse(replica.model.last_watermark).cluster_time
        events, _ = it.source.read({"messages", "rooms"}, 0, 10**6)
        sent = [event for event in events if stored < event.cluster_time <= reached]
        assert 0 < len(sent) <= most
        connection.session.ack(replica.model.last_watermark)
        connection.stores = True
        await connection.until(lambda: it.is_exact(replica))
    assert rising(replica)


async def test_a_rename_that_the_snapshot_shows_already_is_not_followed_again() -> None:
    """A batch of the layer overlaps the snapshot: it holds the rename, but nothing new of the replica's own."""
    it = Place()
    replica = it.replica("talk")
    it.source.insert("temporary", {"_id": "x", "body": "x"})
    it.source.before("documents", 2, lambda: it.source.rename("temporary", "messages"))
    began = await it.source.barrier("before")
    await replica.sync()
    async with replica.connection() as connection:
        # The layer has come just as far as the snapshot, so that the replica reads nothing itself.
        connection.session.mailbox.offer(await it.batch(began), 1)
        await connection.until(lambda: bool(it.source.feeds))
        await connection.until(lambda: not it.source.feeds)
        copied = it.source.calls["documents"]
        it.source.insert("rooms", {"_id": 500, "kind": "chat"})
        connection.session.mailbox.offer(await it.batch(began), 1)
        await connection.until(lambda: connection.session.tallies.sent > 0)
        it.source.insert("messages", {"_id": "late", "body": "x"})
        connection.session.mailbox.offer(await it.batch(began), 1)
        await connection.until(lambda: it.is_exact(replica))
    assert it.source.calls["documents"] == copied
    assert rising(replica)


async def test_a_rename_of_others_resets_nobody() -> None:
    it = Place()
    replica = it.replica("places")
    await replica.sync()
    async with replica.connection() as connection:
        it.source.insert("temporary", {"_id": "x", "body": "x"})
        it.source.rename("temporary", "messages")
        it.source.insert("rooms", {"_id": 500, "kind": "chat"})
        await connection.until(lambda: it.is_exact(replica))


async def test_after_a_reset_the_next_snapshot_is_later() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    again = it.replica()
    await again.sync()
    assert again.version > replica.version
    assert (await row()).replica_version == again.version


async def test_a_refusal_while_streaming_is_waited_out() -> None:
    """The connection stays: a zero-cache whose connection ends is back within milliseconds, and again, and again."""
    it = Place()
    replica = it.replica()
    await replica.sync()
    for nth in (1, 2):
        it.source.fail("feed", PrivilegeMissing(), nth)
    async with replica.connection() as connection:
        # One for the snapshot, two that failed, and one since.
        await connection.until(lambda: it.source.calls["feed"] == 4)
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
    assert replica.model.reset is None


async def test_a_refusal_of_the_initial_sync_ends_the_connection_without_a_reset() -> None:
    it = Place()
    replica = it.replica()
    it.source.fail("documents", PrivilegeMissing())
    async with replica.connection() as connection:
        await until(connection.task.done)
    assert replica.model.reset is None
    assert replica.model.commits == []


async def test_a_snapshot_read_from_a_secondary_that_lags_is_exact() -> None:
    """The secondary has what was there long before, and catches up with what it is asked to wait for, no further."""
    place = Place()
    place.source.lag()
    before = dict(place.source.state["messages"])
    for _ in range(60):
        place.writer.step()
    assert place.source.state["messages"] != before
    replica = place.replica()
    await replica.sync()
    assert place.is_exact(replica)
    for _ in range(60):
        place.writer.step()
    again = place.replica(app_id="again")
    await again.sync()
    assert place.is_exact(again)


async def test_without_its_time_a_read_from_that_secondary_would_be_old() -> None:
    """What the test before this one rests on."""
    place = Place()
    place.source.lag()
    place.source.insert("messages", {"_id": "newer", "body": "x"})
    old = [document async for batch in place.source.copy("messages").batches(0) for document in batch]
    assert "newer" not in {document["_id"] for document in old}
    now = place.source.now
    new = [document async for batch in place.source.copy("messages").batches(now) for document in batch]
    assert "newer" in {document["_id"] for document in new}


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_what_is_rolled_back_was_never_sent(watched: bool) -> None:
    """Of a primary that loses its majority; its cluster times are used again by others. Thrice, with heartbeats.

    One replica streams all the while, others begin before the rollback (and wait) and after it.
    """
    place = Place()
    replica = place.replica(limits=BRISK)
    await replica.sync()
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(place.watched(keepalive=0.1))
        connection = await stack.enter_async_context(replica.connection())
        for turn in range(3):
            await place.writer.run(20)
            await connection.until(lambda: place.is_exact(replica))
            place.source.hold()
            lost = place.source.insert("messages", {"_id": f"lost-{turn}", "body": "x"})
            await place.writer.run(20)
            early = place.replica(app_id=f"early-{turn}")
            barriers = place.source.calls["barrier"]
            syncing = asyncio.create_task(early.sync())
            await until(lambda barriers=barriers: place.source.calls["barrier"] > barriers)  # type: ignore[misc]
            assert not syncing.done()
            place.source.roll_back()
            await place.writer.run(60)
            assert place.source.now > lost
            await syncing
            late = place.replica(app_id=f"late-{turn}")
            await late.sync()
            assert place.is_exact(late)
            async with early.connection() as following:
                await following.until(lambda early=early: place.is_exact(early))  # type: ignore[misc]
            await connection.until(lambda: place.is_exact(replica))
            assert (f"lost-{turn}",) not in replica.model.rows("message")
    assert rising(replica)
    assert replica.model.reset is None


def test_a_publication_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownPublication):
        compiled().published(["none"])


# The layer, the watcher and others.


async def test_a_watcher_that_knows_more_collections_leads_no_replica_astray() -> None:
    """A batch may end at an event of a collection that this connection does not know of: it cannot resume there."""
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with it.watched(compiled(MESSAGE, CHAT, CHANNEL, ARCHIVE)), replica.connection() as connection:
        it.source.insert("messages", {"_id": "one", "body": "x"})
        await connection.until(lambda: it.is_exact(replica) and len(it.source.feeds) == 1)
        it.source.insert("messages", {"_id": "two", "body": "x"})
        it.source.insert("archive", {"_id": "elsewhere"})
        await connection.until(lambda: it.is_exact(replica) and connection.session.tallies.sent > 0)
        # Too large for the layer: now the replica must read for itself, from where it stands.
        it.source.transaction([Write("insert", "messages", {"_id": f"t{n}", "body": "x"}) for n in range(100)])
        await connection.until(lambda: it.is_exact(replica) or replica.model.reset is not None)
    assert replica.model.reset is None
    assert rising(replica)


async def test_a_watcher_with_another_mapping_of_the_tables_is_not_believed() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    other = compiled(TableSpec(**{**MESSAGE.__dict__, "filter": {"body": "never"}}), CHAT, CHANNEL)
    async with it.watched(other), replica.connection() as connection:
        await it.writer.run(60, pause=0.005)
        await connection.until(lambda: it.is_exact(replica))
        assert connection.session.tallies.sent == 0
    assert rising(replica)


async def test_two_watchers_do_no_harm() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with it.watched(), it.watched(), replica.connection() as connection:
        await it.writer.run(150, pause=0.005)
        await connection.until(lambda: it.is_exact(replica) and connection.session.mailbox.skipped > 0)
    assert rising(replica)


async def test_a_watcher_that_stops_is_missed_in_time() -> None:
    it = Place()
    replica = it.replica(limits=BRISK)
    await replica.sync()
    async with replica.connection() as connection:
        async with it.watched(keepalive=BRISK.keepalive):
            it.writer.step()
            await connection.until(lambda: connection.session.tallies.sent > 0 and len(it.source.feeds) == 1)
        it.writer.step()
        await connection.until(lambda: it.is_exact(replica))
        assert connection.session.tallies.silences > 0


async def test_a_layer_that_only_repeats_itself_is_found_silent() -> None:
    """What lies behind the replica, said again and again, keeps it from nothing: it reads for itself in time."""
    place = Place()
    replica = place.replica(limits=BRISK)
    await replica.sync()
    publisher = Publisher(place.layer)

    async def repeat() -> None:
        while True:
            position = Watermark.parse(replica.model.last_watermark).cluster_time
            await publisher.publish(Batch(position - 1, position, place.mapping.fingerprints))
            await asyncio.sleep(0.05)

    repeating = asyncio.create_task(repeat())
    try:
        async with replica.connection() as connection:
            # After a heartbeat, the layer leads on from where the replica is, so that it follows the layer.
            await connection.until(lambda: len(replica.model.commits) > 1 and not place.source.feeds)
            place.source.insert("messages", {"_id": "new", "body": "x"})
            await connection.until(lambda: place.is_exact(replica), 5)
            assert connection.session.tallies.silences > 0
    finally:
        repeating.cancel()


@pytest.mark.parametrize("error", [SourceUnavailable("writes are blocked"), PrivilegeMissing("read only")])
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_a_heartbeat_that_cannot_be_written_stops_nothing(error: ZerosourceError, watched: bool) -> None:
    """MongoDB takes no writes for now; what it has is read on the same feed."""
    place = Place()
    replica = place.replica(limits=BRISK)
    await replica.sync()
    for nth in range(1, 200):
        place.source.fail("mark", error, nth)
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(place.watched(keepalive=0.05))
        connection = await stack.enter_async_context(replica.connection())
        await connection.until(lambda: place.source.calls["mark"] > 3)
        if not watched:
            assert place.source.calls["feed"] == 2, "one for the snapshot, one since"
        place.writer.step()
        await connection.until(lambda: place.is_exact(replica))


async def test_with_no_watcher_a_replica_keeps_its_position_fresh() -> None:
    it = Place()
    replica = it.replica(limits=replace(LIMITS, bounds=Bounds(), keepalive=0.05))
    await replica.sync()
    async with replica.connection() as connection:
        await connection.until(lambda: len(replica.model.commits) > 3)
    assert {changes for _, changes in replica.model.transactions[1:]} == {0}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("twice", [False, True])
async def test_no_row_goes_back_in_time_where_a_reconnect_meets_a_rename(seed: int, twice: bool) -> None:
    """Once the tables were filled anew they stay exact at each commit, though all watermarks since come again."""
    it = Place(seed=seed)
    replica = it.replica()
    await replica.sync()
    replica.on_commit = lambda watermark: None
    for number in range(10):
        it.source.insert("temporary", {"_id": f"m{number}", "body": "renamed"})
    it.source.rename("temporary", "messages")
    for _ in range(20):
        it.writer.step()
    if twice:
        it.source.drop("rooms")
        for _ in range(20):
            it.writer.step()
    exact: list[bool] = []

    def note(watermark: str) -> None:
        tables = tuple(it.mapping.tables)
        exact.append(shown(replica.model, tables) == expected(it.source.state, tables))

    replica.on_commit = note
    async with replica.connection() as connection:
        await connection.until(
            lambda: it.is_exact(replica) and Watermark.parse(replica.model.commits[-1]).cluster_time >= last_of(it)
        )
    first = exact.index(True)
    assert len(exact) - first > 10
    assert all(exact[first:])


def last_of(it: Place) -> int:
    """The cluster time of the last write."""
    return max(event.cluster_time for event in it.source.read({"messages", "rooms"}, 0, 10**6)[0])


async def test_replicas_without_a_watcher_share_one_heartbeat() -> None:
    it = Place()
    replicas = [it.replica(app_id=f"app{number}", limits=BRISK) for number in range(8)]
    for replica in replicas:
        await replica.sync()
    async with AsyncExitStack() as stack:
        began = monotonic()
        connections = [await stack.enter_async_context(replica.connection()) for replica in replicas]
        for connection, replica in zip(connections, replicas, strict=True):
            await connection.until(lambda replica=replica: len(replica.model.commits) > 6)  # type: ignore[misc]
        assert it.source.calls["mark"] <= (monotonic() - began) / (BRISK.keepalive / 2) + 1


async def test_a_slow_reader_keeps_up_in_bounded_memory_and_slows_nobody() -> None:
    it = Place()
    slow, quick = it.replica(app_id="slow"), it.replica(app_id="quick")
    await slow.sync()
    await quick.sync()
    async with it.watched(), slow.connection() as one, quick.connection() as other:
        it.writer.step()
        await one.until(lambda: it.is_exact(slow))
        one.paused = True
        for number in range(600):
            it.source.insert("messages", {"_id": f"s{number}", "body": "x"})
            if number % 2:
                await other.until(lambda: it.is_exact(quick))
        assert one.session.mailbox.dropped > 0
        assert not it.is_exact(slow)
        pulled = one.session.tallies.pulled
        one.paused = False
        await one.until(lambda: it.is_exact(slow))
        assert one.session.tallies.pulled > pulled, "what was dropped came from the source"
        one.paused = True

        def piles_up() -> bool:
            it.source.insert("messages", {"_id": f"more{it.source.now}", "body": "x"})
            return one.session.mailbox.waiting

        await one.until(piles_up)
    assert not one.session.mailbox.waiting, "what nobody reads any more is not kept until the garbage collector comes"
    assert rising(slow)


async def test_documents_without_a_row_are_listed() -> None:
    it = Place()
    it.source.insert("messages", {"_id": "bad"})
    replica = it.replica()
    await replica.sync()
    assert ("bad",) not in replica.model.rows("message")
    listed = await database_sync_to_async(lambda: list(RowError.objects.values_list("table", "document_id")))()
    assert listed == [("message", '"bad"')]


async def test_frames_are_what_the_protocol_says() -> None:
    it = Place()
    replica = it.replica()
    await replica.sync()
    async with replica.connection() as connection:
        it.source.insert("rooms", {"_id": 500, "kind": "chat", "title": "t"})
        await connection.until(lambda: it.is_exact(replica))
    watermark = replica.model.last_watermark
    relation = {"schema": "public", "name": "chat", "rowKey": {"columns": ["id"]}, "keyColumns": ["id"]}
    time_ms = (Watermark.parse(watermark).cluster_time >> 32) * 1000
    assert [json.loads(frame) for frame in replica.frames] == [
        ["begin", {"tag": "begin"}, {"commitWatermark": watermark}],
        ["data", {"tag": "insert", "relation": relation, "new": {"id": 500, "title": "t"}}],
        ["commit", {"tag": "commit", "commitTimeMs": time_ms}, {"watermark": watermark}],
    ]
