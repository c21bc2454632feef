"""The snapshot on the scripted source: exact, whatever is written and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import CursorLost, HistoryLost, PrivilegeMissing, SourceUnavailable, TableStopped
from changesource.mapping.compiled import CompiledMapping, RowFault
from changesource.protocol.request import StreamRequest
from changesource.services import filling
from changesource.services.downstream import Downstream
from changesource.services.initial_sync import InitialSync
from changesource.services.limits import Limits
from changesource.services.progress import CopyProgress
from changesource.services.turns import Turns
from changesource.sources.scripted import Call, ScriptedSource, Write
from changesource.stream.grouping import Bounds
from tests.harness.chat import MESSAGE, compiled, expected, shown
from tests.harness.link import framewise
from tests.harness.model import ModelReplica
from tests.harness.waiting import until
from tests.harness.writers import Writer

REQUEST = StreamRequest("app", 2)
BOUNDS = Bounds(rows=5, age=0.05)
NEVER, ALWAYS = 300.0, 0.0  # how often a copy catches up


class Snapshot:
    """One replica's initial sync."""

    def __init__(
        self,
        source: ScriptedSource,
        mapping: CompiledMapping | None = None,
        *,
        catch_up: float = NEVER,
        turns: int = 1,
    ) -> None:
        self.source = source
        self.limits = Limits(BOUNDS, keepalive=30.0, turns=Turns(turns), catch_up=catch_up)
        self.mapping = mapping or compiled()
        self.model = ModelReplica()
        self.frames: list[str] = []
        self.faults: list[RowFault] = []
        self.told: list[tuple[int, int]] = []
        self.stops: list[TableStopped | None] = []
        self.position = 0
        self.progress = CopyProgress()

    async def send(self, frame: str) -> None:
        self.frames.append(frame)
        self.model.apply(frame)

    async def remember(self, position: int) -> None:
        self.told.append((position, len(self.model.commits)))

    async def run(self) -> Snapshot:
        sync = InitialSync(
            self.source,
            self.mapping,
            REQUEST,
            limits=self.limits,
            report=self.faults.append,
            stopped=self.stops.append,
        )
        self.progress = sync.progress
        began = await sync.barrier()
        downstream = Downstream(framewise(self.send), self.mapping.fingerprint, self.mapping.tables, began)
        self.position = await sync.run(downstream, began, self.remember)
        assert downstream.committed.cluster_time == began
        assert self.model.commits == [str(downstream.committed)]
        return self

    def check(self) -> None:
        """The replica is exact at the position that the snapshot names, and nothing is left open."""
        assert not self.source.feeds
        assert not self.source.cursors
        tables = tuple(self.mapping.tables)
        assert shown(self.model, tables) == expected(self.source.state_at(self.position), tables)

    def tags(self) -> list[str]:
        return [json.loads(frame)[1]["tag"] for frame in self.frames]


def filled(documents: int = 50, *, seed: int = 1, batch: int = 10) -> tuple[ScriptedSource, Writer]:
    source = ScriptedSource(feed_batch=7, snapshot_batch=batch)
    writer = Writer(source, seed)
    writer.fill(documents)
    return source, writer


async def test_what_is_there_is_one_transaction() -> None:
    source, _ = filled()
    snapshot = await Snapshot(source).run()
    snapshot.check()
    assert len(snapshot.model.rows("message")) == 50
    assert snapshot.model.rows("app.permissions") == {(True,): {"lock": True, "permissions": None, "hash": None}}
    assert snapshot.model.rows("app_2.clients") == {}
    tags = snapshot.tags()
    assert tags[0] == "begin"
    assert tags[-1] == "commit"
    assert {*tags[1:-1]} == {"create-table", "create-index", "insert", "backfill"}


async def test_for_an_older_zero_cache_each_row_has_a_frame() -> None:
    source, _ = filled()
    snapshot = Snapshot(source)
    snapshot.limits = replace(snapshot.limits, backfill=False)
    (await snapshot.run()).check()
    assert {*snapshot.tags()[1:-1]} == {"create-table", "create-index", "insert"}
    assert snapshot.progress.rows == sum(len(snapshot.model.rows(table)) for table in snapshot.mapping.tables)


async def test_nothing_there_is_empty_tables() -> None:
    snapshot = await Snapshot(ScriptedSource()).run()
    snapshot.check()
    assert set(snapshot.model.tables) >= {"message", "chat", "channel"}


