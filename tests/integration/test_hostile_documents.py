"""Documents that others wrote, and that nobody foresaw: the stream goes on, the rest is exact, the fault is listed."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from bson.binary import Binary
from bson.errors import InvalidBSON
from pymongo import MongoClient
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping, RowFault, ignore_fault
from changesource.mapping.formats import read_specification
from changesource.models import RowError
from changesource.services.replay import batches
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform
from devtools.secantusdb import SecantusDB
from tests.conftest import MongoServer
from tests.harness.app import MAPPINGS, fill, last_write
from tests.harness.members import Member, running
from tests.harness.whole import Whole

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
    stream = batches(source, Transform(mapping, faults.append), mapping.needs, began, bounds=Bounds(), idle_ms=100)
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
    copied = [document async for batch in source.copy("notes").batches(began) for document in batch]
    assert len(copied) == 3


MARKED = Binary(b"MARKMARK", 2)
# On the wire, the inner length of a binary of subtype 2 comes before its bytes.
INNER = struct.pack("<i", 8) + bytes(MARKED)


@pytest.fixture
def odd_server(secantusdb: Callable[..., SecantusDB]) -> Iterator[tuple[str, Database[Any]]]:
    """The URI of a server in whose answers those binaries have a wrong inner length; and a database as it really is."""
    server = secantusdb()
    member = Member(server.port, instead=(INNER, struct.pack("<i", 9) + bytes(MARKED)))
    with running(member), MongoClient[Any](server.uri) as client:
        yield f"mongodb://127.0.0.1:{member.port}/?directConnection=true&retryWrites=false", client["own"]


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
@pytest.mark.parametrize("policy", ["coerce", "skip"])
@pytest.mark.django_db(transaction=True)
async def test_documents_that_the_driver_cannot_decode(
    odd_server: tuple[str, Database[Any]], policy: str, watched: bool
) -> None:
    """Copied, inserted and updated: all else arrives; such a document's row does as its table's error policy says."""
    uri, database = odd_server
    fill(database, 5, others=5)
    mappings = json.loads(json.dumps(MAPPINGS))
    mappings["tables"]["item"]["errorPolicy"] = policy
    database["items"].insert_one({"_id": "odd-1", "name": "x", "tags": MARKED})
    with MongoClient[Any](uri) as client, pytest.raises(InvalidBSON):
        client["own"]["items"].find_one({"_id": "odd-1"})
    whole = Whole(uri, database, mapping=CompiledMapping.compile(read_specification(mappings), "own"))
    replica = whole.replica()
    await replica.sync()
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(whole.watched(report=ignore_fault))
        connection = await stack.enter_async_context(replica.connection())
        database["items"].insert_one({"_id": "odd-2", "name": "y", "tags": MARKED})
        database["items"].insert_one({"_id": "odd-3", "name": "z"})
        database["items"].update_one({"_id": "odd-3"}, {"$set": {"tags": MARKED}})
        key = await asyncio.to_thread(last_write, database, "note")
        await connection.until(lambda: key in replica.model.rows("note") and not replica.model.open)
    rows = {key: row for (key,), row in replica.model.rows("item").items() if key.startswith("odd")}
    names = {"odd-1": "x", "odd-2": "y", "odd-3": "z"} if policy == "coerce" else {}
    assert rows == {key: {"id": key, "name": name, "count": None, "tags": None} for key, name in names.items()}
    assert len(replica.model.rows("item")) == 5 + len(names)
    listed = [error async for error in RowError.objects.filter(table="item")]
    assert {error.document_id for error in listed} >= {'"odd-1"'}
    assert all("cannot be decoded" in error.reason for error in listed)
    assert replica.model.reset is None
    await whole.close()


async def test_a_cursor_keeps_to_what_it_was_opened_with(source: MongoSource, mongo: Database[Any]) -> None:
    """Post-images that are gone meanwhile do not turn an update into a delete."""
    mapping = CompiledMapping.compile(read_specification(MAPPINGS), mongo.name)
    mongo["items"].insert_one({"_id": "a", "name": "1"})
    began = await source.barrier("test")
    feed = await source.feed(mapping.needs, began)
    try:
        source.full_document = "updateLookup"
        mongo["items"].update_one({"_id": "a"}, {"$set": {"name": "2"}})
        async with asyncio.timeout(30):
            while not (events := await feed.poll(500)):
                pass
    finally:
        await feed.close()
    assert [(event.kind, event.document) for event in events] == [("update", {"_id": "a", "name": "2"})]
