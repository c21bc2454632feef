"""The snapshot: every table of a replica as one Zero transaction, exact although writers never stop.

A barrier fixes T0, each collection is copied by one cursor that reads nothing older than T0, a second barrier fixes
Tb, and all changes in (T0, Tb] are replayed in the same transaction. Rows are upserts, so whatever the copy saw of a
change, what is committed is the state at Tb.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from changesource.backoff import Backoff
from changesource.exceptions import SourceUnavailable
from changesource.mapping.compiled import CompiledMapping, MappedTable, Report
from changesource.protocol.messages import create_tables, dumps
from changesource.protocol.request import StreamRequest
from changesource.services.downstream import Downstream
from changesource.services.replay import batches
from changesource.sources.base import ChangeSource
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform

logger = logging.getLogger(__name__)
T = TypeVar("T")
FRAME_ROWS = 1000
FRAME_BYTES = 1024 * 1024
REPLAY_IDLE_MS = 100


async def persistently(action: Callable[[], Awaitable[T]]) -> T:
    """Do ``action`` until it succeeds: within an initial sync a closed socket would end zero-cache."""
    backoff = Backoff()
    while True:
        try:
            return await action()
        except SourceUnavailable as error:
            logger.warning("initial sync waits for MongoDB", extra={"error": str(error), "tries": backoff.tries})
            await backoff.wait()


@dataclass
class _Rows:
    """Encoded rows of one table that wait for their frame."""

    table: MappedTable
    rows: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, document: Mapping[str, object], report: Report) -> bool:
        """Add the document's row, if it has one; True once a frame is full."""
        row = self.table.upsert(document, lambda values: dumps(list(values.values())), report)
        if row is not None:
            self.rows.append(row)
            self.size += len(row)
        return len(self.rows) >= FRAME_ROWS or self.size >= FRAME_BYTES


class InitialSync:
    """One replica's snapshot."""

    def __init__(
        self,
        source: ChangeSource,
        mapping: CompiledMapping,
        request: StreamRequest,
        *,
        bounds: Bounds,
        report: Report,
    ) -> None:
        """``mapping`` is the replica's part; ``report`` hears of documents that give no row."""
        self._source = source
        self._mapping = mapping
        self._request = request
        self._bounds = bounds
        self._report = report
        self.rows = 0

    async def barrier(self) -> int:
        """Fix T0, or Tb; waits for MongoDB as long as it takes."""
        request = self._request
        return await persistently(lambda: self._source.barrier(f"snapshot {request.app_id}/{request.shard_num}"))

    async def run(self, downstream: Downstream, began: int, before_commit: Callable[[int], Awaitable[None]]) -> int:
        """Send the snapshot of what is there from ``began`` (T0) on; return the position that it shows (Tb or later).

        ``before_commit`` is awaited with that position once all is sent but the commit.
        """
        await downstream.begin(began)
        tables = [table.table for table in self._mapping.tables.values()]
        await downstream.frames(
            frame.encode() for frame in create_tables(tables, self._request.app_id, self._request.shard_num)
        )
        position, collections = began, set(self._mapping.by_collection)
        while True:
            for collection in sorted(collections):
                await self._copy(downstream, collection, position)
            position, collections = await self._replay(downstream, position, await self.barrier())
            if not collections:
                break
        await before_commit(position)
        await downstream.commit()
        return position

    async def _copy(self, downstream: Downstream, collection: str, began: int) -> None:
        waiting = [_Rows(table) for table in self._mapping.by_collection[collection]]
        documents = self._source.documents(collection, began)
        async with aclosing(documents):
            async for batch in documents:
                for document in batch:
                    for rows in waiting:
                        if rows.add(document, self._report):
                            await self._flush(downstream, rows)
                # Mapping a batch takes a while: let pings and other replicas have their turn.
                await asyncio.sleep(0)
        for rows in waiting:
            await self._flush(downstream, rows)
        logger.info("collection copied", extra={"collection": collection, "rows": self.rows})

    async def _flush(self, downstream: Downstream, rows: _Rows) -> None:
        if rows.rows:
            await downstream.frames([rows.table.frames.backfill(rows.table.columns, rows.rows, downstream.opened)])
            self.rows += len(rows.rows)
            rows.rows, rows.size = [], 0

    async def _replay(self, downstream: Downstream, began: int, until: int) -> tuple[int, set[str]]:
        """Send what changed from ``began`` until at least ``until``, within the open transaction.

        Return how far it went, and the collections that must be copied again: a rename put them into place.
        """
        position = began
        replaced: set[str] = set()
        transform = Transform(self._mapping, self._report)
        collections = self._mapping.by_collection

        async def attempt() -> None:
            nonlocal position
            stream = batches(
                self._source, transform, collections, position, bounds=self._bounds, idle_ms=REPLAY_IDLE_MS
            )
            async with aclosing(stream):
                async for batch in stream:
                    if batch is None:
                        continue
                    # A piece may come again after a fault: upserts and deletes by key bear that.
                    await downstream.frames(batch.frames)
                    replaced.update(self._mapping.tables[name].collection for name in batch.refill)
                    position = batch.end if batch.final else position
                    if position >= until:
                        return

        while position < until:
            await persistently(attempt)
        return position, replaced
