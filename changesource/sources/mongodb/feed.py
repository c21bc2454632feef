"""Reads a change stream by aggregate and getMore in a session of our own.

The driver's iterator hides what we must know: whether an empty answer was given after the last event, which is the
proof that a MongoDB transaction has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from bson import Timestamp, encode
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from changesource.exceptions import (
    CursorLost,
    HistoryLost,
    ReplyTooLarge,
    SourceRefused,
    SourceUnavailable,
    WatermarkInFuture,
)
from changesource.mapping.needs import Needs
from changesource.sources.base import PROOF_WAIT_MS
from changesource.sources.mongodb.decoding import read_reply
from changesource.sources.mongodb.errors import UNKNOWN_STAGE, translated
from changesource.stream.events import Event, is_of_document, read_event, to_cluster_time, to_timestamp, with_document

if TYPE_CHECKING:
    from changesource.sources.mongodb.source import MongoSource

T = TypeVar("T")
OPENING_SECONDS = 5.0
RawEvent = Mapping[str, object]
UPDATE_LOOKUP = "updateLookup"
WHEN_AVAILABLE = "whenAvailable"
LOOKUPS = 16
WATCHING = ("find", "changeStream")  # the actions that a change stream needs, on all of the database
# Each replica that reads by itself holds a reply, decoded, for as long as it is slow; MongoDB's own bound is 16 MB. So
# as many events are asked for as would be this large if they were like the last ones, of which a few tell little.
REPLY_BYTES = 2 * 1024 * 1024
FIRST_EVENTS = 100
EVENT_FIELDS = (
    "operationType",
    "clusterTime",
    "ns",
    "to",
    "documentKey",
    "lsid",
    "txnNumber",
    "splitEvent",  # MongoDB splits what this projection leaves; another server may split first
)
KEY_OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


async def to_its_end(opening: Coroutine[object, object, T]) -> T:
    """Await what opens a cursor; where that is cancelled, only once the server has answered (or does not).

    Else nobody would know of the cursor, and the server would keep it for ten minutes.
    """
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=OPENING_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def namespaces(collections: Collection[str]) -> dict[str, object]:
    """Return the ``$match`` stage for events of these collections, whatever name they come under.

    ``$out`` and a rename into place come under the name of a temporary collection, so ``to.coll`` counts too.
    """
    names = sorted(collections)
    wanted = [
        {"ns.coll": {"$in": names}},
        {"to.coll": {"$in": names}},
        {"operationType": {"$in": ["dropDatabase", "invalidate"]}},
    ]
    return {"$match": {"$or": wanted}}


def needed_parts(needs: Needs) -> dict[str, object]:
    """Return the ``$project`` stage for what is needed of an event.

    Which fields a document has is asked for all collections alike; pre-images only of those that need them, since
    MongoDB may keep them of others too.
    """
    fields = fields_of(needs)
    history = sorted(name for name, need in needs.items() if need.history)
    shown: dict[str, object] = dict.fromkeys(EVENT_FIELDS, 1)
    # A number is decoded in a fifth of the time that a date takes, and every event has one.
    shown["wallTime"] = {"$toLong": "$wallTime"}
    if fields is None:
        shown["fullDocument"] = 1
    else:
        # A barrier's mark is read as well.
        shown |= {f"fullDocument.{name}": 1 for name in sorted(fields | {"mark"})}
    if history:
        before = {"$cond": [{"$in": ["$ns.coll", history]}, "$fullDocumentBeforeChange", "$$REMOVE"]}
        shown["fullDocumentBeforeChange"] = before
    return {"$project": shown}


def fields_of(needs: Needs) -> frozenset[str] | None:
    """Return the top-level fields that the collections' documents are read for; None for all."""
    found: frozenset[str] = frozenset()
    for need in needs.values():
        if need.fields is None:
            return None
        found |= need.fields
    return found


