"""Tables whose rows do not follow from ``_id`` alone, on the scripted source: exact at every commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer

from changesource.exceptions import PostImagesMissing
from changesource.mapping.compiled import CompiledMapping, ignore_fault
from changesource.mapping.spec import Specification
from changesource.models import Watermark as WatermarkRow
from changesource.protocol.watermark import Watermark
from changesource.services.flight import REFILLS
from changesource.services.limits import Limits
from changesource.services.publisher import Publisher
from changesource.services.subscriber import Subscriber
from changesource.services.watcher import Revision, Watcher
from changesource.sources.scripted import ScriptedSource, Write
from tests.harness.club import ACCOUNT, MEMBER, SEAT, Writer, compiled, expected, shown
from tests.harness.link import LIMITS, Replica
from tests.harness.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


class Place:
    """A source with documents, a layer, and what serves replicas."""

    def __init__(self, seed: int = 1, mapping: CompiledMapping | None = None, limits: Limits = LIMITS) -> None:
        self.source = ScriptedSource(feed_batch=5, snapshot_batch=4)
        self.writer = Writer(self.source, seed)
        self.writer.fill(8)
        self.layer = InMemoryChannelLayer(capacity=1000)
        self.subscriber = Subscriber(self.layer)
        self.mapping = mapping or compiled()
        self.limits = limits

    def replica(self, app_id: str = "app", *, checked: bool = True) -> Replica:
        """Return a replica that, where ``checked``, compares itself with the source at each commit."""
        replica = Replica(self.source, self.subscriber, self.mapping, app_id=app_id, limits=self.limits)
        history = self.source.history()

        def check(watermark: str) -> None:
            # The first commit shows the state at the second barrier, which is later than its watermark.
            if len(replica.model.commits) > 1:
                state = history.forward(Watermark.parse(watermark).cluster_time)
                assert shown(replica.model) == expected(state)

        if checked:
            replica.on_commit = check
        return replica

    def is_exact(self, replica: Replica) -> bool:
        return not replica.model.open and shown(replica.model) == expected(self.source.state)

    async def write(self, steps: int) -> None:
        for _ in range(steps):
            self.writer.step()
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watcher]:
        revision = Revision(1, self.mapping)

        async def current() -> Revision:
            return revision

        watcher = Watcher(
            self.source, Publisher(self.layer), current, bounds=LIMITS.bounds, keepalive=30.0, report=ignore_fault
        )
        task = asyncio.create_task(watcher.run())
        try:
            await until(lambda: watcher.position > 0)
            yield watcher
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("watched", [False, True])
async def test_rows_are_exact_at_every_commit(seed: int, watched: bool) -> None:
    """A snapshot under a writer, then changes: pulled, or by way of the layer."""
    it = Place(seed)
    replica = it.replica()
    for nth in range(1, 6):
        it.source.before("documents", nth, it.writer.step)
    await replica.sync()
    async with it.watched() if watched else asyncio.timeout(None), replica.connection() as connection:
        await it.write(120)
        await connection.until(lambda: it.is_exact(replica))
        assert bool(connection.session.tallies.sent) is watched


@pytest.mark.parametrize("lagging", [False, True])
@pytest.mark.parametrize("seed", range(12))
async def test_a_copy_that_catches_up_after_each_batch_is_exact(seed: int, lagging: bool) -> None:
    """Places are handed over and swapped between documents that were copied, and that were not yet."""
    it = Place(seed, limits=replace(LIMITS, catch_up=0.0))
    if lagging:
        it.source.lag()
    replica = it.replica()
    for call in ("documents", "barrier", "poll"):
        for nth in range(1, 12):
            it.source.before(call, nth, it.writer.step)
    await replica.sync()
    assert it.source.calls["barrier"] > 3
    async with replica.connection() as connection:
        await connection.until(lambda: it.is_exact(replica))


@pytest.mark.parametrize("seed", range(3))
async def test_where_it_is_not_known_what_was_before_the_tables_are_filled_anew(seed: int) -> None:
    """As with a collection that was made anew: images are off until somebody prepares it."""
    it = Place(seed)
    replica = it.replica(checked=False)
    await replica.sync()
    async with it.watched(), replica.connection() as connection:
        for _ in range(4):
            await it.write(10)
            it.source.lose_history("accounts")
            await it.write(10)
            it.source.lose_history("seats")
        await it.write(10)
        await connection.until(lambda: it.is_exact(replica) and it.source.with_history >= {"accounts"})
    assert replica.model.reset is None
    assert any('"truncate"' in frame for frame in replica.frames)


async def test_after_a_reconnect_few_fillings_show_all_that_lost_its_history(caplog: pytest.LogCaptureFixture) -> None:
    """Each of these events says that a table must be read again, and may be a Zero transaction of its own then."""
    it = Place()
    replica = it.replica(checked=False)
    await replica.sync()
    async with replica.connection() as connection:
        await it.write(5)
        await connection.until(lambda: it.is_exact(replica))
    it.source.lose_history("accounts")
    it.source.lose_history("seats")
    await it.write(40)
    commits = len(replica.model.commits)
    caplog.set_level("INFO")
    async with replica.connection() as connection:
        await connection.until(lambda: it.is_exact(replica) and len(replica.model.commits) > commits)
        await it.write(20)
        await connection.until(lambda: it.is_exact(replica))
    # A few, and not one for each of 40 events.
    assert 0 < caplog.text.count("filling anew") <= REFILLS + 4
    assert replica.model.reset is None


async def test_history_lost_during_the_snapshot_is_copied_again() -> None:
    it = Place()
    replica = it.replica(checked=False)

    def lose() -> None:
        it.source.lose_history("accounts")
        for _ in range(20):
            it.writer.step()

    it.source.before("documents", 2, lose)
    await replica.sync()
    async with replica.connection() as connection:
        await connection.until(lambda: it.is_exact(replica))
        await it.write(30)
        await connection.until(lambda: it.is_exact(replica))


async def test_where_history_cannot_be_had_the_replica_waits_and_says_why() -> None:
    """Nothing wrong is sent; the reason stands in the replica's row, until it can be had."""
    it = Place()
    replica = it.replica(checked=False)
    await replica.sync()
    before = shown(replica.model)
    it.source.lose_history("accounts")
    # So often that it shows in the row, which is written once a second.
    for nth in range(1, 10):
        it.source.fail("prepare", PostImagesMissing("MongoDB keeps no pre-images of accounts"), nth)
    row = WatermarkRow.objects.filter(kind="replica")
    async with replica.connection() as connection:
        it.source.update("accounts", 0, members=[])
        async with asyncio.timeout(20):
            while not await row.filter(state="stopped", message__contains="ZS315").aexists():
                await asyncio.sleep(0.05)
        assert shown(replica.model) == before
        await connection.until(lambda: it.is_exact(replica))
        async with asyncio.timeout(20):
            while not await row.filter(state="streaming", message="").aexists():
                await asyncio.sleep(0.05)