async def test_only_the_publications_tables_are_sent() -> None:
    source, _ = filled()
    snapshot = await Snapshot(source, compiled().published(["places"])).run()
    snapshot.check()
    assert "message" not in snapshot.model.tables


async def test_the_position_is_told_before_the_commit() -> None:
    source, _ = filled()
    snapshot = await Snapshot(source).run()
    assert snapshot.told == [(snapshot.position, 0)]
    assert snapshot.position >= source.now - 1


async def test_rows_are_sent_in_frames_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "FRAME_ROWS", 20)
    source, _ = filled(batch=1000)
    snapshot = await Snapshot(source).run()
    snapshot.check()
    sizes = [len(json.loads(frame)[1]["rowValues"]) for frame in snapshot.frames if '"backfill"' in frame]
    assert max(sizes) == 20
    assert sizes.count(20) >= 2


async def test_rows_of_any_size_are_sent_in_frames_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are filled by what comes in several batches; only a row that is too large for one has its own."""
    monkeypatch.setattr(filling, "FRAME_BYTES", 3000)
    source = ScriptedSource(snapshot_batch=7)
    for number in range(100):
        source.insert("messages", {"_id": f"{number:03}", "body": "x" * (5000 if number % 40 == 20 else 100)})
    snapshot = await Snapshot(source, compiled().published(["talk"])).run()
    snapshot.check()
    frames = [json.loads(frame)[1]["rowValues"] for frame in snapshot.frames if '"backfill"' in frame]
    sizes = [len(json.dumps(rows, separators=(",", ":"))) - 2 for rows in frames]
    assert all(size <= 3000 or len(rows) == 1 for size, rows in zip(sizes, frames, strict=True))
    assert [row[0] for rows in frames for row in rows] == [f"{number:03}" for number in range(100)]
    assert len(frames) < 14


async def test_writes_during_the_copy_are_replayed_in_the_same_transaction() -> None:
    """Before, within and behind what was copied, on either side of its cursor."""
    source = ScriptedSource(snapshot_batch=10)
    for number in range(30):
        source.insert("messages", {"_id": f"{number:02}", "body": "old"})

    def write() -> None:
        source.update("messages", "03", body="new")  # copied already
        source.update("messages", "25", body="new")  # will be copied as it is now, then updated
        source.delete("messages", "04")
        source.delete("messages", "26")
        source.insert("messages", {"_id": "03x", "body": "new"})
        source.insert("messages", {"_id": "99", "body": "new"})
        source.delete("messages", "05")
        source.insert("messages", {"_id": "05", "body": "again"})

    source.before("documents", 3, write)
    snapshot = await Snapshot(source, compiled().published(["talk"])).run()
    snapshot.check()
    assert {"update", "delete"} <= set(snapshot.tags())


async def test_a_transaction_larger_than_the_bounds_is_replayed_whole() -> None:
    source, _ = filled()
    many = [Write("insert", "messages", {"_id": f"t{number}", "body": "x"}) for number in range(100)]
    source.before("documents", 2, lambda: source.transaction(many))
    snapshot = await Snapshot(source).run()
    snapshot.check()


async def test_documents_without_a_row_are_reported() -> None:
    source = ScriptedSource()
    source.insert("messages", {"_id": "good", "body": "x"})
    source.insert("messages", {"_id": "bad"})
    source.insert("messages", {"_id": 7, "body": "x"})
    snapshot = await Snapshot(source).run()
    assert set(snapshot.model.rows("message")) == {("good",)}
    assert {fault.document_id for fault in snapshot.faults} == {'"bad"', "7"}


PASSING: list[tuple[Call, int]] = [
    ("barrier", 1),
    ("barrier", 2),
    ("documents", 1),
    ("documents", 3),
    ("feed", 1),
    ("poll", 1),
    ("poll", 2),
    ("poll", 4),
]


@pytest.mark.parametrize(("call", "nth"), PASSING)
async def test_a_passing_fault_is_waited_out_in_place(call: Call, nth: int) -> None:
    source, writer = filled()
    for step in range(1, 6):
        source.before("documents", step, lambda: [writer.step() for _ in range(5)])
    source.fail(call, CursorLost(), nth)
    snapshot = await Snapshot(source).run()
    snapshot.check()
    assert source.calls[call] > nth


async def test_many_faults_in_a_row_do_not_end_it() -> None:
    source, _ = filled()
    for nth in (1, 2, 3):
        source.fail("barrier", SourceUnavailable(), nth)
    snapshot = await Snapshot(source).run()
    snapshot.check()


@pytest.mark.parametrize("turns", [1, 4])
async def test_a_fault_that_will_not_pass_ends_it_without_a_commit(turns: int) -> None:
    """It is raised as itself, once the cursors of all collections are closed."""
    source, _ = filled()
    source.fail("documents", PrivilegeMissing(), 4)
    snapshot = Snapshot(source, turns=turns)
    with pytest.raises(PrivilegeMissing):
        await snapshot.run()
    assert snapshot.model.commits == []
    assert not source.feeds
    assert not source.cursors


async def test_history_that_is_lost_during_the_copy_ends_it_without_a_commit() -> None:
    source, writer = filled()

    def forget() -> None:
        writer.step()
        source.truncate(source.now)

    source.before("documents", 3, forget)
    snapshot = Snapshot(source)
    with pytest.raises(HistoryLost):
        await snapshot.run()
    assert snapshot.model.commits == []
    assert not source.feeds


def rename_into_place(source: ScriptedSource) -> None:
    for number in range(20):
        source.insert("temporary", {"_id": f"new{number:02}", "body": "renamed"})
    source.rename("temporary", "messages")


def rename_away(source: ScriptedSource) -> None:
    source.rename("messages", "archive")


def rename_and_go_on(source: ScriptedSource) -> None:
    rename_into_place(source)
    source.update("messages", "new03", body="changed")
    source.delete("messages", "new04")
    source.insert("messages", {"_id": "late", "body": "x"})


def rename_twice(source: ScriptedSource) -> None:
    rename_into_place(source)
    source.insert("temporary", {"_id": "last", "body": "x"})
    source.rename("temporary", "messages")


def drop(source: ScriptedSource) -> None:
    source.drop("messages")
    source.insert("messages", {"_id": "after", "body": "x"})


def drop_database(source: ScriptedSource) -> None:
    source.drop_database()
    source.insert("messages", {"_id": "after", "body": "x"})


@pytest.mark.parametrize("nth", [1, 2, 7, 9])
@pytest.mark.parametrize(
    "change", [rename_into_place, rename_away, rename_and_go_on, rename_twice, drop, drop_database]
)
async def test_collections_that_come_and_go_during_the_copy(change: Callable[[ScriptedSource], None], nth: int) -> None:
    source, _ = filled()
    source.before("documents", nth, lambda: change(source))
    snapshot = await Snapshot(source).run()
    snapshot.check()
    assert snapshot.told == [(snapshot.position, 0)]


async def test_a_rename_during_the_copy_that_follows_a_rename() -> None:
    source, _ = filled()
    source.before("documents", 3, lambda: rename_into_place(source))
    # After the two collections' batches and end, the first copy again.
    source.before("documents", 14, lambda: rename_twice(source))
    snapshot = await Snapshot(source).run()
    snapshot.check()
    assert set(snapshot.model.rows("message")) == {("last",)}


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(["documents", "poll", "barrier", "feed"]), st.integers(1, 15)), max_size=8),
    st.sampled_from([NEVER, ALWAYS]),
    st.booleans(),
    st.sampled_from([1, 4]),
)
async def test_whatever_is_written_whenever_the_snapshot_is_exact(
    seed: int, moments: list[tuple[Call, int]], catch_up: float, lagging: bool, turns: int
) -> None:
    source, writer = filled(20, seed=seed, batch=4)
    if lagging:
        source.lag()
    for call, nth in moments:
        source.before(call, nth, lambda: [writer.step() for _ in range(4)])
    snapshot = await Snapshot(source, catch_up=catch_up, turns=turns).run()
    snapshot.check()


async def test_a_long_copy_survives_an_oplog_that_forgets() -> None:
    """What is forgotten was replayed before, as long as the copy catches up."""
    for catch_up in (ALWAYS, NEVER):
        source, writer = filled()

        def forget(source: ScriptedSource = source, writer: Writer = writer) -> None:
            before = source.now
            for _ in range(10):
                writer.step()
            source.truncate(before - 1)

        for nth in (2, 4, 6):
            source.before("documents", nth, forget)
        snapshot = Snapshot(source, catch_up=catch_up)
        if catch_up == ALWAYS:
            await snapshot.run()
            snapshot.check()
            assert len(snapshot.model.commits) == 1
            assert source.calls["barrier"] > 6
        else:
            with pytest.raises(HistoryLost):
                await snapshot.run()


async def test_what_was_replayed_as_deleted_does_not_come_back_from_a_lagging_member() -> None:
    """The cursor after a replay reads nothing older than that."""
    source = ScriptedSource(snapshot_batch=10)
    for number in range(40):
        source.insert("messages", {"_id": f"{number:02}", "body": "old"})
    source.lag()
    source.before("documents", 2, lambda: source.delete("messages", "25"))
    snapshot = await Snapshot(source, compiled().published(["talk"]), catch_up=ALWAYS).run()
    snapshot.check()
    assert ("25",) not in snapshot.model.rows("message")


async def test_progress_is_counted() -> None:
    source, _ = filled(50, batch=10)
    snapshot = Snapshot(source)
    await snapshot.run()
    progress = snapshot.progress
    assert progress.rows == sum(len(snapshot.model.rows(table)) for table in snapshot.mapping.tables)
    # Two collections of 50 documents each.
    assert (progress.documents, progress.expected, progress.seconds_left) == (100, 100, 0)


@pytest.mark.parametrize("turns", [1, 2])
async def test_snapshots_take_turns_and_a_stuck_reader_keeps_nobody_from_his(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """The first has them all. The second waits, and gets one although the first one's reader takes nothing."""
    monkeypatch.setattr(filling, "PATIENCE_SECONDS", 0.01)
    source, writer = filled(50, batch=10)
    stuck, other = Snapshot(source, turns=turns), Snapshot(source)
    other.limits = stuck.limits
    taken, release = asyncio.Event(), asyncio.Event()

    async def send(frame: str) -> None:
        if '"backfill"' in frame:
            taken.set()
            await release.wait()
        await Snapshot.send(stuck, frame)

    monkeypatch.setattr(stuck, "send", send)
    first = asyncio.create_task(stuck.run())
    await asyncio.wait_for(taken.wait(), 5)
    writer.step()
    await asyncio.wait_for(other.run(), 5)
    other.check()
    assert not first.done()
    release.set()
    await asyncio.wait_for(first, 5)
    stuck.check()


