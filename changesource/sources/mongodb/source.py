"""MongoDB behind the ``ChangeSource`` interface."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pymongo
from bson import ObjectId
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from changesource import tracing
from changesource.exceptions import SourceUnavailable
from changesource.mapping.needs import EVERYTHING, CollectionNeeds, Needs
from changesource.sources.base import Document
from changesource.sources.mongodb.copying import SIMPLE, MongoCopy, projection
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_document
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.feed import UPDATE_LOOKUP, WHEN_AVAILABLE, ChangeCursor, MongoFeed, id_key
from changesource.sources.mongodb.privileges import Need
from changesource.sources.mongodb.server import Oplog, aread_oplog
from changesource.sources.mongodb.survey import SPLITTING_WIRE_VERSION, PostImages, check_server, switch_images_on
from changesource.stream.events import Event, read_event, to_timestamp

logger = logging.getLogger(__name__)

# What the URI does not say: fail over within seconds. No socketTimeoutMS: a getMore of a change stream may search the
# oplog for minutes, and one that is cut off begins anew. A connection that is half open is noticed by the driver's
# monitor, within connectTimeoutMS, which then interrupts the connections in use.
CLIENT_DEFAULTS = {"serverSelectionTimeoutMS": 10_000, "connectTimeoutMS": 10_000}
BARRIER_TIMEOUT = 30.0
WRITE_TIMEOUT_MS = 20_000


def connect(uri: str) -> AsyncMongoClient[dict[str, Any]]:
    """Return a client for ``uri``, with our defaults where it says nothing. It connects when first used."""
    # Not by the driver's parse_uri, which asks the DNS of a mongodb+srv URI, and waits for it.
    given = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}
    defaults: dict[str, Any] = {name: value for name, value in CLIENT_DEFAULTS.items() if name.lower() not in given}
    if tracing.enabled():
        from changesource.sources.mongodb.commands import CommandSpans  # noqa: PLC0415 - imports what is an option

        defaults["event_listeners"] = [CommandSpans()]
    with translated():
        return AsyncMongoClient(uri, appname="zerosource", **defaults)


def servers_of(uri: str) -> list[str]:
    """Return the servers that a URI names, sorted, as they stand there."""
    return sorted(urlsplit(uri).netloc.rpartition("@")[2].lower().split(","))


class MongoSource:
    """A ``ChangeSource`` that reads one MongoDB database."""

    codec_options = CODEC_OPTIONS

    def __init__(
        self,
        uri: str,
        database: str,
        barrier_collection: str,
        *,
        feed_batch: int = 1000,
        snapshot_batch: int = 1000,
        post_images: PostImages = "off",
    ) -> None:
        """``feed_batch`` and ``snapshot_batch`` bound the events and documents of one reply.

        ``post_images``: what ``prepare`` does about them, see POST_IMAGES.
        """
        self.client = connect(uri)
        self.database = self.client.get_database(database, codec_options=CODEC_OPTIONS)
        self.barrier_collection = barrier_collection
        self._feed_batch = feed_batch
        self._snapshot_batch = snapshot_batch
        self._post_images = post_images
        self._warned: set[str] = set()
        self._splits: bool | None = None
        self.full_document = UPDATE_LOOKUP

    def need(self, *actions: str, collection: str = "") -> Need:
        """Return the privilege of these actions on a collection, or on every one of the database."""
        return Need(actions, self.database.name, collection)

    async def barrier(self, name: str) -> int:
        """See ``ChangeSource.barrier``. The stream is opened first, so that the event cannot be missed."""
        with tracing.span("barrier"):
            return await self._barrier(name)

    async def _barrier(self, name: str) -> int:
        cursor = ChangeCursor(self, {}, batch_size=100)
        try:
            await cursor.open({})
            mark = await self.mark(name)
            deadline = monotonic() + BARRIER_TIMEOUT
            while monotonic() < deadline and cursor.live:
                for raw in await cursor.more(wait_ms=500):
                    event = read_event(raw, self.barrier_collection)
                    if event is not None and event.target == mark:
                        return event.cluster_time
        finally:
            await cursor.close()
        raise SourceUnavailable(f"A barrier that was written to {self.barrier_collection} did not come back.")

    async def mark(self, name: str) -> str:
        """See ``ChangeSource.mark``. A replacement's event bears the document, so the mark needs no lookup."""
        mark = str(ObjectId())
        collection = self.database.get_collection(
            self.barrier_collection, write_concern=WriteConcern("majority", wtimeout=WRITE_TIMEOUT_MS)
        )
        with translated(self.need("update", "insert", collection=self.barrier_collection)):
            await collection.replace_one({"_id": name}, {"mark": mark}, upsert=True)
        return mark

    async def feed(self, needs: Needs, after: int, current_until: int = 0) -> MongoFeed:
        """See ``ChangeSource.feed``."""
        feed = MongoFeed(self, needs, after, self._feed_batch, current_until)
        try:
            await feed.open()
        except BaseException:
            await feed.close()
            raise
        return feed

    def copy(self, collection: str, needs: CollectionNeeds = EVERYTHING) -> MongoCopy:
        """See ``ChangeSource.copy``: sorted by ``_id``, read concern majority, whatever the URI says."""
        source = self.database.get_collection(collection, read_concern=ReadConcern("majority"))
        return MongoCopy(self.client, source, self.need("find", collection=collection), needs, self._snapshot_batch)

    async def ping(self, seconds: float) -> None:
        """Raise ``SourceUnavailable`` where MongoDB is silent, ``SourceRefused`` where it cannot be watched.

        The driver keeps the time itself. Cancelled as its own wait for a server ends, it raises its lock's
        ``RuntimeError``.
        """
        with pymongo.timeout(seconds):
            await self._check_server()

    async def _check_server(self) -> None:
        with translated():
            hello = await self.client.admin.command("hello")
        check_server(hello)

    async def prepare(self, collections: Collection[str], history: Collection[str] = ()) -> None:
        """Check server and collections, and have MongoDB keep post-images where the setting wishes it.

        Of the collections of ``history`` it must keep pre-images, which come with them.

        Feeds that are opened from now on read what that gives. Raises ``SourceRefused`` of a kind, or
        ``SourceUnavailable``.
        """
        await self._check_server()
        images = await switch_images_on(self.database, collections, history, self._post_images, self._warned)
        self.full_document = WHEN_AVAILABLE if images else UPDATE_LOOKUP

    async def splits_large_events(self) -> bool:
        """Return whether the server can split an event over 16 MB; it is asked once (see ``forget_server``)."""
        if self._splits is None:
            with translated():
                hello = await self.client.admin.command("hello")
            self._splits = hello.get("maxWireVersion", 0) >= SPLITTING_WIRE_VERSION
        return self._splits

    def forget_server(self) -> None:
        """Ask again what the server can do: another member may have taken over."""
        self._splits = None

    async def lookup(
        self, events: Sequence[Event], needs: Needs, not_before: int = 0
    ) -> dict[tuple[str, bytes], Document]:
        """Return the documents of ``events`` as they are at any time after the last of them and ``not_before``."""
        ids: dict[str, list[object]] = {}
        for event in events:
            ids.setdefault(event.collection, []).append(event.document_id)
        found: dict[tuple[str, bytes], Document] = {}
        async with self.client.start_session(causal_consistency=True) as session:
            last = max(event.cluster_time for event in events)
            session.advance_operation_time(to_timestamp(max(last, not_before)))
            for name, wanted in ids.items():
                for document in await self._found(name, wanted, needs[name], session):
                    found[id_key(name, document["_id"])] = document
        return found

    async def find(self, collection: str, document_ids: Sequence[object], needs: CollectionNeeds) -> Sequence[Document]:
        """See ``ChangeSource.find``."""
        async with self.client.start_session() as session:
            return await self._found(collection, document_ids, needs, session)

    async def _found(
        self, name: str, document_ids: Sequence[object], needs: CollectionNeeds, session: AsyncClientSession
    ) -> list[Document]:
        collection = self.database.get_collection(
            name, codec_options=DEFAULT_RAW_BSON_OPTIONS, read_concern=ReadConcern("majority")
        )
        wanted = {"_id": {"$in": list(document_ids)}}
        found: list[Document] = []
        with translated(self.need("find", collection=name)):
            raw: Any  # a RawBSONDocument, whatever the driver's annotations say
            async for raw in collection.find(wanted, projection(needs.fields), session=session, collation=SIMPLE):
                found.append(read_document(raw.raw, CODEC_OPTIONS))
        return found

    async def estimate(self, collection: str) -> int:
        """See ``ChangeSource.estimate``."""
        with translated(self.need("find", collection=collection)):
            return await self.database[collection].estimated_document_count()

    async def oplog(self) -> Oplog | None:
        """How far the oplog reaches back; None where it may not, or cannot, be read."""
        with translated():
            return await aread_oplog(self.client.get_database("local"), await self.client.admin.command("hello"))

    async def close(self) -> None:
        """See ``ChangeSource.close``."""
        await self.client.close()