Mend = Callable[[ScriptedSource], object]
MENDS: dict[str, Mend] = {
    "updated": lambda source: source.update("accounts", 0, members=[]),
    "replaced": lambda source: source.replace("accounts", {"_id": 0, "members": [{"user": "a", "role": "x"}]}),
    "deleted": lambda source: source.delete("accounts", 0),
    "bad again before": lambda source: [source.update("accounts", 0, members=5), source.delete("accounts", 0)],
}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("mend", MENDS.values(), ids=MENDS)
async def test_a_table_that_stops_stops_its_replicas_until_the_document_is_mended(watched: bool, mend: Mend) -> None:
    """What came before is sent, nothing after; replicas without the table go on; the state says why.

    Every event in the oplog bears the document as it was, so it is the document as it is now that lets it go on.
    """
    stops = replace(ACCOUNT, name="account", error_policy="stop")
    mapping = CompiledMapping.compile(Specification((stops, MEMBER, SEAT), {"seats": ("seat",)}), "club")
    it = Place(mapping=mapping)
    replica = it.replica(checked=False)
    other = Replica(it.source, it.subscriber, mapping, publications=("seats",), app_id="other")
    await replica.sync()
    await other.sync()

    async def in_state(wanted: str) -> str:
        """Wait for a state; return its message."""
        async with asyncio.timeout(20):
            while True:
                row = await database_sync_to_async(WatermarkRow.objects.get)(kind="replica", app_id="app")
                if row.state == wanted:
                    return row.message
                await asyncio.sleep(0.05)

    async with it.watched() if watched else asyncio.timeout(None), replica.connection() as connection:
        async with other.connection() as free:
            it.source.update("seats", 0, note=1)
            good = expected(it.source.state)
            it.source.update("accounts", 0, members="none")
            it.source.update("seats", 0, note=2)
            await free.until(lambda: other.model.rows("seat")[("p0",)]["note"] == 2)
            await connection.until(lambda: shown(replica.model) == good)
            message = await in_state("stopped")
            assert "ZS401 Table account stopped at column size of the document with _id 0" in message
            assert shown(replica.model) == good
            mend(it.source)
            it.source.update("seats", 0, note=3)
            await connection.until(lambda: it.is_exact(replica), 30)
            assert await in_state("streaming") == ""


