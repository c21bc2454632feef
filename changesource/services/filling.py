"""Fills tables from their collections within one open transaction, exact although writers never stop.

Collections are copied, a few at a time, by cursors that read nothing older than a position; then a barrier is written,
and all changes between the position and the barrier are replayed. Rows are upserts, so whatever the copy saw of a
change, what is left is the state at the barrier. That is a round. It lasts a few minutes at most; the next one goes on
from the barrier by other cursors.

Where another snapshot reads the same just then, its blocks are taken instead of a cursor (see ``shared_copies``); then
the replay begins where that one's would.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import TypeAlias, TypeVar

from changesource.backoff import Backoff
from changesource.exceptions import SourceRefused, SourceUnavailable, TableStopped
from changesource.framing import PIECE_BYTES
from changesource.mapping.compiled import CompiledMapping, MappedTable, Report, RowFault
from changesource.services.correcting import correct
from changesource.services.downstream import Downstream
from changesource.services.limits import Limits
from changesource.services.progress import CopyProgress
from changesource.services.replay import batches
from changesource.services.shared_copies import Block, Place, SharedCopy
from changesource.services.table_rows import TableRows
from changesource.sources.base import ChangeSource, CollectionCopy, Document
from changesource.stream.transform import Corrections, Transform

logger = logging.getLogger(__name__)
T = TypeVar("T")
REPLAY_IDLE_MS = 100
PROGRESS_SECONDS = 10.0
# How long a reader that takes nothing keeps its turn while others wait for one.
PATIENCE_SECONDS = 2.0
# Collections of one snapshot that are read at once: of each, an answer or two of MongoDB are held.
AT_ONCE = 4
REPLAY = ""  # the name of no collection

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


def _some(frames: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Give a few frames at a time: one, or what goes out in one piece."""
    found: list[bytes] = []
    size = 0
    for frame in frames:
        found.append(frame)
        size += len(frame)
        if size >= PIECE_BYTES:
            yield found
            found, size = [], 0
    if found:
        yield found


def _may_not_stop(table: MappedTable) -> bool:
    return table.spec.error_policy != "stop"


