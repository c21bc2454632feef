"""The replayed MongoDB of the benchmarks shows a driver, and our source, what was put into it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import bson
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from changesource.sources.mongodb.decoding import CODEC_OPTIONS
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.events import Event
from devtools.bench import dataset
from devtools.bench.places import Replayed

DOCUMENTS = 2500
UPDATES = 300
PATIENCE_MS = 2000
NAME = dataset.collection(0)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    """One for all tests: each looks only at what comes after it began."""
    with Replayed(tmp_path_factory.mktemp("replayed"), DOCUMENTS) as server:
        yield server


def stored(number: int) -> dict[str, Any]:
    """A document as it is read back: times without a zone, to the millisecond."""
    return bson.decode(bson.encode(dataset.document(number)))


def test_all_documents_are_found(replayed: Replayed) -> None:
    """Over several batches, whatever their size."""
    with MongoClient[dict[str, Any]](replayed.uri) as client:
        collection = client[dataset.DATABASE][NAME]
        assert list(collection.find()) == [stored(n) for n in range(DOCUMENTS)]
        assert list(collection.find(batch_size=7, limit=30)) == [stored(n) for n in range(30)]
        assert collection.estimated_document_count() == DOCUMENTS
        with pytest.raises(OperationFailure, match="no such command"):
            client.admin.command("serverStatus")


def test_a_change_stream_is_watched_and_resumed(replayed: Replayed) -> None:
    """By token and by time; nothing is missing and nothing comes twice."""
    with MongoClient[dict[str, Any]](replayed.uri) as client:
        collection = client[dataset.DATABASE][NAME]
        with collection.watch() as stream:
            replayed.ask(updates=UPDATES)
            events = list(islice(stream, UPDATES))
        assert all(event["fullDocument"]["likes"] >= 1000 for event in events)
        times = [event["clusterTime"] for event in events]
        assert times == sorted(set(times))
        with collection.watch(resume_after=events[99]["_id"]) as stream:
            assert list(islice(stream, UPDATES - 100)) == events[100:]
        with collection.watch(start_at_operation_time=times[99], max_await_time_ms=50) as stream:
            assert list(islice(stream, UPDATES - 99)) == events[99:]
            assert stream.try_next() is None
            client[dataset.DATABASE][dataset.BARRIERS].replace_one({"_id": "b"}, {"mark": "m"}, upsert=True)
            assert stream.try_next() is None  # another collection's


async def test_our_source_sees_the_same(replayed: Replayed) -> None:
    """Its copy holds every document; its feed every update, transactions as such, and its own barriers."""
    source = MongoSource(replayed.uri, dataset.DATABASE, dataset.BARRIERS)
    needs = dataset.compiled().needs
    try:
        await source.prepare(needs)
        began = await source.barrier("test")
        copied = [d async for batch in source.copy(NAME, needs[NAME]).batches(began) for d in batch]
        expected = [bson.decode(bson.encode(dataset.document(n)), CODEC_OPTIONS) for n in range(DOCUMENTS)]
        assert copied == expected
        replayed.ask(updates=UPDATES)
        replayed.ask(updates=10, by=5)
        mark = await source.mark("test")
        feed = await source.feed(needs, began)
        try:
            events: list[Event] = []
            while not events or events[-1].target != mark:
                polled = await feed.poll(PATIENCE_MS)
                assert polled is not None
                events += polled
        finally:
            await feed.close()
    finally:
        await source.close()
    *updates, barrier = events
    assert barrier.kind == "barrier"
    assert [event.kind for event in updates] == ["update"] * (UPDATES + 10)
    assert all(event.document and event.document["_id"] == event.document_id for event in updates)
    assert [event.transaction is not None for event in updates] == [False] * UPDATES + [True] * 10
    assert len({event.cluster_time for event in updates}) == UPDATES + 2
    assert len({str(event.transaction) for event in updates[UPDATES:]}) == 2