async def test_an_insert_that_stops_and_is_mended() -> None:
    mapping = CompiledMapping.compile(Specification((replace(ACCOUNT, error_policy="stop"), MEMBER, SEAT)), "club")
    it = Place(mapping=mapping)
    replica = it.replica(checked=False)
    await replica.sync()
    async with replica.connection() as connection:
        it.source.insert("accounts", {"_id": 77, "members": "none"})
        it.source.update("accounts", 77, members=[])
        it.source.insert("accounts", {"_id": 78, "members": "none"})
        it.source.delete("accounts", 78)
        await connection.until(lambda: it.is_exact(replica), 30)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("inserts", [3, 100])
async def test_history_lost_within_a_large_transaction(inserts: int, watched: bool) -> None:
    """Nothing of the transaction is lost although its first event says that a table must be filled anew."""
    it = Place()
    replica = it.replica(checked=False)
    await replica.sync()
    async with it.watched() if watched else asyncio.timeout(None), replica.connection() as connection:
        it.source.update("seats", 0, note=1)
        await connection.until(lambda: it.is_exact(replica))
        it.source.lose_history("accounts")
        seats = [Write("insert", "seats", {"_id": 1000 + n, "place": f"q{n}", "note": 7}) for n in range(inserts)]
        it.source.transaction([Write("update", "accounts", {"_id": 0, "members": []}), *seats])
        await connection.until(lambda: it.is_exact(replica), 30)
    assert replica.model.reset is None


async def test_a_snapshot_waits_at_a_document_that_stops_its_table() -> None:
    """The socket stays open, since zero-cache would exit; then the collection is copied from its beginning."""
    mapping = CompiledMapping.compile(Specification((replace(ACCOUNT, error_policy="stop"), MEMBER, SEAT)), "club")
    it = Place(mapping=mapping)
    it.source.insert("accounts", {"_id": 5000, "members": 5})
    replica = it.replica(checked=False)
    async with replica.connection() as connection:
        await connection.until(lambda: any('"truncate"' in frame for frame in replica.frames))
        assert not replica.model.commits
        row = await database_sync_to_async(WatermarkRow.objects.get)(kind="replica")
        assert row.state in ("stopped", "syncing")
        it.source.update("accounts", 5000, members=[])
        await connection.until(lambda: bool(replica.model.commits))
    assert shown(replica.model) == expected(it.source.state)
