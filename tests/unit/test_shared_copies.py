"""Several snapshots of the same tables at once: one cursor serves them, and each is exact."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import SourceUnavailable
from changesource.mapping.compiled import CompiledMapping
from changesource.services import filling, shared_copies, table_rows
from changesource.services.shared_copies import Block, SharedCopies, SharedCopy
from changesource.sources.scripted import Call, ScriptedCopy, ScriptedSource
from tests.harness.chat import compiled
from tests.harness.snapshots import ALWAYS, NEVER, Snapshot, bodies, filled, held, many
from tests.harness.waiting import until

SOON = 0.01


def together(
    source: ScriptedSource,
    mapping: CompiledMapping,
    snapshots: int,
    *,
    turns: int = 4,
    catch_up: float = NEVER,
) -> list[Snapshot]:
    """Snapshots of one process."""
    made = [Snapshot(source, mapping, turns=turns, catch_up=catch_up) for _ in range(snapshots)]
    for snapshot in made:
        snapshot.limits = made[0].limits
    return made


async def run(snapshots: list[Snapshot]) -> None:
    """Run them at once, to their ends."""
    async with asyncio.timeout(20):
        await asyncio.gather(*(snapshot.run() for snapshot in snapshots))


def stuck_at_first(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Have its reader take nothing from the first rows on; return what tells of that, and what lets it go on."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def send(frame: str) -> None:
        if '"backfill"' in frame:
            reached.set()
            await release.wait()
        await Snapshot.send(snapshot, frame)

    monkeypatch.setattr(snapshot, "send", send)
    return reached, release


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("snapshots", [2, 20])
async def test_one_cursor_of_each_collection_serves_all(snapshots: int, turns: int) -> None:
    source, mapping = many(8, 45)
    made = together(source, mapping, snapshots, turns=turns)
    await run(made)
    for snapshot in made:
        assert bodies(snapshot) == held(snapshot)
        assert (snapshot.progress.rows, snapshot.progress.documents) == (8 * 45, 8 * 45)
    assert source.opened == dict.fromkeys(mapping.tables, 1)
    assert not source.cursors


async def test_nothing_is_kept_once_all_have_ended() -> None:
    source, mapping = many(3, 45)
    first, second = together(source, mapping, 2)
    await run([first])
    await run([second])
    assert source.opened == dict.fromkeys(mapping.tables, 2)


async def test_other_rows_have_a_cursor_of_their_own() -> None:
    """Of other tables of the same collections, and for a zero-cache that takes no ``backfill`` frames."""
    source, mapping = many(2, 45)
    first, second, third = together(source, mapping, 3)
    second.mapping = compiled(*(replace(table.spec, filter={"body": "m00"}) for table in mapping.tables.values()))
    third.limits = replace(third.limits, backfill=False)
    await run([first, second, third])
    assert bodies(first) == held(first) == bodies(third)
    assert bodies(second) == {"m00": held(second)["m00"], "m01": {}}
    assert source.opened == dict.fromkeys(mapping.tables, 3)


async def test_who_comes_later_replays_from_where_the_cursor_reads() -> None:
    """It may read what was deleted before the later snapshot began."""
    source, mapping = many(1, 60)
    source.lag()
    first, second = together(source, mapping, 2)
    late: list[asyncio.Task[Snapshot]] = []

    def begin_another() -> None:
        source.delete("m00", "059")
        source.update("m00", "058", body="new")
        late.append(asyncio.create_task(second.run()))

    source.before("documents", 2, begin_another)
    # Until it has its own, later position, and follows.
    for nth in range(3, 6):
        source.before("documents", nth, lambda: source.update("m00", "001", body="again"))
    await first.run()
    await late[0]
    assert source.opened == {"m00": 1}
    assert "059" in "".join(frame for frame in second.frames if '"backfill"' in frame)
    for snapshot in (first, second):
        assert bodies(snapshot) == held(snapshot)


async def test_what_does_not_fit_is_reported_to_each() -> None:
    source, mapping = many(2, 45)
    source.replace("m01", {"_id": "007"})
    made = together(source, mapping, 3)
    await run(made)
    for snapshot in made:
        assert [(fault.table, fault.document_id) for fault in snapshot.faults] == [("m01", '"007"')]
    assert source.opened == dict.fromkeys(mapping.tables, 1)


async def test_where_a_table_stops_each_waits_for_itself() -> None:
    source, mapping = many(3, 45)
    mapping = compiled(*(replace(table.spec, error_policy="stop") for table in mapping.tables.values()))
    source.replace("m01", {"_id": "037"})
    made = together(source, mapping, 3)
    running = asyncio.create_task(run(made))
    await until(lambda: all(any(snapshot.stops) for snapshot in made))
    source.replace("m01", {"_id": "037", "body": "mended"})
    await running
    for snapshot in made:
        assert bodies(snapshot) == held(snapshot)
        assert snapshot.stops[-1] is None


async def test_where_who_reads_goes_away_the_others_go_on() -> None:
    source, mapping = many(4, 200)
    first, *others = made = together(source, mapping, 3)
    tasks = [asyncio.create_task(snapshot.run()) for snapshot in made]
    await until(lambda: len(source.cursors) == 4)
    tasks[0].cancel()
    await asyncio.gather(*tasks[1:])
    assert tasks[0].cancelled()
    assert not first.model.commits
    for snapshot in others:
        assert bodies(snapshot) == held(snapshot)
        ids = [
            row[0] for frame in snapshot.frames if '"backfill"' in frame for row in json.loads(frame)[1]["rowValues"]
        ]
        # It went on, and did not begin anew.
        assert len(ids) == 4 * 200
    assert max(source.opened.values()) == 2
    assert not source.cursors


async def test_a_fault_of_who_reads_is_met_by_the_others_themselves() -> None:
    source, mapping = many(2, 100)
    made = together(source, mapping, 3)
    source.fail("documents", SourceUnavailable(), 5)
    await run(made)
    for snapshot in made:
        assert bodies(snapshot) == held(snapshot)


async def test_who_is_slow_goes_on_by_itself_and_holds_up_the_others_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_copies, "WINDOW_BYTES", 2000)
    monkeypatch.setattr(shared_copies, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(table_rows, "FRAME_ROWS", 10)
    source, mapping = many(1, 400)
    first, slow, third = made = together(source, mapping, 3)
    reached, release = stuck_at_first(slow, monkeypatch)
    tasks = [asyncio.create_task(snapshot.run()) for snapshot in made]
    await asyncio.wait_for(reached.wait(), 5)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(tasks[0], tasks[2])
    assert asyncio.get_running_loop().time() - began < 2
    assert source.opened == {"m00": 1}
    release.set()
    await tasks[1]
    assert source.opened == {"m00": 2}
    for snapshot in (first, slow, third):
        assert bodies(snapshot) == held(snapshot)


async def test_where_who_reads_is_slow_another_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(filling, "AT_ONCE", 1)
    source, mapping = many(1, 2000, batch=100)
    slow, *others = made = together(source, mapping, 3)
    _, release = stuck_at_first(slow, monkeypatch)
    tasks = [asyncio.create_task(snapshot.run()) for snapshot in made]
    await asyncio.wait_for(asyncio.gather(*tasks[1:]), 10)
    assert source.opened == {"m00": 2}
    assert not tasks[0].done()
    release.set()
    await tasks[0]
    for snapshot in (slow, *others):
        assert bodies(snapshot) == held(snapshot)


async def test_the_next_round_is_shared_as_well() -> None:
    """Who followed to the end of a cursor stands where the next one begins."""
    source, mapping = many(1, 3000)
    made = together(source, mapping, 5, catch_up=0.1)
    await run(made)
    assert 2 <= source.opened["m00"] < 5 * 2
    for snapshot in made:
        assert bodies(snapshot) == held(snapshot)


def rename(source: ScriptedSource) -> None:
    for number in range(30):
        source.insert("temporary", {"_id": f"{number:03}", "body": "renamed"})
    source.rename("temporary", "m01")


def drop(source: ScriptedSource) -> None:
    source.drop("m01")
    source.insert("m01", {"_id": "after", "body": "x"})


@pytest.mark.parametrize("nth", [1, 4, 9, 14])
@pytest.mark.parametrize("change", [rename, drop])
async def test_collections_that_are_replaced_meanwhile(change: Callable[[ScriptedSource], None], nth: int) -> None:
    """What was read before is of no use to anybody then."""
    source, mapping = many(3, 45)
    made = together(source, mapping, 3)
    source.before("documents", nth, lambda: change(source))
    await run(made)
    for snapshot in made:
        assert bodies(snapshot) == held(snapshot)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(["documents", "poll", "barrier", "feed"]), st.integers(1, 30)), max_size=10),
    st.lists(st.integers(1, 12), min_size=2, max_size=2),
    st.sampled_from([NEVER, SOON, ALWAYS]),
    st.booleans(),
    st.sampled_from([1, 4]),
)
async def test_whatever_is_written_whenever_each_snapshot_is_exact(
    seed: int, moments: list[tuple[Call, int]], begins: list[int], catch_up: float, lagging: bool, turns: int
) -> None:
    """They begin one after the other, while the first reads."""
    source, writer = filled(20, seed=seed, batch=4)
    if lagging:
        source.lag()
    for call, nth in moments:
        source.before(call, nth, lambda: [writer.step() for _ in range(4)])
    first, *others = together(source, compiled(), 3, turns=turns, catch_up=catch_up)
    tasks: list[asyncio.Task[Snapshot]] = []
    for snapshot, nth in zip(others, begins, strict=True):
        source.before("documents", nth, lambda snapshot=snapshot: tasks.append(asyncio.create_task(snapshot.run())))
    await first.run()
    await asyncio.gather(*tasks)
    for snapshot in (first, *others[: len(tasks)]):
        snapshot.check()


# The copy itself.


def block(size: int) -> Block:
    rows = [[shared_copies.EncodedRows(b"x" * size, 1)]]
    return Block(1, rows, [], ScriptedCopy(ScriptedSource(), "m"))


async def test_what_is_kept_is_bounded() -> None:
    copy = SharedCopy(None, 0, NEVER)
    assert copy.leads_on(None)
    for _ in range(5):
        await copy.put(block(400), 1000)
    assert copy.size == 800
    assert not copy.leads_on(None)
    assert copy.leads_on(copy.end)
    copy.close()
    assert not copy.leads_on(copy.end)


async def test_those_that_ended_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_copies, "ENDED_BYTES", 1000)
    copies = SharedCopies()
    until_then = asyncio.get_running_loop().time() + NEVER
    made = [SharedCopy(None, 0, until_then) for _ in range(4)]
    with copies.used():
        for name, copy in zip("abcd", made, strict=True):
            copies.begin(name, copy)
            await copy.put(block(600), 1000)
            copy.close()
        assert [copies.find(name, None, 0) is not None for name in "abcd"] == [False, False, True, True]
        assert copies.find("d", None, 1) is None
        copies.begin("e", SharedCopy(None, 0, 0.0))
        assert copies.find("e", None, 0) is None
    assert copies.find("d", None, 0) is None
