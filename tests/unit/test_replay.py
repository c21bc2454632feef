"""From a position on, events as batches: whatever size the driver's batches have, whenever it answers with nothing."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import CursorLost, HistoryLost, WatermarkInFuture
from changesource.mapping.blocks import Blocks
from changesource.services.replay import FORESEEN_BYTES, batches
from changesource.sources.scripted import ScriptedSource, Write
from changesource.stream.batches import Batch
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from tests.harness.chat import compiled

MAPPING = compiled()


def messages(*ids: str) -> list[Write]:
    return [Write("insert", "messages", {"_id": one, "body": "x"}) for one in ids]


async def read(source: ScriptedSource, after: int, bounds: Bounds | None = None) -> list[Batch]:
    """Return the batches up to what is there now."""
    found: list[Batch] = []
    stream = batches(source, Transform(MAPPING), MAPPING.needs, after, bounds=bounds or Bounds(age=1e9), idle_ms=1)
    async with aclosing(stream):
        async for batch in stream:
            if batch is None:
                break
            found.append(batch)
    assert not source.feeds
    return found


async def test_a_transaction_that_the_driver_splits_stays_whole() -> None:
    source = ScriptedSource(feed_batch=100)
    began = await source.barrier("b")
    end = source.transaction(messages(*(str(number) for number in range(5000))))
    (batch,) = await read(source, began, Bounds(rows=10_000, size=1 << 30))
    assert (batch.follows, batch.end, len(batch.frames)) == (began, end, 5000)
    assert source.calls["poll"] >= 50


async def test_one_that_is_too_large_comes_in_pieces_and_a_last_one() -> None:
    source = ScriptedSource(feed_batch=100)
    began = await source.barrier("b")
    end = source.transaction(messages(*(str(number) for number in range(5000))))
    found = await read(source, began, Bounds(rows=1000, size=1 << 30))
    assert {(batch.follows, batch.end) for batch in found} == {(began, end)}
    assert [batch.final for batch in found] == [False] * 5 + [True]
    assert sum(len(batch.frames) for batch in found) == 5000


async def test_reading_begins_after_the_position() -> None:
    source = ScriptedSource()
    source.insert("messages", {"_id": "a", "body": "x"})
    after = source.transaction(messages("b", "c"))
    end = source.insert("messages", {"_id": "d", "body": "x"})
    (batch,) = await read(source, after)
    assert (batch.follows, batch.end, len(batch.frames)) == (after, end, 1)


async def test_events_of_other_collections_are_not_seen() -> None:
    source = ScriptedSource(feed_batch=2)
    began = await source.barrier("b")
    for number in range(9):
        source.insert("other", {"_id": number})
    assert await read(source, began) == []


async def test_a_position_that_does_not_come_again_is_lost() -> None:
    source = ScriptedSource()
    began = await source.barrier("b")
    elsewhere = source.insert("other", {"_id": 1})
    source.insert("messages", {"_id": "a", "body": "x"})
    with pytest.raises(HistoryLost):
        await read(source, elsewhere)
    with pytest.raises(WatermarkInFuture):
        await read(source, source.now + 1)
    source.truncate(began)
    with pytest.raises(HistoryLost):
        await read(source, began)
    assert not source.feeds


async def test_a_feed_that_falls_behind_what_is_forgotten_is_lost() -> None:
    source = ScriptedSource(feed_batch=1)
    began = await source.barrier("b")
    ends = [source.insert("messages", {"_id": str(number), "body": "x"}) for number in range(9)]
    source.before("poll", 3, lambda: source.truncate(ends[5]))
    with pytest.raises(HistoryLost):
        await read(source, began)


async def test_a_fault_drops_what_is_open() -> None:
    source = ScriptedSource(feed_batch=1)
    began = await source.barrier("b")
    source.transaction(messages("a", "b", "c"))
    source.fail("poll", CursorLost(), nth=3)
    with pytest.raises(CursorLost):
        await read(source, began)
    assert [len(batch.frames) for batch in await read(source, began)] == [3]


WRITES = st.lists(
    st.lists(st.tuples(st.sampled_from(["messages", "rooms", "other"]), st.integers(0, 3)), min_size=1, max_size=8),
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(WRITES, st.integers(1, 4), st.integers(1, 6), st.booleans())
async def test_batches_are_the_same_changes_however_they_are_read(
    units: list[list[tuple[str, int]]], feed_batch: int, rows: int, spread: bool
) -> None:
    source = ScriptedSource(feed_batch=feed_batch)
    began = await source.barrier("b")
    present: set[tuple[str, int]] = set()
    ends = {source.transaction([one_write(present, *place) for place in unit], spread=spread) for unit in units}
    found = await read(source, began, Bounds(rows, 1 << 40, 1e9))
    source.feed_batch = 1_000_000
    plain = await read(source, began, Bounds(1_000_000, 1 << 40, 1e9))
    assert [f for batch in found for f in batch.frames] == [f for batch in plain for f in batch.frames]
    position = began
    for batch in found:
        assert batch.follows == position
        if batch.final:
            assert spread or batch.end in ends
            position = batch.end
    assert not found or found[-1].final


def one_write(present: set[tuple[str, int]], collection: str, number: int) -> Write:
    """Insert what is absent, update or delete what is there."""
    document: dict[str, Any] = {"_id": str(number) if collection == "messages" else number, "body": "x", "kind": "chat"}
    if (collection, number) not in present:
        present.add((collection, number))
        return Write("insert", collection, document)
    if number % 2:
        present.discard((collection, number))
        return Write("delete", collection, {"_id": document["_id"]})
    return Write("update", collection, {"_id": document["_id"], "title": "t"})


async def test_no_more_frames_are_made_at_once_than_a_slow_reader_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an answer of 20 MB, the first batch is given when about a megabyte of it is frames."""
    made = 0
    frames = Blocks.frames

    def counted(self: Blocks, documents: Any, *, inserted: bool) -> list[bytes | None]:
        nonlocal made
        found = frames(self, documents, inserted=inserted)
        made += sum(len(frame) for frame in found if frame)
        return found

    monkeypatch.setattr(Blocks, "frames", counted)
    source = ScriptedSource(feed_batch=1000)
    began = await source.barrier("b")
    for number in range(1000):
        source.insert("messages", {"_id": str(number), "body": "x" * 20_000})
    bounds = Bounds(size=100_000, age=1e9)
    stream = batches(source, Transform(MAPPING), MAPPING.needs, began, bounds=bounds, idle_ms=1)
    given = 0
    async with aclosing(stream):
        async for batch in stream:
            if batch is None:
                break
            given += sum(map(len, batch.frames))
            assert made - given < 2 * FORESEEN_BYTES
    assert made == given > 20_000_000


async def test_what_a_filter_leaves_out_is_deleted_however_many_come_at_once() -> None:
    """By the same rows as one by one: an insert gives nothing, an update a delete."""
    source = ScriptedSource()
    began = await source.barrier("b")
    for number in range(20):
        source.insert("rooms", {"_id": number, "kind": "chat" if number % 2 else "other", "title": "t"})
        source.update("rooms", number, kind="other" if number % 3 else "chat")
    events, _ = source.read({"rooms"}, 0, 1000)
    transform = Transform(MAPPING)
    foreseen, size = transform.foreseen(events)
    for event, found in zip(events, foreseen, strict=True):
        assert found is not None
        assert [(name, list(made or ())) for name, made in found] == list(transform.changes(event))
    assert size > 0
    assert sum(b'"delete"' in made for one in await read(source, began) for made in one.frames) > 10
