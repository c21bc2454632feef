"""Documents that others wrote, and that nobody foresaw: the stream goes on, the rest is exact, the fault is listed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from bson.binary import Binary
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping, RowFault
from changesource.mapping.formats import read_specification
from changesource.services.replay import batches
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from tests.conftest import MongoServer
from tests.harness.app import MAPPINGS

ODD_UUID = Binary(b"short", 4)


@pytest.fixture(params=["off", "auto"])
async def source(
    request: pytest.FixtureRequest, mongodb: MongoServer, mongo: Database[Any]
) -> AsyncIterator[MongoSource]:
    """The test's database, without and with post-images."""
    made = MongoSource(mongodb.uri, mongo.name, "_zerosource", post_images=request.param)
    mongo.create_collection("notes")
    mongo.create_collection("items")
    await made.prepare({"notes", "items"})
    yield made
    await made.close()


async def test_binaries_that_pretend_to_be_uuids(source: MongoSource, mongo: Database[Any]) -> None:
    """A subtype 4 of another length, as a value and as an ``_id``; a fault of a document whose ``_id`` is a UUID."""
    mapping = CompiledMapping.compile(read_specification(MAPPINGS), mongo.name)
    faults: list[RowFault] = []
    good, bad = uuid.UUID(int=1), uuid.UUID(int=2)
    began = await source.barrier("test")
    mongo["items"].insert_one({"_id": "odd", "name": "x", "elsewhere": ODD_UUID, "tags": [ODD_UUID]})
    mongo["notes"].insert_one({"_id": Binary.from_uuid(good), "body": "b"})
    mongo["notes"].insert_one({"_id": Binary.from_uuid(bad), "body": ["no", "text"]})
    mongo["notes"].insert_one({"_id": ODD_UUID, "body": "b"})
    mongo["items"].update_one({"_id": "odd"}, {"$set": {"count": 1}})
    ended = await source.barrier("test")
    frames: list[bytes] = []
    stream = batches(
        source, Transform(mapping, faults.append), mapping.by_collection, began, bounds=Bounds(), idle_ms=100
    )
    async with asyncio.timeout(30), aclosing(stream) as running:
        async for batch in running:
            frames += batch.frames if batch else ()
            if batch and batch.end >= ended:
                break
    assert any(str(good).encode() in frame for frame in frames)
    assert sum(b'"name":"x"' in frame for frame in frames) == 2
    assert {(fault.column, fault.document_id) for fault in faults} == {
        ("body", '{"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAAAg==", "subType": "04"}}'),
        ("id", '{"$binary": {"base64": "c2hvcnQ=", "subType": "04"}}'),
    }
    copied = [document async for batch in source.documents("notes", began) for document in batch]
    assert len(copied) == 3


async def test_a_cursor_keeps_to_what_it_was_opened_with(source: MongoSource, mongo: Database[Any]) -> None:
    """Post-images that are gone meanwhile do not turn an update into a delete."""
    mapping = CompiledMapping.compile(read_specification(MAPPINGS), mongo.name)
    mongo["items"].insert_one({"_id": "a", "name": "1"})
    began = await source.barrier("test")
    feed = await source.feed(mapping.by_collection, began)
    try:
        source.full_document = "updateLookup"
        mongo["items"].update_one({"_id": "a"}, {"$set": {"name": "2"}})
        async with asyncio.timeout(30):
            while not (events := await feed.poll(500)):
                pass
    finally:
        await feed.close()
    assert [(event.kind, event.document) for event in events] == [("update", {"_id": "a", "name": "2"})]
