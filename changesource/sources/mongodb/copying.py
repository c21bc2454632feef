"""Reads whole collections of MongoDB, in as many turns as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncRawBatchCursor
from pymongo.collation import Collation

from changesource.backoff import Backoff
from changesource.exceptions import SourceUnavailable
from changesource.mapping.needs import CollectionNeeds
from changesource.sources.base import Batch, Document
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_documents, sizes
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.feed import REPLY_BYTES, to_its_end
from changesource.sources.mongodb.privileges import Need
from changesource.stream.events import to_timestamp

logger = logging.getLogger(__name__)
REPLACED = "\ufffd"  # what stands for bytes that are no UTF-8
# Not the collection's own, so that filters compare as the mapping does.
SIMPLE = Collation("simple")
# Documents that tell how large the others are; at least as many are asked for, since they may be wrong.
SAMPLE = 10


class Reply(Batch):
    """The documents of one reply. How many, and the last one, can be told without reading the others."""

    def __init__(self, raw: bytes, need: Need) -> None:
        """``raw`` is documents, one after the other; what cannot be read is told as of an operation with ``need``."""

        def read(raw: bytes) -> Sequence[Document]:
            with translated(need):
                return read_documents(raw, CODEC_OPTIONS)

        super().__init__(raw, read)

    @cached_property
    def _found(self) -> tuple[int, Document]:
        """How many documents there are, and the last one."""
        if "documents" in vars(self):
            return len(self.documents), self.documents[-1]
        parts = sizes(self.raw)
        return len(parts), self._read(self.raw[-parts[-1] :])[0]

    @property
    def last(self) -> Document:
        """See ``Batch.last``."""
        return self._found[1]

    def __len__(self) -> int:
        """See ``Batch``."""
        return self._found[0]


async def _next(cursor: AsyncRawBatchCursor[dict[str, Any]], need: Need) -> Reply | None:
    """Return the next reply that has documents; None at the end."""
    with translated(need):
        reply: Any  # bytes, whatever the driver's annotations say
        async for reply in cursor:
            if reply:
                return Reply(reply, need)
    return None


async def _read_ahead(cursor: AsyncRawBatchCursor[dict[str, Any]], need: Need) -> AsyncGenerator[Reply, None]:
    """Give each reply, and ask for the next one meanwhile."""

    async def read() -> Reply | None:
        return await to_its_end(_next(cursor, need))

    reading = asyncio.create_task(read())
    try:
        while reply := await reading:
            reading = asyncio.create_task(read())
            yield reply
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _after(batch: Batch, before: dict[str, object]) -> dict[str, object]:
    """Return the filter for what follows the batch.

    By $expr, since a plain $gt stays within one BSON type. An ``_id`` that is not valid UTF-8 was decoded to another,
    which sorts elsewhere; the one before it brings a few documents again.
    """
    if _is_place(batch.last):
        return _behind(batch.last)
    return next((_behind(document) for document in reversed(batch.documents) if _is_place(document)), before)


def _is_place(document: Document) -> bool:
    return "_id" in document and REPLACED not in str(document["_id"])


def _behind(document: Document) -> dict[str, object]:
    return {"$expr": {"$gt": ["$_id", {"$literal": document["_id"]}]}}


def _both(after: Mapping[str, object], filter: Mapping[str, object]) -> Mapping[str, object]:
    return {"$and": [filter, after]} if after and filter else after or filter


def projection(fields: frozenset[str] | None) -> dict[str, int] | None:
    """Return the projection that asks for ``fields``; None, which asks for all, where they are None."""
    return None if fields is None else dict.fromkeys(sorted(fields), 1)


class MongoCopy:
    """A ``CollectionCopy`` of a MongoDB collection."""

    def __init__(
        self,
        client: AsyncMongoClient[dict[str, Any]],
        collection: AsyncCollection[dict[str, Any]],
        need: Need,
        needs: CollectionNeeds,
        batch_size: int,
    ) -> None:
        """``need`` is the privilege that it takes; ``batch_size`` bounds the documents of one reply."""
        self._client = client
        self._collection = collection
        self._need = need
        self._needs = needs
        self._batch_size = batch_size
        self._rows = 0
        self._resumable = True
        self._after: dict[str, object] = {}
        self._given: Batch | None = None

    @property
    def resumable(self) -> bool:
        """See ``CollectionCopy.resumable``."""
        self._note_given()
        return self._resumable

    def _note_given(self) -> None:
        """Note where to go on: late, since a batch that somebody reads anyway tells it for nothing."""
        if self._given is not None:
            after = _after(self._given, self._after)
            self._resumable = after is not self._after
            self._after, self._given = after, None

    async def batches(self, not_before: int) -> AsyncGenerator[Batch, None]:
        """See ``CollectionCopy.batches``."""
        backoff = Backoff("copy")
        while True:
            self._note_given()
            try:
                async with self._client.start_session(causal_consistency=True) as session:
                    session.advance_operation_time(to_timestamp(not_before))
                    self._rows = self._rows or await self._rows_of_a_reply(session)
                    # One reply at a time, which MongoDB bounds to 16 MB, whatever the batch size.
                    cursor = self._collection.find_raw_batches(
                        _both(self._after, self._needs.filter),
                        projection(self._needs.fields),
                        sort=[("_id", 1)],
                        batch_size=self._rows,
                        session=session,
                        collation=SIMPLE,
                    )
                    async with cursor, aclosing(_read_ahead(cursor, self._need)) as replies:
                        async for batch in replies:
                            self._note_given()
                            self._given = batch
                            yield batch
                            backoff.reset()
                return
            except SourceUnavailable as error:
                extra = {"collection": self._collection.name, "error": str(error), "tries": backoff.tries}
                logger.warning("copying goes on after a fault", extra=extra)
                await backoff.wait()

    async def _rows_of_a_reply(self, session: AsyncClientSession) -> int:
        """Return how many documents to ask for at once, going by how large some of them are."""
        with translated(self._need):
            # Without the filter: where it lets few documents pass, looking for them would be a second scan.
            cursor = self._collection.find_raw_batches(
                {}, projection(self._needs.fields), limit=SAMPLE, session=session
            )
            async with cursor:
                reply: Any  # see ``_next``
                async for reply in cursor:
                    if reply:
                        found = len(read_documents(reply, CODEC_OPTIONS))
                        return min(self._batch_size, max(SAMPLE, REPLY_BYTES * found // len(reply)))
        return self._batch_size
