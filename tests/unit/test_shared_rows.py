"""Rows that snapshots share: each gets what it would have made, and they are made once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest
from bson import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import TableStopped
from changesource.mapping.blocks import Blocks
from changesource.mapping.compiled import MappedTable, RowFault, ignore_fault
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.services.limits import Limits
from changesource.services.shared_rows import SharedRows
from changesource.services.turns import Turns
from changesource.sources.base import Batch, Document
from changesource.sources.mongodb.copying import Reply
from changesource.sources.mongodb.privileges import Need
from tests.unit.test_initial_sync import BOUNDS, NEVER, Snapshot, filled

COLUMNS = (
    ColumnSpec("id", "string", "_id"),
    ColumnSpec("body", "string", "body", optional=True),
    ColumnSpec("likes", "number", "likes", optional=True),
)
FAULTY: Document = {"_id": "faulty", "likes": "many"}
FIND = Need(("find",), "test", "notes")
KIB = 1024


def table(*columns: ColumnSpec, error_policy: str = "skip", name: str = "note") -> MappedTable:
    return MappedTable(
        TableSpec(name, "notes", columns or COLUMNS, ("id",), error_policy=error_policy),  # type: ignore[arg-type]
        "test",
    )


class Counted(Reply):
    """A reply that counts how often it was read."""

    times = 0

    @property
    def documents(self) -> Sequence[Document]:  # type: ignore[override]
        """See ``Batch``."""
        Counted.times += 1
        return super().documents


def reply(*documents: Document) -> Counted:
    Counted.times = 0
    return Counted(b"".join(map(encode, documents)), FIND)


def notes(first: int, count: int, size: int = 1) -> list[Document]:
    return [{"_id": f"{number:05}", "body": "x" * size} for number in range(first, first + count)]


def rows(shared: SharedRows, of: MappedTable, batch: Batch, faults: list[RowFault] | None = None) -> bytes:
    report = ignore_fault if faults is None else faults.append
    found = shared.encoded(Blocks(of, 1000, 1 << 20), of, batch, report)
    return b",".join(bytes(some.body) for some in found if some.rows)


def alone(of: MappedTable, batch: Batch) -> bytes:
    return rows(SharedRows(), of, Reply(batch.raw, FIND))


def test_who_reads_alone_keeps_nothing() -> None:
    shared, note, batch = SharedRows(), table(), reply(*notes(0, 10))
    with shared.reading([note]):
        assert rows(shared, note, batch) == alone(note, batch)
        assert shared.size == 0


def test_what_one_made_is_not_read_again_for_another() -> None:
    shared, note, batch = SharedRows(), table(), reply(*notes(0, 10))
    with shared.reading([note]), shared.reading([note]):
        found = [rows(shared, note, Counted(batch.raw, FIND)) for _ in range(3)]
        assert Counted.times == 1
        assert shared.size > len(batch.raw)
    assert found == [alone(note, batch)] * 3
    assert shared.size == 0


def test_another_table_makes_its_own_of_the_same() -> None:
    shared, note, other, batch = SharedRows(), table(), table(*reversed(COLUMNS)), reply(*notes(0, 10))
    with shared.reading([note, other]), shared.reading([note, other]):
        assert rows(shared, note, batch) == alone(note, batch)
        assert rows(shared, other, batch) == alone(other, batch)
        assert rows(shared, note, reply(*notes(1, 10))) == alone(note, reply(*notes(1, 10)))


def test_faults_are_told_to_everybody() -> None:
    shared, note, batch = SharedRows(), table(), reply(*notes(0, 3), FAULTY, *notes(3, 3))
    with shared.reading([note]), shared.reading([note]):
        for _ in range(2):
            faults: list[RowFault] = []
            assert rows(shared, note, batch, faults) == alone(note, batch)
            assert [fault.document_id for fault in faults] == ['"faulty"']
        assert shared.size == 0


def test_a_table_that_stops_does_for_everybody() -> None:
    shared, note, batch = SharedRows(), table(error_policy="stop"), reply(*notes(0, 3), FAULTY)
    with shared.reading([note]), shared.reading([note]):
        for _ in range(2):
            with pytest.raises(TableStopped):
                rows(shared, note, batch)
        assert shared.size == 0


def test_what_is_kept_is_bounded_and_the_least_used_goes() -> None:
    shared, note = SharedRows(64 * KIB), table()
    batches = [reply(*notes(number * 10, 10, 100)) for number in range(100)]
    large = reply(*notes(5000, 10, KIB))
    Counted.times = 0
    with shared.reading([note]), shared.reading([note]):
        for batch in batches:
            rows(shared, note, Counted(batch.raw, FIND))
            rows(shared, note, Counted(batches[0].raw, FIND))
            assert shared.size <= 64 * KIB
        assert Counted.times == len(batches)
        rows(shared, note, large)
        for kept, batch in ((True, batches[0]), (True, batches[-1]), (False, batches[1]), (False, large)):
            Counted.times = 0
            assert rows(shared, note, Counted(batch.raw, FIND)) == alone(note, batch)
            assert Counted.times == (0 if kept else 1)


def test_what_the_last_but_one_leaves_is_forgotten() -> None:
    shared, note, other = SharedRows(), table(), table(name="other")
    batch = reply(*notes(0, 10))
    with ExitStack() as stack, shared.reading([note, other]):
        stack.enter_context(shared.reading([note]))
        rows(shared, note, batch)
        rows(shared, other, batch)
        assert shared.size
        stack.close()
        assert shared.size == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=40),
    st.sampled_from([KIB, 4 * KIB, 64 * KIB]),
)
@settings(deadline=None)
def test_in_any_order_each_gets_what_it_would_have_made(asked: list[tuple[int, int, bool]], most: int) -> None:
    shared = SharedRows(most)
    tables = [table(), table(*reversed(COLUMNS)), table(error_policy="coerce"), table(COLUMNS[0])]
    batches = [reply(*notes(number, 3 * number + 1), *([FAULTY] if number % 2 else [])) for number in range(6)]
    with shared.reading(tables), shared.reading(tables):
        for place, number, halfway in asked:
            batch = Reply(batches[number].raw, FIND)
            if halfway:
                next(iter(shared.encoded(Blocks(tables[place], 2, 1 << 20), tables[place], batch, ignore_fault)), None)
            assert rows(shared, tables[place], batch) == alone(tables[place], batch)
            assert shared.size <= most


async def test_snapshots_at_the_same_time_make_rows_once_and_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    source, writer = filled(400)
    limits = Limits(BOUNDS, keepalive=30.0, turns=Turns(4), catch_up=NEVER)
    made: Counter[str] = Counter()
    encoded = Blocks.encoded

    def counted(self: Blocks, documents: Sequence[Document], report: object) -> object:
        documents = list(documents)
        made[self._table.name] += len(documents)
        return encoded(self, documents, report)  # type: ignore[arg-type]

    monkeypatch.setattr(Blocks, "encoded", counted)
    snapshots = [Snapshot(source) for _ in range(8)]
    mapping = snapshots[0].mapping
    for snapshot in snapshots:
        snapshot.limits, snapshot.mapping = limits, mapping
    running = [asyncio.create_task(snapshot.run()) for snapshot in snapshots]
    while not all(task.done() for task in running):
        writer.step()
        await asyncio.sleep(0)
    for task in running:
        (await task).check()
    copied = len(snapshots[0].model.rows("message"))
    assert copied > 300
    # Those that were written meanwhile are made again.
    assert made["message"] < copied * 4
    assert limits.shared_rows.size == 0


async def test_rows_are_shared_through_publications_that_overlap() -> None:
    source, _ = filled(200)
    limits = replace(Limits(BOUNDS, keepalive=30.0, turns=Turns(4), catch_up=NEVER))
    whole = Snapshot(source)
    part = Snapshot(source, whole.mapping.published(["places"]))
    for snapshot in (whole, part):
        snapshot.limits = limits
    await asyncio.gather(whole.run(), part.run())
    whole.check()
    part.check()