@dataclass
class _Round:
    """What is copied between two replays: ``left`` are collections that no task reads.

    It ends at the time ``until``, which is set once there is a turn to read by.
    """

    downstream: Downstream
    tasks: asyncio.TaskGroup
    left: deque[str]
    until: float = inf
    # What is under way is no more than what the connection has room for.
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_over(self) -> bool:
        """Whether it is time to catch up."""
        return monotonic() >= self.until

    def sending(self, frames: Iterable[bytes]) -> asyncio.Task[None]:
        """Send after all that was to be sent before; the round ends once it is sent.

        ``frames`` are made then, so that who waits for the reader holds few.
        """

        async def send() -> None:
            async with self._one_at_a_time:
                for some in _some(frames):
                    await self.downstream.frames(some)

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
        # Those that may stop come first: nothing is told then of documents that will come once more.
        self._fed = {name: sorted(fed, key=_may_not_stop) for name, fed in mapping.by_collection.items()}
        # Collections that are not copied to their end yet, those that have begun, and what ended them half-way.
        self._wanted: set[str] = set()
        self._begun: dict[str, Place] = {}
        # Those that were put into place by a rename: nothing that was read before it will do.
        self._replaced: dict[str, int] = {}
        self._faults: dict[str, SourceUnavailable | TableStopped] = {}
        self._backoff = Backoff("copy")
        self._position = 0
        self._said = monotonic()
        self.progress = CopyProgress()

    async def barrier(self) -> int:
        """Write a barrier and return its cluster time; waits for MongoDB as long as it takes."""
        return await persistently(lambda: self._source.barrier(f"snapshot {self._name}"))

    async def fill(self, downstream: Downstream, began: int, collections: Iterable[str]) -> int:
        """Copy ``collections`` as they are at ``began`` or later, then replay what changed in all tables since.

        Return the position that the replica shows then, a barrier's or later. The caller commits.
        """
        self._position, self._wanted = began, set(collections)
        await self._estimate()
        with self._limits.copies.used():
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
        return self._position

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

        It waits for one turn, and has more of them while nobody else waits for one. What others read just then it takes
        from them, without a turn.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                this = _Round(downstream, tasks, deque(sorted(self._wanted)))
                reading = tasks.create_task(self._lead(this), name="snapshot-copying")
                if self._backfill:
                    await self._follow(this, reading)
        except BaseExceptionGroup as group:
            failed = group.exceptions[0]
        else:
            return
        raise failed

    async def _lead(self, this: _Round) -> None:
        async with self._turn():
            this.until = monotonic() + self._limits.catch_up
            for _ in range(min(AT_ONCE, len(this.left)) - 1):
                this.tasks.create_task(self._help(this), name="snapshot-copying")
            await self._read(this)

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
        while goes_on and (collection := next((one for one in this.left if self._shared(one) is None), None)):
            this.left.remove(collection)
            try:
                goes_on = await self._copy(this, collection, may_go_on) and may_go_on()
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
        tables, place = self._tables(collection), self._begin(collection)
        copy = self._source.copy(collection, self._mapping.needs[collection]) if place is None else place.fork()
        shared = SharedCopy(place, self._position, this.until)
        if self._backfill:
            self._limits.copies.begin(self._key(collection), shared)
        in_time = True
        try:
            async with aclosing(copy.batches(shared.not_before)) as batches:
                async for batch in batches:
                    block = self._block(batch, tables, copy)
                    if self._backfill:
                        await shared.put(block, self._limits.copies.window)
                    self._note_block(collection, block)
                    sending = this.sending(self._frames(this, block, tables))
                    in_time = await self._sent(sending, shared, wholly=not copy.resumable)
                    if copy.resumable and not (in_time and may_go_on()):
                        this.left.append(collection)
                        break
                else:
                    shared.whole = True
                    self._copied(collection)
        finally:
            shared.close()
        return await self._sent(this.sending(self._rest(this, tables)), shared) and in_time

    async def _follow(self, this: _Round, reading: asyncio.Task[None]) -> None:
        """Take what others read, for as long as ``reading`` lasts or waits for its turn."""
        copies = self._limits.copies
        reading.add_done_callback(lambda _: copies.tell())
        while not this.is_over:
            found = next(((one, shared) for one in this.left if (shared := self._shared(one))), None)
            if found is not None:
                this.left.remove(found[0])
                await self._take(this, *found)
            elif reading.done():
                return
            elif this.until == inf and not this.left:
                # There is nothing that it waits for any more.
                reading.cancel()
                return
            else:
                await copies.news()

    async def _take(self, this: _Round, collection: str, shared: SharedCopy) -> None:
        """Take what another snapshot reads, to the end of that or of the round."""
        tables, place = self._tables(collection), self._begin(collection)
        self.progress.waits = False
        # It may have read documents as old as that.
        self._position = min(self._position, shared.not_before)
        async with aclosing(shared.blocks(place)) as blocks:
            async for block in blocks:
                for fault in block.faults:
                    self._report(fault)
                self._note_block(collection, block)
                await this.sending(self._frames(this, block, tables))
                if this.is_over:
                    break
        await this.sending(self._rest(this, tables))
        if shared.whole and self._begun[collection] is shared.end:
            self._copied(collection)
        else:
            this.left.append(collection)

    def _shared(self, collection: str) -> SharedCopy | None:
        """Return what can be followed instead of reading the collection; nothing after a fault: it would come again."""
        if not self._backfill or collection in self._faults:
            return None
        not_before = self._replaced.get(collection, 0)
        return self._limits.copies.find(self._key(collection), self._begun.get(collection), not_before)

    def _key(self, collection: str) -> Hashable:
        """What decides the rows."""
        return self._source, collection, tuple(table.fingerprint for table in self._fed[collection])

    def _tables(self, collection: str) -> list[TableRows]:
        return [TableRows(table, self._backfill, self.progress) for table in self._fed[collection]]

    def _begin(self, collection: str) -> Place:
        """Return from where the collection is to be copied."""
        if collection not in self._begun:
            self.progress.begin(collection)
        return self._begun.setdefault(collection, None)

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

    def _block(self, batch: Sequence[Document], tables: list[TableRows], copy: CollectionCopy) -> Block:
        faults: list[RowFault] = []

        def report(fault: RowFault) -> None:
            faults.append(fault)
            self._report(fault)

        return Block(len(batch), [list(rows.encoded(batch, report)) for rows in tables], faults, copy.fork())

    def _note_block(self, collection: str, block: Block) -> None:
        """It is sent before anything else is done of the collection."""
        self._begun[collection] = block.after
        self.progress.read(collection, block.documents)
        self._say_progress()

    def _frames(self, this: _Round, block: Block, tables: list[TableRows]) -> Iterator[bytes]:
        """Give what is to be sent of a block; the rest waits in ``tables`` for more."""
        for rows, encoded in zip(tables, block.rows, strict=True):
            yield from rows.frames(encoded, this.downstream.opened)

    def _rest(self, this: _Round, tables: list[TableRows]) -> Iterator[bytes]:
        for rows in tables:
            yield from rows.rest(this.downstream.opened)

    async def _sent(self, sending: asyncio.Task[None], shared: SharedCopy, *, wholly: bool = False) -> bool:
        """Wait for its end; False, unless ``wholly``, where that takes long and others wait for a turn, or follow.

        It goes on by itself then.
        """
        while not sending.done():
            await asyncio.wait([sending], timeout=PATIENCE_SECONDS)
            if not (wholly or sending.done()) and (self._limits.turns.waiting or shared.followed):
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
        self._position, replaced = await self._replay(downstream, self._position, await self.barrier())
        self._wanted |= replaced
        for collection in replaced:
            self._begun.pop(collection, None)
            self._replaced[collection] = self._position

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
                    replaced.update(self._mapping.tables[name].collection for name in batch.refill)
                    position = batch.end if batch.final else position
                    if position >= until:
                        return

        while position < until:
            await persistently(attempt, stopped)
        return position, replaced