async def test_who_waits_for_a_turn_says_so(caplog: pytest.LogCaptureFixture) -> None:
    source, _ = filled(50, batch=10)
    snapshot = Snapshot(source)
    caplog.set_level("INFO")
    async with snapshot.limits.turns.one():
        running = asyncio.create_task(snapshot.run())
        await until(lambda: snapshot.limits.turns.waiting == 1)
        assert snapshot.progress.waits
        assert "copying waits for its turn" in caplog.text
    await running
    assert not snapshot.progress.waits
    snapshot.check()


# Several collections at once.


def many(collections: int, documents: int, *, batch: int = 10) -> tuple[ScriptedSource, CompiledMapping]:
    """Collections of messages, each with a table of its name."""
    source = ScriptedSource(feed_batch=7, snapshot_batch=batch)
    names = [f"m{number:02}" for number in range(collections)]
    for name in names:
        for number in range(documents):
            source.insert(name, {"_id": f"{number:03}", "body": name})
    return source, compiled(*(replace(MESSAGE, name=name, collection=name) for name in names))


def bodies(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """What a snapshot of ``many`` shows."""
    return {
        name: {key[0]: row["body"] for key, row in snapshot.model.rows(name).items()}
        for name in snapshot.mapping.tables
    }


def held(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """What a snapshot of ``many`` must show."""
    state = snapshot.source.state_at(snapshot.position)
    return {
        name: {document_id: document["body"] for document_id, document in state.get(name, {}).items()}
        for name in snapshot.mapping.tables
    }


@pytest.mark.parametrize(("turns", "at_once"), [(1, 1), (3, 3), (100, filling.AT_ONCE)])
async def test_collections_are_copied_a_few_at_a_time(turns: int, at_once: int) -> None:
    source, mapping = many(9, 35)
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(source.cursors))

    for nth in range(1, 46):
        source.before("documents", nth, count)
    snapshot = await Snapshot(source, mapping, turns=turns).run()
    assert bodies(snapshot) == held(snapshot)
    assert most == at_once
    assert set(source.opened.values()) == {1}
    assert source.calls["barrier"] == 2
    assert (snapshot.progress.rows, snapshot.progress.expected) == (9 * 35, 9 * 35)


async def test_frames_of_several_collections_come_between_each_other_each_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filling, "FRAME_ROWS", 5)
    source, mapping = many(4, 40)
    snapshot = await Snapshot(source, mapping, turns=4).run()
    frames = [json.loads(frame)[1] for frame in snapshot.frames if '"backfill"' in frame]
    names = [frame["relation"]["name"] for frame in frames]
    changes = sum(before != after for before, after in pairwise(names))
    assert changes > 4
    for name in mapping.tables:
        ids = [row[0] for frame in frames if frame["relation"]["name"] == name for row in frame["rowValues"]]
        assert ids == sorted(ids)
        assert len(ids) == 40


