"""Reading MongoDB's change stream: where a transaction ends, where a position no longer holds."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any

import pytest
from pymongo.database import Database

from changesource.exceptions import HistoryLost, SourceUnavailable, WatermarkInFuture
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.formats import read_specification
from changesource.mapping.needs import EVERYTHING
from changesource.services.replay import batches
from changesource.sources.base import PROOF_WAIT_MS, ChangeFeed
from changesource.sources.mongodb.feed import REPLY_BYTES, ChangeCursor
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.batches import Batch
from changesource.stream.events import Event
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from tests.conftest import MongoServer
from tests.harness.app import MAPPINGS
from tests.harness.failpoints import fail_next

OPERATIONS = 5000
# Documents after which the copy's cursor is lost: within numbers, within strings, and between two types.
LOST_AT = (7, 28, 42)
BOUNDS = Bounds()


@pytest.fixture
async def source(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[MongoSource]:
    """The test's database, read in driver batches of 100 events."""
    made = MongoSource(mongodb.uri, mongo.name, "_zerosource", feed_batch=100, snapshot_batch=7)
    yield made
    await made.close()


@pytest.fixture
def mapping(mongo: Database[Any]) -> CompiledMapping:
    """The application's mappings, compiled."""
    return CompiledMapping.compile(read_specification(MAPPINGS), mongo.name)


def stream(source: MongoSource, mapping: CompiledMapping, after: int) -> Any:
    """Return the batches after a position."""
    return batches(source, Transform(mapping), mapping.needs, after, bounds=BOUNDS, idle_ms=200)


async def collect(source: MongoSource, mapping: CompiledMapping, after: int, until: int) -> list[Batch]:
    """Return the batches in (after, until]."""
    found: list[Batch] = []
    async with asyncio.timeout(60), aclosing(stream(source, mapping, after)) as running:
        async for batch in running:
            if batch is not None:
                found.append(batch)
                if batch.final and batch.end >= until:
                    return found
    raise AssertionError("the stream ended")


async def test_a_transaction_larger_than_a_batch_is_never_split(
    source: MongoSource, mapping: CompiledMapping, mongo: Database[Any]
) -> None:
    """5,000 operations, read 100 at a time, are pieces of one transaction, with writers around it."""
    began = await source.barrier("test")
    mongo["notes"].insert_one({"_id": "before"})

    def transaction() -> None:
        with mongo.client.start_session() as session, session.start_transaction():
            for start in range(0, OPERATIONS, 500):
                names = [{"_id": f"t-{n}", "name": "x"} for n in range(start, start + 500)]
                mongo["items"].insert_many(names, session=session)

    await asyncio.to_thread(transaction)
    mongo["items"].insert_one({"_id": "after", "name": "x"})
    ended = await source.barrier("test")
    found = await collect(source, mapping, began, ended)
    rows = [(batch, run) for batch in found for run in batch.runs if run[1] == "item"]
    times = {run[0] for _, run in rows if run[2]}
    large = max(times, key=lambda time: sum(run[2] for _, run in rows if run[0] == time))
    pieces = [batch for batch, run in rows if run[0] == large]
    assert sum(run[2] for _, run in rows if run[0] == large) == OPERATIONS
    assert [piece.final for piece in pieces[:-1]] == [False] * (len(pieces) - 1)
    assert all(run[0] == large for piece in pieces for run in piece.runs), "nothing else is in it"
    assert len({(piece.follows, piece.end) for piece in pieces}) == 1


