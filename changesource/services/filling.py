"""Fills tables from their collections within one open transaction, exact although writers never stop.

Collections are copied, a few at a time, by cursors that read nothing older than a position; then a barrier is written,
and all changes between the position and the barrier are replayed. Rows are upserts, so whatever the copy saw of a
change, what is left is the state at the barrier. That is a round. It lasts a few minutes at most; the next one goes on
from the barrier by other cursors.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TypeAlias, TypeVar

from changesource import tracing
from changesource.backoff import Backoff
from changesource.exceptions import SourceRefused, SourceUnavailable, TableStopped
from changesource.mapping.blocks import NOTHING, Blocks, EncodedRows
from changesource.mapping.compiled import CompiledMapping, MappedTable, Report
from changesource.metrics import ROWS
from changesource.protocol.watermark import Watermark
from changesource.services.correcting import correct
from changesource.services.downstream import Downstream
from changesource.services.limits import Limits
from changesource.services.pausing import Pause
from changesource.services.progress import CopyProgress
from changesource.services.replay import batches
from changesource.services.shared_rows import SharedRows
from changesource.sources.base import Batch, ChangeSource, CollectionCopy
from changesource.stream.transform import Corrections, Transform

logger = logging.getLogger(__name__)
T = TypeVar("T")
FRAME_ROWS = 1000
FRAME_BYTES = 1024 * 1024
REPLAY_IDLE_MS = 100
PROGRESS_SECONDS = 10.0
# How long a reader that takes nothing keeps its turn while others wait for one.
PATIENCE_SECONDS = 2.0
# Collections of one snapshot that are read at once: of each, an answer or two of MongoDB are held.
AT_ONCE = 4
REPLAY = ""  # the name of no collection
COPIED = ROWS.labels("snapshot")

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
    """Encoded rows of one table that wait to be sent; ``progress`` counts those that were taken.

    In an initial sync they are lists that go into one ``backfill`` frame; later each is an ``insert`` frame, since
    zero-cache takes ``backfill`` only there, and does not wait.
    """

    table: MappedTable
    backfill: bool
    progress: CopyProgress
    shared: SharedRows
    rows: list[EncodedRows] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self._blocks = Blocks(self.table, FRAME_ROWS, FRAME_BYTES)

    async def frames(self, batch: Batch, report: Report, watermark: Watermark) -> AsyncIterator[bytes]:
        """Give what is to be sent of ``batch``, as frames of the transaction of ``watermark``; the rest waits.

        Others go on meanwhile, however long a document takes.
        """
        pause = Pause()
        if not self.backfill:
            for document in batch.documents:
                rows = self.table.encoded(document, self.table.inserts, report)
                self.progress.rows += len(rows)
                for row in rows:
                    yield row
                await pause.if_due()
            return
        for some in self.shared.encoded(self._blocks, self.table, batch, report):
            await pause.if_due()
            if some is NOTHING:
                continue
            if self.count + some.rows > FRAME_ROWS or self.size + len(some.body) > FRAME_BYTES:
                for frame in self.rest(watermark):
                    yield frame
            self.rows.append(some)
            self.count += some.rows
            self.size += len(some.body)

    def rest(self, watermark: Watermark) -> Iterator[bytes]:
        """Give what waits, as a frame of the transaction of ``watermark``, and forget it."""
        if self.rows:
            bodies = [some.body for some in self.rows]
            self.progress.rows += self.count
            self.rows, self.count, self.size = [], 0, 0
            yield self.table.frames.backfill(self.table.columns, bodies, watermark)


@dataclass
class _Round:
    """What is copied between two replays, until the time ``until``: ``left`` are collections that no task reads."""

    downstream: Downstream
    tasks: asyncio.TaskGroup
    left: deque[str]
    until: float
    # What is under way is no more than what the connection has room for.
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_over(self) -> bool:
        """Whether it is time to catch up."""
        return monotonic() >= self.until

    def sending(self, frames: Iterable[bytes]) -> asyncio.Task[None]:
        """Send after all that was to be sent before; the round ends once it is sent."""

        async def send() -> None:
            async with self._one_at_a_time:
                await self.downstream.frames(frames)

        return self.tasks.create_task(send(), name="snapshot-sending")


class Filling:
    """Fills some of a replica's tables. ``progress`` says how far it is."""

    def __init__(
        self,
        source: ChangeSource,
        mapping: CompiledMapping,
        name: str,
        *,
        limits: Limits,
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
        self._limits = limits
        self._report = report
        self._backfill = backfill
        self._stopped = stopped
        self._corrections: Corrections = {}
        # Collections that are not copied to their end yet, those that have begun, and what ended them half-way.
        self._wanted: set[str] = set()
        self._begun: dict[str, CollectionCopy] = {}
        self._faults: dict[str, SourceUnavailable | TableStopped] = {}
        self._backoff = Backoff("copy")
        self._position = 0
        self._said = monotonic()
        self._counted = 0
        self.progress = CopyProgress()

    async def barrier(self) -> int:
        """Write a barrier and return its cluster time; waits for MongoDB as long as it takes."""
        return await persistently(lambda: self._source.barrier(f"snapshot {self._name}"))

    async def fill(self, downstream: Downstream, began: int, collections: Iterable[str]) -> int:
        """Copy ``collections`` as they are at ``began`` or later, then replay what changed in all tables since.

        Return the position that the replica shows then, a barrier's or later. The caller commits.
        """
        self._position, self._wanted = began, set(collections)
        tables = [table for name in self._wanted for table in self._mapping.by_collection[name]]
        with self._limits.shared_rows.reading(tables):
            await self._fill(downstream)
        return self._position

    async def _fill(self, downstream: Downstream) -> None:
        await self._estimate()
        while self._wanted:
            if any(name not in self._begun for name in self._wanted.intersection(self._mapping.with_history)):
                # Before the copy: what changes without history must be copied again.
                await persistently(self._prepare)
            await self._round(downstream)
            # With no cursor open: one that is older than what is replayed could bring back what was deleted.
            await self._catch_up(downstream)
            if self._wanted and self._wanted <= self._faults.keys():
                await self._backoff.wait()
            else:
                self._backoff.reset()

    async def _estimate(self) -> None:
        """Ask about how many documents will be copied; what cannot be had is left out: it is only shown."""
        left = iter(sorted(self._wanted))

        async def ask() -> None:
            with suppress(SourceUnavailable, SourceRefused):
                for collection in left:
                    self.progress.expect(collection, await self._source.estimate(collection))

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

    async def _prepare(self) -> None:
        await self._source.prepare(self._mapping.needs, self._mapping.with_history)

    async def _round(self, downstream: Downstream) -> None:
        """Copy a few collections at a time until all are, or it is time to catch up; no cursor is open then.

        It waits for one turn, and has more of them while nobody else waits for one.
        """
        try:
            async with asyncio.TaskGroup() as tasks, self._turn():
                until = monotonic() + self._limits.catch_up
                this = _Round(downstream, tasks, deque(sorted(self._wanted)), until)
                for _ in range(min(AT_ONCE, len(this.left)) - 1):
                    tasks.create_task(self._help(this), name="snapshot-copying")
                await self._read(this)
        except BaseExceptionGroup as group:
            failed = group.exceptions[0]
        else:
            return
        raise failed

    async def _help(self, this: _Round) -> None:
        """Copy beside others, by a turn that nobody wants."""
        turns = self._limits.turns
        if not turns.all_taken:
            async with turns.one():
                await self._read(this, gives_way=True)

    async def _read(self, this: _Round, *, gives_way: bool = False) -> None:
        """Copy what is left, one collection after the other, by the turn that the caller has, until it must end.

        It must where a slow reader would keep others from theirs, and, if it ``gives_way``, where anybody waits.
        """

        def may_go_on() -> bool:
            return not (this.is_over or (gives_way and self._limits.turns.waiting))

        goes_on = True
        while this.left and goes_on:
            collection = this.left.popleft()
            try:
                with tracing.span("copy", self._named(collection)) as noted:
                    goes_on = await self._copy(this, collection, may_go_on) and may_go_on()
                    noted["zerosource.documents"] = self.progress.documents_of(collection)
            except (SourceUnavailable, TableStopped) as error:
                if self._stopped is None and isinstance(error, TableStopped):
                    raise
                extra = {"collection": collection, "error": str(error), "tries": self._backoff.tries}
                logger.error("copying stopped", extra=extra)
                self._note_fault(collection, error)
                # In another round it begins anew.
                del self._begun[collection]
                this.sending(table.frames.truncate for table in self._mapping.by_collection[collection])
                goes_on = may_go_on()

    async def _copy(self, this: _Round, collection: str, may_go_on: Callable[[], bool]) -> bool:
        """Copy, or go on with it, to its end or as long as it may; False where the reader is slow (see ``_sent``)."""
        copy = self._begun.get(collection)
        if copy is None:
            copy = self._begun[collection] = self._source.copy(collection, self._mapping.needs[collection])
            self.progress.begin(collection)
        # Those that may stop come first: nothing is told then of documents that will come once more.
        fed = sorted(self._mapping.by_collection[collection], key=lambda table: table.spec.error_policy != "stop")
        shared = self._limits.shared_rows
        tables = [_Rows(table, self._backfill, self.progress, shared) for table in fed]
        in_time = True
        async with aclosing(copy.batches(self._position)) as batches:
            async for batch in batches:
                frames = await self._frames(batch, tables, this.downstream.opened)
                self.progress.read(collection, len(batch))
                in_time = await self._sent(this, frames, wholly=not copy.resumable)
                self._say_progress()
                if copy.resumable and not (in_time and may_go_on()):
                    this.left.append(collection)
                    break
            else:
                self._copied(collection)
        rest = [frame for rows in tables for frame in rows.rest(this.downstream.opened)]
        return await self._sent(this, rest) and in_time

    def _named(self, collection: str) -> tracing.Attributes:
        tables = ",".join(table.spec.name for table in self._mapping.by_collection[collection])
        return {"db.collection.name": collection, "zerosource.tables": tables}

    def _copied(self, collection: str) -> None:
        self._wanted.discard(collection)
        del self._begun[collection]
        self._note_fault(collection, None)
        self.progress.end(collection)
        logger.info("collection copied", extra={"collection": collection, "rows": self.progress.rows})

    def _note_fault(self, place: str, error: SourceUnavailable | TableStopped | None) -> None:
        """Note what ended a collection's copy, or that it goes on; tell of a table that stops, if any does."""
        if error is None:
            self._faults.pop(place, None)
        else:
            self._faults[place] = error
        if self._stopped is not None:
            self._stopped(next((fault for fault in self._faults.values() if isinstance(fault, TableStopped)), None))

    async def _frames(self, batch: Batch, tables: list[_Rows], watermark: Watermark) -> list[bytes]:
        """Return what is to be sent of a batch; the rest waits in ``tables`` for more."""
        return [frame for rows in tables async for frame in rows.frames(batch, self._report, watermark)]

    async def _sent(self, this: _Round, frames: Sequence[bytes], *, wholly: bool = False) -> bool:
        """Send; False, unless ``wholly``, where that takes long and others wait for a turn: it goes on by itself."""
        if not frames:
            return True
        COPIED.inc(self.progress.rows - self._counted)
        self._counted = self.progress.rows
        sending = this.sending(frames)
        while not sending.done():
            await asyncio.wait([sending], timeout=PATIENCE_SECONDS)
            if not (wholly or sending.done()) and self._limits.turns.waiting:
                return False
        return True

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Have a turn to read; it is said where that takes waiting."""
        turns = self._limits.turns
        if turns.all_taken:
            logger.info("copying waits for its turn", extra={"replica": self._name, "turns": turns.count})
        self.progress.waits = turns.all_taken
        async with turns.one():
            self.progress.waits = False
            yield

    def _say_progress(self) -> None:
        if monotonic() - self._said >= PROGRESS_SECONDS:
            self._said = monotonic()
            logger.info("copying", extra={"replica": self._name} | self.progress.as_dict())

    async def _catch_up(self, downstream: Downstream) -> None:
        """Replay what has changed until now; collections that were put into place by a rename are wanted again."""
        with tracing.span("catch up"):
            self._position, replaced = await self._replay(downstream, self._position, await self.barrier())
        self._wanted |= replaced
        for collection in replaced:
            self._begun.pop(collection, None)

    async def _replay(self, downstream: Downstream, began: int, until: int) -> tuple[int, set[str]]:
        """Send what changed from ``began`` until at least ``until``, within the open transaction.

        Return how far it went, and the collections that must be copied again: a rename put them into place.
        """
        position = began
        replaced: set[str] = set()
        transform = Transform(self._mapping, self._report, corrections=self._corrections)
        needs = self._mapping.needs
        stopped = None if self._stopped is None else partial(self._note_fault, REPLAY)

        async def attempt() -> None:
            try:
                await play()
            except TableStopped as error:
                await correct(self._source, needs, error, self._corrections)
                raise

        async def play() -> None:
            nonlocal position
            stream = batches(
                self._source, transform, needs, position, bounds=self._limits.bounds, idle_ms=REPLAY_IDLE_MS
            )
            async with aclosing(stream):
                async for batch in stream:
                    if batch is None:
                        continue
                    # A piece may come again after a fault: upserts and deletes by key bear that.
                    await downstream.frames(batch.frames)
                    downstream.rows += len(batch.frames)
                    COPIED.inc(len(batch.frames))
                    replaced.update(self._mapping.tables[name].collection for name in batch.refill)
                    position = batch.end if batch.final else position
                    if position >= until:
                        return

        while position < until:
            await persistently(attempt, stopped)
        return position, replaced
