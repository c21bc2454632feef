"""Fills tables from their collections within one open transaction, exact although writers never stop.

Each collection is copied by one cursor that reads nothing older than a position; then a barrier is written, and all
changes between the position and the barrier are replayed. Rows are upserts, so whatever the copy saw of a change,
what is left is the state at the barrier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from changesource.backoff import Backoff
from changesource.exceptions import SourceUnavailable, TableStopped
from changesource.mapping.compiled import CompiledMapping, MappedTable, Report
from changesource.services.correcting import correct
from changesource.services.downstream import Downstream
from changesource.services.replay import batches
from changesource.sources.base import ChangeSource
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Corrections, Transform

logger = logging.getLogger(__name__)
T = TypeVar("T")
FRAME_ROWS = 1000
FRAME_BYTES = 1024 * 1024
REPLAY_IDLE_MS = 100


Stopped: TypeAlias = Callable[["TableStopped | None"], None]
"""Hears of a table that stops at a document, and, by None, that it goes on."""


async def persistently(action: Callable[[], Awaitable[T]], stopped: Stopped | None = None) -> T:
    """Do ``action`` until it succeeds: within an initial sync a closed socket would end zero-cache.

    With ``stopped``, a document at which a table stops is waited for as well.
    """
    backoff = Backoff("copy")
    while True:
        try:
            result = await action()
        except SourceUnavailable as error:
            logger.warning("copying waits for MongoDB", extra={"error": str(error), "tries": backoff.tries})
            await backoff.wait()
        except TableStopped as error:
            if stopped is None:
                raise
            logger.error("copying stopped", extra={"error": str(error), "tries": backoff.tries})
            stopped(error)
            await backoff.wait()
        else:
            if stopped is not None:
                stopped(None)
            return result


@dataclass
class _Rows:
    """Encoded rows of one table that wait to be sent.

    In an initial sync they are lists that go into one ``backfill`` frame; later each is an ``insert`` frame, since
    zero-cache takes ``backfill`` only there.
    """

    table: MappedTable
    backfill: bool
    rows: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, document: Mapping[str, object], report: Report) -> bool:
        """Add the document's rows; True once there is enough to send."""
        rows = self.table.encoded(document, self.table.values if self.backfill else self.table.inserts, report)
        self.rows += rows
        self.size += sum(map(len, rows))
        return len(self.rows) >= FRAME_ROWS or self.size >= FRAME_BYTES

    async def send(self, downstream: Downstream) -> int:
        """Send what waits; return how many rows that were."""
        rows, self.rows, self.size = self.rows, [], 0
        if rows:
            frames = [self.table.frames.backfill(self.table.columns, rows, downstream.opened)]
            await downstream.frames(frames if self.backfill else rows)
        return len(rows)


class Filling:
    """Fills some of a replica's tables. ``rows`` counts what was copied."""

    def __init__(
        self,
        source: ChangeSource,
        mapping: CompiledMapping,
        name: str,
        *,
        bounds: Bounds,
        report: Report,
        backfill: bool,
        stopped: Stopped | None = None,
    ) -> None:
        """``mapping`` is the replica's part; ``name`` is the replica's; ``report`` hears of rows left out.

        ``stopped`` hears of tables that stop at a document, which is waited for then; without it that is raised.
        """
        self._source = source
        self._mapping = mapping
        self._name = name
        self._bounds = bounds
        self._report = report
        self._backfill = backfill
        self._stopped = stopped
        self._corrections: Corrections = {}
        self.rows = 0

    async def barrier(self) -> int:
        """Write a barrier and return its cluster time; waits for MongoDB as long as it takes."""
        return await persistently(lambda: self._source.barrier(f"snapshot {self._name}"))

    async def fill(self, downstream: Downstream, began: int, collections: Iterable[str]) -> int:
        """Copy ``collections`` as they are at ``began`` or later, then replay what changed in all tables since.

        Return the position that the replica shows then, a barrier's or later. The caller commits.
        """
        position, wanted = began, set(collections)
        while wanted:
            if wanted & set(self._mapping.with_history):
                # Before the copy: what changes without history must be copied again.
                await persistently(self._prepare)
            for collection in sorted(wanted):
                await self._copied(downstream, collection, position)
            position, wanted = await self._replay(downstream, position, await self.barrier())
        return position

    async def _prepare(self) -> None:
        await self._source.prepare(self._mapping.needs, self._mapping.with_history)

    async def _copied(self, downstream: Downstream, collection: str, began: int) -> None:
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:
                # A table stopped half-way: it begins anew.
                await downstream.frames(t.frames.truncate for t in self._mapping.by_collection[collection])
            await self._copy(downstream, collection, began)

        await persistently(attempt, self._stopped)

    async def _copy(self, downstream: Downstream, collection: str, began: int) -> None:
        waiting = [_Rows(table, self._backfill) for table in self._mapping.by_collection[collection]]
        documents = self._source.documents(collection, began, self._mapping.needs[collection])
        async with aclosing(documents):
            async for batch in documents:
                for document in batch:
                    for rows in waiting:
                        if rows.add(document, self._report):
                            self.rows += await rows.send(downstream)
                # Mapping a batch takes a while: let pings and other replicas have their turn.
                await asyncio.sleep(0)
        for rows in waiting:
            self.rows += await rows.send(downstream)
        logger.info("collection copied", extra={"collection": collection, "rows": self.rows})

    async def _replay(self, downstream: Downstream, began: int, until: int) -> tuple[int, set[str]]:
        """Send what changed from ``began`` until at least ``until``, within the open transaction.

        Return how far it went, and the collections that must be copied again: a rename put them into place.
        """
        position = began
        replaced: set[str] = set()
        transform = Transform(self._mapping, self._report, corrections=self._corrections)
        needs = self._mapping.needs

        async def attempt() -> None:
            try:
                await play()
            except TableStopped as error:
                await correct(self._source, needs, error, self._corrections)
                raise

        async def play() -> None:
            nonlocal position
            stream = batches(self._source, transform, needs, position, bounds=self._bounds, idle_ms=REPLAY_IDLE_MS)
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
            await persistently(attempt, self._stopped)
        return position, replaced