async def test_the_end_of_a_group_is_proved_quickly(
    source: MongoSource, mapping: CompiledMapping, mongo: Database[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """From the event's arrival to the proof that it stands alone: nothing like the idle wait (a millisecond or two)."""
    after = await source.barrier("test")
    feed = await source.feed(mapping.needs, after)
    costs: list[float] = []
    try:
        for number in range(60):
            mongo["items"].insert_one({"_id": f"lone-{number}", "name": "x"})
            while not await feed.poll(500):
                pass
            started = perf_counter()
            assert await feed.poll(1) is None
            costs.append((perf_counter() - started) * 1000)
    finally:
        await feed.close()
    median = statistics.median(costs)
    with capsys.disabled():
        print(f"\nproof of a group's end: median {median:.2f} ms, 90th percentile {sorted(costs)[53]:.2f} ms")
    assert median < 100


async def test_a_position_must_come_again(source: MongoSource, mapping: CompiledMapping, mongo: Database[Any]) -> None:
    """One that is no event's is history lost; one later than MongoDB's time is in the future."""
    before = await source.barrier("test")
    mongo["items"].insert_one({"_id": "a", "name": "x"})
    assert [b.runs for b in await collect(source, mapping, before, before + 1)]
    with pytest.raises(HistoryLost):
        await collect(source, mapping, before - 1, before + 1)
    with pytest.raises(WatermarkInFuture):
        await collect(source, mapping, before + (3600 << 32), before + (3601 << 32))


async def test_replies_are_of_one_size_whatever_the_documents(
    mongodb: MongoServer, mongo: Database[Any], mapping: CompiledMapping
) -> None:
    """MongoDB's own bound is 16 MB, of which each replica that is slow would hold one, decoded."""
    source = MongoSource(mongodb.uri, mongo.name, "_zerosource")
    began = await source.barrier("test")
    large, small = 250, 4000
    mongo["items"].insert_many([{"_id": f"large-{n:03}", "name": "x" * 50_000} for n in range(large)])
    mongo["items"].insert_many([{"_id": f"small-{n}", "name": "x"} for n in range(small)])
    at_most = REPLY_BYTES // 50_000 + 1  # one more where a barrier, which is small, is among those that tell
    feed = await source.feed(mapping.needs, began)
    replies: list[int] = []
    try:
        async with asyncio.timeout(60):
            while sum(replies) < large + small:
                replies.append(len(await feed.poll(100) or ()))
    finally:
        await feed.close()
    # A few events tell little; of those that are large not many come at once, of small ones many again.
    first = next(place for place, count in enumerate(replies) if count > 1)
    assert replies[first] <= 100
    assert max(replies[first + 1 : first + 1 + (large - 100) // at_most]) <= at_most
    assert max(replies) > 150
    copied = [len(batch) async for batch in source.copy("items").batches(began)]
    await source.close()
    assert sum(copied) == large + small
    assert copied[: large // at_most] == [at_most - 1] * (large // at_most)


async def test_events_may_bear_their_documents_as_they_are_now(
    source: MongoSource, mapping: CompiledMapping, mongo: Database[Any]
) -> None:
    """Up to a time: what is gone is None, and what is there again was replaced."""
    after = await source.barrier("test")
    items = mongo["items"]
    items.insert_many([{"_id": name, "name": "old"} for name in ("changed", "gone", "again")])
    items.delete_many({"_id": {"$in": ["gone", "again"]}})
    items.insert_one({"_id": "again", "name": "new"})
    items.update_one({"_id": "changed"}, {"$set": {"name": "new"}})
    until = await source.barrier("test")
    items.insert_one({"_id": "later", "name": "old"})
    items.delete_one({"_id": "later"})
    feed = await source.feed(mapping.needs, after, until)
    found: list[tuple[object, str, object]] = []
    try:
        async with asyncio.timeout(30):
            while len(found) < 9:
                for event in await feed.poll(100) or ():
                    if event.kind != "barrier":
                        name = event.document and event.document["name"]
                        found.append((event.document_id, event.kind, name))
    finally:
        await feed.close()
    assert {one for one in found if one[0] == "changed"} == {("changed", "insert", "new"), ("changed", "update", "new")}
    assert {one for one in found if one[0] == "gone"} == {("gone", "insert", None), ("gone", "delete", None)}
    assert {one for one in found if one[0] == "again"} == {("again", "insert", "new"), ("again", "replace", "new")}
    assert [one[1:] for one in found if one[0] == "later"] == [("insert", "old"), ("delete", None)]


async def test_a_copy_says_where_another_turn_could_not_go_on(source: MongoSource, mongo: Database[Any]) -> None:
    """U+FFFD may stand for bytes that are no UTF-8, which sort elsewhere."""
    mongo["odd"].insert_many([{"_id": f"a{n:02}"} for n in range(20)])
    mongo["odd"].insert_many([{"_id": f"b\ufffd{n:02}"} for n in range(20)])
    copy = source.copy("odd")
    began = await source.barrier("test")
    told = [(batch[0]["_id"][0], copy.resumable) async for batch in copy.batches(began)]
    assert ("a", True) in told
    assert ("b", False) in told
    assert ("b", True) not in [one for one in told if one[0] == "b"][1:]


async def test_documents_of_every_id_type_come_once(
    source: MongoSource, mongo: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The copy's order is MongoDB's, across BSON types, and a lost cursor goes on where it was."""
    ids = [*range(20), *(f"s{n}" for n in range(20)), *({"x": n} for n in range(5)), True, None]
    mongo["mixed"].insert_many([{"_id": value} for value in ids])
    began = await source.barrier("test")
    seen: list[object] = []
    async for batch in source.copy("mixed").batches(began):
        seen += [document["_id"] for document in batch]
        if len(seen) in LOST_AT:
            fail_next(mongo.client, "getMore", code=43)
    assert caplog.text.count("copying goes on after a fault") == len(LOST_AT)
    assert sorted(map(repr, seen)) == sorted(map(repr, ids))


async def test_barriers_are_cheap_and_rise(source: MongoSource) -> None:
    """Barriers written at once are different events, in order."""
    marks = await asyncio.gather(*(source.barrier(f"b{n}") for n in range(8)))
    assert len(set(marks)) == len(marks)
    assert await source.barrier("b0") > max(marks)


async def test_what_follows_events_is_asked_for_before_it_is_wanted(
    source: MongoSource, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the proof that they have ended is under way while they are mapped; nothing is asked for ahead when idle."""
    asked: list[int] = []
    more = ChangeCursor.more

    async def counted(self: ChangeCursor, wait_ms: int) -> Any:
        asked.append(wait_ms)
        return await more(self, wait_ms)

    monkeypatch.setattr(ChangeCursor, "more", counted)
    feed = await source.feed({"items": EVERYTHING}, await source.barrier("began"))
    try:
        async with asyncio.timeout(30):
            mongo["items"].insert_one({"_id": 1})
            while not await feed.poll(50):
                pass
            asked.clear()
            mongo["items"].insert_one({"_id": 2})
            while not (events := await feed.poll(50)):
                pass
            assert [event.document_id for event in events] == [2]
            assert asked[-1] == PROOF_WAIT_MS
            ahead = len(asked)
            assert await feed.poll(50) is None
            assert len(asked) == ahead
            assert await feed.poll(50) is None
            assert asked[ahead:] == [50]
    finally:
        await feed.close()


async def forever(feed: ChangeFeed) -> None:
    while True:
        await feed.poll(50)


async def test_a_fault_of_what_was_asked_for_ahead_is_told_where_it_is_wanted(
    source: MongoSource, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = await source.feed({"items": EVERYTHING}, await source.barrier("began"))
    more = ChangeCursor.more

    async def failing(self: ChangeCursor, wait_ms: int) -> Any:
        if wait_ms == PROOF_WAIT_MS:
            raise SourceUnavailable("gone")
        return await more(self, wait_ms)

    monkeypatch.setattr(ChangeCursor, "more", failing)
    try:
        async with asyncio.timeout(30):
            mongo["items"].insert_one({"_id": 1})
            with pytest.raises(SourceUnavailable):
                await forever(feed)
    finally:
        await feed.close()


async def test_who_leaves_while_something_is_asked_for_ahead_leaves_nothing(
    source: MongoSource, mongo: Database[Any]
) -> None:
    before = asyncio.all_tasks()
    feed = await source.feed({"items": EVERYTHING}, await source.barrier("began"))
    async with asyncio.timeout(30):
        mongo["items"].insert_one({"_id": 1})
        while not await feed.poll(50):
            pass
        assert any(task.get_name() == "reading-ahead" for task in asyncio.all_tasks() - before)
        await feed.close()
    assert not any(task.get_name() == "reading-ahead" for task in asyncio.all_tasks())


async def test_a_dropped_database_comes_once_however_early_its_end_was_read(
    mongodb: MongoServer, mongo: Database[Any]
) -> None:
    """The reply that ends the cursor may be there before it is wanted, and is given before another is opened.

    In replies of up to three, after that of the position: an insert and two dropped collections; the dropped database
    and the end of the cursor.
    """
    source = MongoSource(mongodb.uri, mongo.name, "_zerosource", feed_batch=3)
    feed = await source.feed({"items": EVERYTHING}, await source.barrier("began"))
    mongo["items"].insert_one({"_id": 1})
    mongo.client.drop_database(mongo.name)
    mongo["items"].insert_one({"_id": 2})
    found: list[Event] = []
    try:
        async with asyncio.timeout(30):
            while not any(event.document_id == 2 for event in found):
                found += await feed.poll(50) or ()
                while any(task.get_name() == "reading-ahead" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.001)
    finally:
        await feed.close()
        await source.close()
    times = [event.cluster_time for event in found]
    assert times == sorted(set(times)), [event.kind for event in found]
    assert [event.kind for event in found if event.kind == "dropDatabase"] == ["dropDatabase"]