class ChangeCursor:
    """One change stream cursor on the server, in its own session."""

    def __init__(self, source: MongoSource, needs: Needs, batch_size: int) -> None:
        """``batch_size`` is the most events that one reply may hold. Barriers come as well."""
        self._source = source
        self._stages = [namespaces([*needs, source.barrier_collection]), needed_parts(needs)]
        self._history = any(need.history for need in needs.values())
        self._batch_size = batch_size
        self._wanted = min(batch_size, FIRST_EVENTS)
        self._session: AsyncClientSession | None = None
        self._id = 0
        self._namespace = ""
        self.full_document = UPDATE_LOOKUP

    async def open(self, start: Mapping[str, object]) -> None:
        """Open it; ``start`` is ``startAtOperationTime`` or ``startAfter``, or empty for now."""
        self.full_document = self._source.full_document
        options: dict[str, object] = {"fullDocument": self.full_document, **start}
        if self._history:
            options["fullDocumentBeforeChange"] = WHEN_AVAILABLE
        pipeline = [{"$changeStream": options}, *self._stages]
        if await self._source.splits_large_events():
            pipeline.append({"$changeStreamSplitLargeEvent": {}})
        if self._session is None:
            self._session = self._source.client.start_session(causal_consistency=False)
        try:
            await to_its_end(self._aggregate(pipeline))
        except SourceRefused as error:
            if getattr(error.__cause__, "code", 0) not in UNKNOWN_STAGE:
                raise
            # An older member took over, which cannot split events.
            self._source.forget_server()
            raise SourceUnavailable(error.message) from error

    async def _aggregate(self, pipeline: Sequence[object]) -> None:
        with translated(self._source.need(*WATCHING)):
            reply = await self._source.database.command(
                {
                    "aggregate": 1,
                    "pipeline": pipeline,
                    "cursor": {"batchSize": 0},
                    "readConcern": {"level": "majority"},
                },
                session=self._session,
            )
        self._id = reply["cursor"]["id"]
        self._namespace = reply["cursor"]["ns"].partition(".")[2]

    def shrink(self) -> bool:
        """Ask for a tenth of the events from now on; False where replies hold one event already."""
        smaller = self._batch_size > 1
        self._batch_size = self._wanted = max(1, self._batch_size // 10)
        return smaller

    @property
    def live(self) -> bool:
        """False before it is opened, and once the server has ended it."""
        return self._id != 0

    async def more(self, wait_ms: int) -> Sequence[RawEvent]:
        """Return the next events; none after the server has waited ``wait_ms`` and has nothing."""
        with translated(self._source.need(*WATCHING)):
            reply = await self._source.database.command(
                {
                    "getMore": self._id,
                    "collection": self._namespace,
                    "maxTimeMS": max(1, wait_ms),
                    "batchSize": self._wanted,
                },
                session=self._session,
                codec_options=DEFAULT_RAW_BSON_OPTIONS,
            )
            self._id, events = read_reply(reply, self._source.codec_options)
        if events:
            known = max(FIRST_EVENTS, 2 * len(events))
            self._wanted = max(1, min(self._batch_size, known, REPLY_BYTES * len(events) // len(reply.raw)))
        return events

    async def close(self) -> None:
        """Free the cursor and the session; where MongoDB cannot be reached it frees them itself, later."""
        cursor, self._id = self._id, 0
        session, self._session = self._session, None
        if session is None:
            return
        with suppress(PyMongoError):
            if cursor:
                await self._source.database.command({"killCursors": self._namespace, "cursors": [cursor]})
        with suppress(PyMongoError):
            await session.end_session()


def _is_last(raw: RawEvent) -> bool:
    """Whether no other fragment of the event follows; so it is where the server did not split it."""
    split = raw.get("splitEvent")
    return not isinstance(split, Mapping) or split.get("fragment") == split.get("of")


def _lacks_document(event: Event) -> bool:
    return event.document is None and event.kind in ("update", "replace")


def id_key(collection: str, document_id: object) -> tuple[str, bytes]:
    """Return what tells documents apart; an ``_id`` may be of a type that is not hashable."""
    return collection, encode({"_id": document_id}, codec_options=KEY_OPTIONS)


class MongoFeed:
    """A ``ChangeFeed`` of a MongoDB database.

    It resumes at its position *inclusively*: the event there must come again, and is dropped. That alone proves
    that nothing between is missing, whatever the server says of its oplog.
    """

    def __init__(self, source: MongoSource, needs: Needs, after: int, batch_size: int, current_until: int = 0) -> None:
        """See ``ChangeSource.feed``."""
        self._source = source
        self._after = after
        self._current_until = current_until
        self._needs = needs
        self._cursor = ChangeCursor(source, needs, batch_size)
        self._proved = False
        self._token: object = None
        self._fragments: dict[str, object] = {}
        self._held: deque[Event] = deque()
        self._ahead: asyncio.Task[Sequence[RawEvent]] | None = None

    async def open(self) -> None:
        """Open the change stream at the position."""
        await self._cursor.open({"startAtOperationTime": to_timestamp(self._after)})

    async def poll(self, wait_ms: int) -> Sequence[Event] | None:
        """See ``ChangeFeed.poll``."""
        if self._held:
            return await self._looked_up()
        if self._ahead is None and not self._cursor.live:
            # An invalidate (the database was dropped) ends the cursor; its token is where to go on. What was asked for
            # ahead comes first: it may be what ended it.
            if self._token is None:
                raise CursorLost()
            await self._cursor.open({"startAfter": self._token})
        try:
            batch = await self._more(wait_ms)
        except ReplyTooLarge:
            # From a server without MongoDB's own bound of 16 MB. The events in it are lost to this cursor.
            if not self._cursor.shrink():
                raise
            await self._cursor.close()
            self._fragments = {}
            await (self.open() if self._token is None else self._cursor.open({"startAfter": self._token}))
            return ()
        whole = self._whole(batch)
        if whole:
            self._token = whole[-1].get("_id", self._token)
        if not self._proved and not await self._prove(batch):
            return ()
        if not batch:
            if not self._cursor.live:
                # Not by an event: opened anew at once, it might end so again and again.
                raise CursorLost()
            return None
        barriers, after = self._source.barrier_collection, self._after
        read = [read_event(raw, barriers) for raw in whole]
        events = [event for event in read if event is not None and event.cluster_time > after]
        if self._may_want_lookups(events) and any(map(self._wants_lookup, events)):
            self._held.extend(events)
            return await self._looked_up()
        return events

    async def _more(self, wait_ms: int) -> Sequence[RawEvent]:
        """Return the next reply. What follows events is asked for at once, to be under way while they are mapped.

        It will be wanted at once, if only as the proof that they have ended.
        """
        if self._ahead is None:
            batch = await self._cursor.more(wait_ms)
        else:
            try:
                batch = await self._ahead
            except Exception:
                self._ahead = None
                raise
            # One that was cancelled stays: what it would have brought must not be missed in silence.
            self._ahead = None
        if batch and self._cursor.live:
            self._ahead = asyncio.create_task(self._cursor.more(PROOF_WAIT_MS), name="reading-ahead")
            await asyncio.sleep(0)  # so that it is sent
        return batch

    def _whole(self, batch: Sequence[RawEvent]) -> Sequence[RawEvent]:
        """Return the events of ``batch``, with those that the server split (over 16 MB) put together.

        The fragments of one event come one after the other, maybe over several batches, and share no fields.
        """
        if not self._fragments and not any("splitEvent" in raw for raw in batch):
            return batch
        found: list[RawEvent] = []
        for raw in batch:
            self._fragments |= raw
            if _is_last(raw):
                found.append(self._fragments)
                self._fragments = {}
        return found

    def _may_want_lookups(self, events: Sequence[Event]) -> bool:
        """Spare asking each event where none can want one."""
        if self._cursor.full_document == WHEN_AVAILABLE:
            return True
        return bool(events) and events[0].cluster_time <= self._current_until

    def _wants_lookup(self, event: Event) -> bool:
        if event.cluster_time <= self._current_until:
            return is_of_document(event)
        return self._cursor.full_document == WHEN_AVAILABLE and _lacks_document(event)

    async def _looked_up(self) -> list[Event]:
        """Give on some of what is held back, with the documents of updates that came without a post-image.

        MongoDB kept none, or no longer. A document that is gone stays None, and so deletes its row. Few at a time,
        since the documents, unlike the events, have no common bound.
        """
        events = [self._held.popleft() for _ in range(min(LOOKUPS, len(self._held)))]
        wanted = [event for event in events if self._wants_lookup(event)]
        if not wanted:
            return events
        found = await self._source.lookup(wanted, self._needs, self._current_until)
        return [
            with_document(event, found.get(id_key(event.collection, event.document_id)))
            if self._wants_lookup(event)
            else event
            for event in events
        ]

    async def close(self) -> None:
        """See ``ChangeFeed.close``."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        await self._cursor.close()

    async def _prove(self, batch: Sequence[RawEvent]) -> bool:
        """Return True once the event at the position has come again."""
        first = batch[0].get("clusterTime") if batch else None
        time = to_cluster_time(first) if isinstance(first, Timestamp) else None
        if not batch or (time is not None and time < self._after):
            # Nothing yet, maybe for a lagging member; or what was before, of a server that takes a time to come for
            # now. A barrier settles it: it comes after the event, or instead.
            if await self._source.barrier("position") <= self._after:
                raise WatermarkInFuture()
        if not batch:
            return False
        if time != self._after:
            raise HistoryLost()
        self._proved = True
        return True
