"""Reads a change stream by aggregate and getMore in a session of our own.

The driver's iterator hides what we must know: whether an empty answer was given after the last event, which is the
proof that a MongoDB transaction has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from bson import Timestamp
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from changesource.exceptions import CursorLost, HistoryLost, ReplyTooLarge, WatermarkInFuture
from changesource.sources.mongodb.errors import translated
from changesource.stream.events import Event, read_event, to_cluster_time, to_timestamp

if TYPE_CHECKING:
    from changesource.sources.mongodb.source import MongoSource

RawEvent = Mapping[str, object]


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


class ChangeCursor:
    """One change stream cursor on the server, in its own session."""

    def __init__(self, source: MongoSource, collections: Collection[str], batch_size: int) -> None:
        """``batch_size`` is the most events that one reply may hold."""
        self._source = source
        self._match = namespaces(collections)
        self._batch_size = batch_size
        self._session: AsyncClientSession | None = None
        self._id = 0
        self._namespace = ""

    async def open(self, start: Mapping[str, object]) -> None:
        """Open it; ``start`` is ``startAtOperationTime`` or ``startAfter``, or empty for now."""
        stage = {"$changeStream": {"fullDocument": "updateLookup", **start}}
        with translated():
            if self._session is None:
                self._session = self._source.client.start_session(causal_consistency=False)
            reply = await self._source.database.command(
                {
                    "aggregate": 1,
                    "pipeline": [stage, self._match],
                    "cursor": {"batchSize": 0},
                    "readConcern": {"level": "majority"},
                },
                session=self._session,
                codec_options=self._source.codec_options,
            )
        self._id = reply["cursor"]["id"]
        self._namespace = reply["cursor"]["ns"].partition(".")[2]

    def shrink(self) -> bool:
        """Ask for a tenth of the events from now on; False where replies hold one event already."""
        smaller = self._batch_size > 1
        self._batch_size = max(1, self._batch_size // 10)
        return smaller

    @property
    def live(self) -> bool:
        """False before it is opened, and once the server has ended it."""
        return self._id != 0

    async def more(self, wait_ms: int) -> Sequence[RawEvent]:
        """Return the next events; none after the server has waited ``wait_ms`` and has nothing."""
        with translated():
            reply = await self._source.database.command(
                {
                    "getMore": self._id,
                    "collection": self._namespace,
                    "maxTimeMS": max(1, wait_ms),
                    "batchSize": self._batch_size,
                },
                session=self._session,
                codec_options=self._source.codec_options,
            )
        self._id = reply["cursor"]["id"]
        batch: Sequence[RawEvent] = reply["cursor"]["nextBatch"]
        return batch

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


class MongoFeed:
    """A ``ChangeFeed`` of a MongoDB database.

    It resumes at its position *inclusively*: the event there must come again, and is dropped. That alone proves
    that nothing between is missing, whatever the server says of its oplog.
    """

    def __init__(self, source: MongoSource, collections: Collection[str], after: int, batch_size: int) -> None:
        """See ``ChangeSource.feed``."""
        self._source = source
        self._after = after
        self._cursor = ChangeCursor(source, collections, batch_size)
        self._proved = False
        self._token: object = None

    async def open(self) -> None:
        """Open the change stream at the position."""
        await self._cursor.open({"startAtOperationTime": to_timestamp(self._after)})

    async def poll(self, wait_ms: int) -> Sequence[Event] | None:
        """See ``ChangeFeed.poll``."""
        if not self._cursor.live:
            # An invalidate (the database was dropped) ends the cursor; its token is where to go on.
            if self._token is None:
                raise CursorLost()
            await self._cursor.open({"startAfter": self._token})
        try:
            batch = await self._cursor.more(wait_ms)
        except ReplyTooLarge:
            # From a server without MongoDB's own bound of 16 MB. The events in it are lost to this cursor.
            if not self._cursor.shrink():
                raise
            await self._cursor.close()
            await (self.open() if self._token is None else self._cursor.open({"startAfter": self._token}))
            return ()
        if batch:
            self._token = batch[-1]["_id"]
        if not self._proved and not await self._prove(batch):
            return ()
        if not batch:
            return None if self._cursor.live else ()
        events = (read_event(raw, self._source.barrier_collection) for raw in batch)
        return [event for event in events if event is not None and event.cluster_time > self._after]

    async def close(self) -> None:
        """See ``ChangeFeed.close``."""
        await self._cursor.close()

    async def _prove(self, batch: Sequence[RawEvent]) -> bool:
        """Return True once the event at the position has come again."""
        if not batch:
            # Nothing yet, maybe for a lagging member. A barrier settles it: it comes after the event, or instead.
            now = await self._source.barrier("position")
            if now <= self._after:
                raise WatermarkInFuture()
            return False
        first = batch[0].get("clusterTime")
        if not isinstance(first, Timestamp) or to_cluster_time(first) != self._after:
            raise HistoryLost()
        self._proved = True
        return True
