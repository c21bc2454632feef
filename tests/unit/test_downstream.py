"""What one replica is sent of a sequence of batches, seen by a replica that refuses whatever is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changesource.protocol.messages import TableFrames, create_tables
from changesource.protocol.tables import mapped_table
from changesource.services.downstream import Downstream
from changesource.services.flight import QUIET, Flight
from changesource.stream.batches import BARRIER, Batch, BatchBuilder
from tests.harness.link import framewise
from tests.harness.model import ModelReplica

TABLES = {name: mapped_table(name, [("id", "string", False)], ("id",)) for name in ("a", "b")}
FRAMES = {name: TableFrames(table) for name, table in TABLES.items()}
START = 100


class Wire:
    """A replica of some tables behind a ``Downstream`` that begins at ``START``."""

    def __init__(self, *tables: str) -> None:
        self.sent: list[str] = []
        self.model = ModelReplica()
        self.downstream = Downstream(framewise(self.send), 5, tables, START)

    async def send(self, frame: str) -> None:
        self.sent.append(frame)
        self.model.apply(frame)

    async def created(self) -> Wire:
        await self.downstream.begin(START)
        await self.downstream.frames(create_tables(TABLES.values(), "app", 0))
        await self.downstream.commit()
        self.sent.clear()
        return self

    def kinds(self) -> str:
        """Return the first letter of each frame sent."""
        return "".join(frame[2] for frame in self.sent)

    def ids(self, table: str) -> list[str]:
        return sorted(key[0] for key in self.model.rows(table))


async def wire(*tables: str) -> Wire:
    return await Wire(*(tables or ("a", "b"))).created()


def batch(follows: int, end: int, *changes: tuple[int, str, str], final: bool = True) -> Batch:
    """``changes`` are (cluster time, table, ids, of which each is inserted)."""
    builder = BatchBuilder(follows, {})
    for cluster_time, table, ids in changes:
        builder.add(cluster_time, table, [FRAMES[table].insert({"id": one}) for one in ids])
    builder.end = end
    return builder.build(final=final)


async def test_a_commit_says_when_mongodb_made_the_first_change() -> None:
    """Of several pieces the first says it; where it is not known, the watermark does. No snapshot does."""
    it = await wire("a")
    second = 1_700_000_000
    start = second << 32
    at = [Batch(start, start + 1, {}, ((start + 1, "a", 0), (start + 1, BARRIER, 0)), time_ms=1_699_999_999_123)]
    at += [Batch(start + 1, start + 2, {}, ((start + 2, BARRIER, 0),))]
    at += [replace(batch(start + 2, start + 3, (start + 3, "a", "x"), final=False), time_ms=1_700_000_000_005)]
    at += [replace(batch(start + 2, start + 3, (start + 3, "a", "y")), time_ms=1_700_000_000_999)]
    for one in at:
        await it.downstream.batch(one)
    assert it.model.times == [None, 1_699_999_999_123, second * 1000, 1_700_000_000_005]


async def test_many_transactions_without_rows_are_told_by_an_empty_one() -> None:
    it = await wire("a")
    for time in range(START + 1, START + 2 * QUIET + 10):
        await it.downstream.batch(Batch(time - 1, time, {}, ((time, "a", 0),)))
    assert it.kinds() == "bcbc"
    assert it.downstream.committed.cluster_time == START + 2 * QUIET


async def test_transactions_of_others_are_not_told() -> None:
    it = await wire("a")
    for time in range(START + 1, START + QUIET + 10):
        await it.downstream.batch(Batch(time - 1, time, {}, ((time, "b", 0),)))
    assert it.kinds() == ""


async def test_pieces_of_one_transaction_count_once() -> None:
    flight = Flight(10)
    it = Wire("a")
    it.downstream = Downstream(framewise(it.send), 5, ("a",), START, flight=flight)
    await it.created()
    for _ in range(5):
        await it.downstream.batch(batch(START, START + 9, (START + 9, "a", "x"), final=False))
    await it.downstream.batch(batch(START, START + 9, (START + 9, "a", "x")))
    assert flight.on_its_way == 1


async def test_a_batch_is_one_transaction_at_its_last_event() -> None:
    it = await wire()
    await it.downstream.batch(batch(START, 105, (102, "a", "xy"), (105, "b", "z")))
    assert it.kinds() == "bdddc"
    assert (it.ids("a"), it.ids("b")) == (["x", "y"], ["z"])
    assert it.downstream.committed.cluster_time == it.downstream.position == it.downstream.anchor == 105
    assert it.model.last_watermark == str(it.downstream.committed)
    assert it.downstream.commits == 2


async def test_the_watermark_is_that_of_an_event_of_ones_own() -> None:
    """The batch reaches up to an event of others: that is where one stands, but not where one can resume."""
    it = await wire("a")
    await it.downstream.batch(batch(START, 109, (102, "a", "x"), (105, "b", "z")))
    assert it.downstream.committed.cluster_time == it.downstream.anchor == 102
    assert it.downstream.position == 109
    assert it.ids("b") == []


async def test_a_batch_of_others_sends_nothing_and_moves_the_position() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 105, (105, "b", "z")))
    assert it.sent == []
    assert (it.downstream.position, it.downstream.anchor) == (105, START)


async def test_an_event_of_ones_own_without_rows_sends_nothing() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 105, (105, "a", "")))
    assert it.sent == []
    assert (it.downstream.position, it.downstream.anchor) == (105, 105)


async def test_a_barrier_is_an_empty_transaction() -> None:
    it = await wire("a")
    await it.downstream.batch(Batch(START, 107, {}, ((105, BARRIER, 0), (107, "b", 0))))
    assert it.kinds() == "bc"
    assert it.downstream.committed.cluster_time == it.downstream.anchor == 105
    assert it.downstream.position == 107


async def test_what_overlaps_is_trimmed() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 103, (102, "a", "x"), (103, "a", "y")))
    it.sent.clear()
    await it.downstream.batch(batch(101, 104, (102, "a", "p"), (103, "a", "q"), (104, "a", "z")))
    assert it.kinds() == "bdc"
    assert it.ids("a") == ["x", "y", "z"]


async def test_what_is_known_is_not_sent_again() -> None:
    it = await wire("a")
    once = batch(START, 103, (102, "a", "x"), (103, "a", "y"))
    await it.downstream.batch(once)
    it.sent.clear()
    await it.downstream.batch(once)
    await it.downstream.batch(batch(START, 102, (102, "a", "x")))
    await it.downstream.batch(Batch(START, 103, {}, ((103, BARRIER, 0),)))
    assert it.sent == []
    assert it.downstream.position == 103


async def test_pieces_are_one_transaction() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 105, (105, "a", "x"), final=False))
    assert it.downstream.open
    assert it.downstream.opened.cluster_time == 105
    assert it.downstream.position == START
    await it.downstream.batch(batch(START, 105, (105, "b", "q"), final=False))
    await it.downstream.batch(batch(START, 105, (105, "a", "y"), final=False))
    await it.downstream.batch(batch(START, 105))
    assert it.kinds() == "bddc"
    assert not it.downstream.open
    assert it.downstream.position == it.downstream.anchor == 105


async def test_pieces_of_others_send_nothing() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 105, (105, "b", "x"), final=False))
    assert not it.downstream.open
    await it.downstream.batch(batch(START, 105, (105, "b", "y")))
    assert it.sent == []
    assert it.downstream.position == 105


async def test_after_a_rollback_the_watermark_is_used_again() -> None:
    it = await wire("a")
    await it.downstream.batch(batch(START, 105, (105, "a", "x"), final=False))
    await it.downstream.rollback()
    assert (it.downstream.position, it.downstream.anchor) == (START, START)
    assert it.ids("a") == []
    await it.downstream.batch(batch(START, 105, (105, "a", "x"), final=False))
    await it.downstream.batch(batch(START, 105, (105, "a", "y")))
    assert it.kinds() == "bdrbddc"
    assert it.ids("a") == ["x", "y"]
    assert it.model.rollbacks == 1


async def test_outside_a_transaction_there_is_nothing_to_end() -> None:
    it = await wire("a")
    await it.downstream.commit()
    await it.downstream.rollback()
    assert it.sent == []
    with pytest.raises(RuntimeError):
        it.downstream.opened  # noqa: B018


@given(st.lists(st.tuples(st.integers(100, 112), st.integers(1, 6)), max_size=12), st.sampled_from(["a", "b", "ab"]))
async def test_whatever_comes_watermarks_rise_and_nothing_is_sent_twice(
    spans: list[tuple[int, int]], tables: str
) -> None:
    """Batches repeat and overlap at will: each event of one's own is sent once, in order (the model checks more)."""
    it = await wire(*tables)
    wanted: list[str] = []
    for follows, length in spans:
        if follows > it.downstream.position:
            continue
        times = range(follows + 1, follows + length + 1)
        names = {time: ("a", "b", BARRIER)[time % 3] for time in times}
        wanted += [str(t) for t in times if t > it.downstream.position and names[t] in tables and names[t] != BARRIER]
        builder = BatchBuilder(follows, {})
        for time, name in names.items():
            builder.add(time, name, [] if name == BARRIER else [FRAMES[name].insert({"id": str(time)})])
        builder.end = follows + length
        await it.downstream.batch(builder.build())
    sent = [frame.split('"id":"')[1].split('"')[0] for frame in it.sent if '"new"' in frame]
    assert sent == [one for one in wanted if one]


async def test_what_is_cut_off_in_a_large_batch_is_rolled_back() -> None:
    """The commit goes only after the rest has gone: until then there is something to roll back."""
    it = await wire()
    taken = asyncio.Event()

    async def stuck(frames: Sequence[bytes]) -> None:
        await framewise(it.send)(frames)
        if len(frames) > 1:
            taken.set()
            await asyncio.Event().wait()

    it.downstream = Downstream(stuck, 5, ("a",), START)
    sending = asyncio.create_task(it.downstream.batch(batch(START, START + 1, (START + 1, "a", "x" * 5000))))
    await taken.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert it.downstream.committed.cluster_time == START
    await it.downstream.rollback()
    assert it.kinds().replace("d", "") == "br"