async def test_what_changed_is_replayed_with_no_cursor_open() -> None:
    """Each round goes on with all unfinished collections, by cursors that read nothing older than what was replayed."""
    source, mapping = many(6, 40)
    source.lag()

    def look() -> None:
        assert not source.cursors

    def delete() -> None:
        for number, name in enumerate(mapping.tables):
            source.delete(name, f"{30 + number:03}")

    source.before("documents", 4, delete)
    for nth in range(1, 100):
        source.before("poll", nth, look)
        source.before("barrier", nth, look)
    snapshot = await Snapshot(source, mapping, catch_up=ALWAYS, turns=4).run()
    assert bodies(snapshot) == held(snapshot)
    assert source.calls["barrier"] >= 2 + 5
    assert max(source.opened.values()) >= 4


@pytest.mark.parametrize("moment", ["while it reads", "while it sends"])
async def test_who_goes_away_leaves_no_cursor(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, mapping = many(6, 40)
    snapshot = Snapshot(source, mapping, turns=4)
    cursors = 0

    def go_away() -> None:
        nonlocal cursors
        cursors = len(source.cursors)
        running.cancel()

    async def send(frame: str) -> None:
        if '"backfill"' in frame:
            go_away()
            await asyncio.Event().wait()

    if moment == "while it sends":
        monkeypatch.setattr(filling, "FRAME_ROWS", 5)
        monkeypatch.setattr(snapshot, "send", send)
    else:
        source.before("documents", 9, go_away)
    running = asyncio.create_task(snapshot.run())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    assert cursors > 1
    assert not source.cursors
    assert not snapshot.limits.turns.all_taken
    assert not snapshot.limits.turns.waiting


async def test_who_reads_by_several_turns_gives_those_up_that_others_wait_for() -> None:
    source, mapping = many(4, 200)
    first, second = Snapshot(source, mapping, turns=4), Snapshot(source, mapping)
    second.limits = first.limits
    running = asyncio.create_task(first.run())
    await until(lambda: len(source.cursors) == 4)
    late = asyncio.create_task(second.run())
    await until(lambda: sum(source.opened.values()) > 4)
    assert not first.model.commits
    assert second.limits.turns.waiting == 0
    await asyncio.gather(running, late)
    for snapshot in (first, second):
        assert bodies(snapshot) == held(snapshot)


async def test_a_table_that_stops_keeps_no_other_collection_waiting() -> None:
    """It begins anew once its document is mended; what is told of it is not taken back by the others' success."""
    source, mapping = many(6, 40)
    stops = [replace(table.spec, error_policy="stop") for table in mapping.tables.values()]
    snapshot = Snapshot(source, compiled(*stops), turns=4)
    source.update("m01", "035", body=None)
    running = asyncio.create_task(snapshot.run())
    await until(lambda: len(snapshot.model.tables) > 6 and sum(len(rows) for rows in bodies(snapshot).values()) >= 200)
    await until(lambda: source.opened["m01"] > 1)
    assert isinstance(snapshot.stops[-1], TableStopped)
    source.update("m01", "035", body="mended")
    source.delete("m01", "003")
    await asyncio.wait_for(running, 10)
    assert bodies(snapshot) == held(snapshot)
    assert snapshot.stops[-1] is None
    assert "truncate" in snapshot.tags()
    assert {source.opened[name] for name in mapping.tables if name != "m01"} == {1}
