"""A database in memory behind the ``ChangeSource`` interface: the smallest complete example of one, and the tests' own.

Its log gives every event the document as it was right after it, so what a replica shows can be compared, at each
commit, with ``state_at``.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import count
from typing import Any, Literal, NamedTuple

from changesource.exceptions import HistoryLost, SourceUnavailable, WatermarkInFuture, ZerosourceError
from changesource.mapping.needs import EVERYTHING, CollectionNeeds
from changesource.sources.base import Batch, Document
from changesource.stream.events import Event, is_of_document, with_document

Call = Literal["barrier", "mark", "feed", "poll", "documents", "prepare"]
State = dict[str, dict[Any, dict[str, Any]]]
BARRIERS = "_zerosource"
START = 1_700_000_000 << 32


class Write(NamedTuple):
    """One write of a transaction.

    ``document`` holds ``_id`` always: the whole document of an ``insert`` or ``replace``, the fields that an
    ``update`` sets, nothing more of a ``delete``.
    """

    kind: Literal["insert", "update", "replace", "delete"]
    collection: str
    document: Mapping[str, Any]


class ScriptedSource:
    """A ``ChangeSource`` of one database in memory. ``_id`` values must be hashable.

    Writing returns the cluster time of the write. ``state`` holds the documents as they are now; ``calls`` counts the
    calls of each kind, ``opened`` the cursors that copied each collection; ``feeds`` and ``cursors`` are those open.
    """

    def __init__(self, *, feed_batch: int = 100, snapshot_batch: int = 100, start: int = START) -> None:
        """``feed_batch`` and ``snapshot_batch`` bound what one answer holds; cluster times begin after ``start``."""
        self.now = start
        self.calls: Counter[Call] = Counter()
        self.feeds: set[ScriptedFeed] = set()
        self.opened: Counter[str] = Counter()
        self.cursors: list[str] = []
        self.feed_batch = feed_batch
        self.snapshot_batch = snapshot_batch
        self.state: State = {}
        self.with_history: set[str] = set()
        # All that ever happened; feeds see nothing of it up to ``_forgotten``.
        self._log: list[Event] = []
        self._forgotten = 0
        # While no majority confirms: the state and the length of the log that one has.
        self._majority: tuple[State, int] | None = None
        self._confirmed = asyncio.Event()
        self._confirmed.set()
        self._lagging: int | None = None
        self._plans: dict[tuple[Call, int], list[Callable[[], object]]] = {}
        self._transactions = count(1)

    # What writers do.

    def insert(self, collection: str, document: Mapping[str, Any]) -> int:
        """Add a document."""
        return self._write([Write("insert", collection, document)])

    def update(self, collection: str, document_id: object, **fields: object) -> int:
        """Set fields of a document."""
        return self._write([Write("update", collection, {"_id": document_id, **fields})])

    def replace(self, collection: str, document: Mapping[str, Any]) -> int:
        """Put ``document`` in the place of the one with its ``_id``."""
        return self._write([Write("replace", collection, document)])

    def delete(self, collection: str, document_id: object) -> int:
        """Remove a document."""
        return self._write([Write("delete", collection, {"_id": document_id})])

    def transaction(self, writes: Iterable[Write], *, spread: bool = False) -> int:
        """Do all ``writes`` at one cluster time, or, where ``spread``, at one each (the last is returned)."""
        return self._write(writes, ("session", next(self._transactions)), spread=spread)

    def drop(self, collection: str) -> int:
        """Drop a collection."""
        return self._append([Event("drop", self._tick(), collection)])

    def rename(self, collection: str, target: str) -> int:
        """Rename a collection, into the place of ``target`` where that exists."""
        return self._append([Event("rename", self._tick(), collection, target=target)])

    def drop_database(self) -> int:
        """Drop all collections."""
        return self._append([Event("dropDatabase", self._tick())])

    def truncate(self, until: int) -> None:
        """Forget all events up to and with the cluster time ``until``, as an oplog that rolls over does."""
        self._forgotten = max(self._forgotten, until)

    def hold(self) -> None:
        """From now on no majority confirms what is written: readers see nothing of it, barriers wait."""
        self._majority = deepcopy(self.state), len(self._log)
        self._confirmed.clear()

    def confirm(self) -> None:
        """A majority has all that is written."""
        self._majority = None
        self._confirmed.set()
        for feed in self.feeds:
            feed.arrived.set()

    def roll_back(self) -> None:
        """Another primary is elected, which never had what was not confirmed; it uses those cluster times again."""
        if self._majority is not None:
            self.state, length = self._majority
            del self._log[length:]
            self.now = max(self._log[-1].cluster_time if self._log else START, self._forgotten)
            self.confirm()

    def lag(self) -> None:
        """From now on documents are read from a secondary that has what is here now, and no more than it must."""
        self._lagging = self.now

    # What tests ask and plan.

    def state_at(self, cluster_time: int) -> State:
        """Return the documents of all collections as they were right after ``cluster_time``."""
        return self.history().forward(cluster_time)

    def history(self) -> History:
        """Return what goes through all that ever happened, from the beginning."""
        return History(self._log)

    def before(self, call: Call, nth: int, action: Callable[[], object]) -> None:
        """Do ``action`` at the beginning of the ``nth`` call of that kind from now on (1 is the next).

        It may write or raise. Every batch of ``documents`` is one call.
        """
        self._plans.setdefault((call, self.calls[call] + nth), []).append(action)

    def fail(self, call: Call, error: ZerosourceError, nth: int = 1) -> None:
        """Raise ``error`` in the ``nth`` call of that kind from now on."""

        def throw() -> None:
            raise error

        self.before(call, nth, throw)

    # What a ``ChangeSource`` offers.

    async def barrier(self, name: str) -> int:
        """See ``ChangeSource.barrier``."""
        await self.enter("barrier")
        written = Event("barrier", self._tick(), BARRIERS, target=name)
        self._append([written])
        await self._confirmed.wait()
        if written not in self._log:
            raise SourceUnavailable("the barrier was rolled back")
        return written.cluster_time

    async def mark(self, name: str) -> str:
        """See ``ChangeSource.mark``."""
        await self.enter("mark")
        mark = f"{name} {self.now}"
        self._append([Event("barrier", self._tick(), BARRIERS, target=mark)])
        return mark

    async def feed(self, needs: Collection[str], after: int, current_until: int = 0) -> ScriptedFeed:
        """See ``ChangeSource.feed``: its events hold all fields."""
        await self.enter("feed")
        return ScriptedFeed(self, {*needs, BARRIERS}, after, current_until)

    def copy(self, collection: str, needs: CollectionNeeds = EVERYTHING) -> ScriptedCopy:
        """See ``ChangeSource.copy``."""
        return ScriptedCopy(self, collection)

    async def prepare(self, collections: Collection[str], history: Collection[str] = ()) -> None:
        """See ``ChangeSource.prepare``: from now on, events of ``history`` bear what was before, if it is not lost."""
        await self.enter("prepare")
        self.with_history.update(history)

    def lose_history(self, collection: str) -> None:
        """From now on, events of the collection do not tell what was before, until it is prepared again."""
        self.with_history.discard(collection)

    async def find(self, collection: str, document_ids: Sequence[object], needs: CollectionNeeds) -> Sequence[Document]:
        """See ``ChangeSource.find``."""
        present = self.state.get(collection, {})
        return [deepcopy(present[one]) for one in document_ids if one in present]

    async def estimate(self, collection: str) -> int:
        """See ``ChangeSource.estimate``."""
        return len(self.state.get(collection, {}))

    async def close(self) -> None:
        """See ``ChangeSource.close``."""

    # What its feeds need.

    async def enter(self, call: Call) -> None:
        """Count a call, let others run, and do what was planned for it."""
        self.calls[call] += 1
        planned = self._plans.pop((call, self.calls[call]), [])
        await asyncio.sleep(0)
        for action in planned:
            action()

    def place_after(self, collections: Collection[str], after: int) -> int:
        """Return where in the log the events after ``after`` begin.

        ``HistoryLost`` where no event of these collections comes again at ``after``.
        """
        if after > self.now:
            raise WatermarkInFuture()
        begin = bisect_left(self._log, after, key=_cluster_time)
        end = min(bisect_right(self._log, after, key=_cluster_time), self._visible)
        again = any(_concerns(event, collections) for event in self._log[begin:end])
        if after <= self._forgotten or not again:
            raise HistoryLost()
        return end

    def read(self, collections: Collection[str], place: int, limit: int) -> tuple[list[Event], int]:
        """Return up to ``limit`` events from a place in the log on, and the place after them."""
        found: list[Event] = []
        while place < self._visible and len(found) < limit:
            event = self._log[place]
            if event.cluster_time <= self._forgotten:
                raise HistoryLost()
            if _concerns(event, collections):
                found.append(event)
            place += 1
        return found, place

    @property
    def _visible(self) -> int:
        """How much of the log readers see."""
        return len(self._log) if self._majority is None else self._majority[1]

    def read_state(self, not_before: int) -> State:
        """Return what a read that waits for ``not_before`` sees."""
        if self._lagging is not None:
            self._lagging = max(self._lagging, not_before)
            return self.state_at(self._lagging)
        return self.state if self._majority is None else self._majority[0]

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def _write(
        self, writes: Iterable[Write], transaction: tuple[object, object] | None = None, *, spread: bool = False
    ) -> int:
        self._tick()
        events: list[Event] = []
        # A transaction's own writes see each other, so its later events need a state that has the earlier ones.
        state: dict[tuple[str, Any], dict[str, Any] | None] = {}
        for number, write in enumerate(writes):
            if spread and number:
                self._tick()
            place = write.collection, write.document["_id"]
            before = state.get(place, self.state.get(write.collection, {}).get(place[1]))
            if (before is None) is not (write.kind == "insert"):
                raise ValueError(f"{write.kind} of {place}, which is {'absent' if before is None else 'present'}")
            after = None if write.kind == "delete" else deepcopy(dict(write.document))
            if write.kind == "update":
                after = {**(before or {}), **(after or {})}
            state[place] = after
            known = before if write.collection in self.with_history and write.kind != "insert" else None
            events.append(
                Event(write.kind, self.now, write.collection, place[1], after, transaction, before=deepcopy(known))
            )
        return self._append(events)

    def _append(self, events: Sequence[Event]) -> int:
        for event in events:
            _apply(self.state, event)
        self._log.extend(events)
        for feed in self.feeds:
            feed.arrived.set()
        return self.now


def _batch(documents: Sequence[Document]) -> Batch:
    return Batch(repr(documents).encode(), lambda _: documents)


class ScriptedCopy:
    """A ``CollectionCopy`` of a ``ScriptedSource``: every batch shows what is there when it is read."""

    resumable = True

    def __init__(self, source: ScriptedSource, collection: str) -> None:
        """See ``ChangeSource.copy``."""
        self._source = source
        self._collection = collection
        self._last: tuple[str, Any] | None = None

    async def batches(self, not_before: int) -> AsyncGenerator[Batch, None]:
        """See ``CollectionCopy.batches``."""
        source = self._source
        if not_before > source.now:
            raise SourceUnavailable("asked for what is not there yet")
        source.opened[self._collection] += 1
        source.cursors.append(self._collection)
        try:
            while True:
                try:
                    await source.enter("documents")
                except SourceUnavailable:
                    continue
                present = source.read_state(not_before).get(self._collection, {})
                order = sorted(key for key in map(_order, present) if self._last is None or key > self._last)
                batch = [deepcopy(present[key[1]]) for key in order[: source.snapshot_batch]]
                if not batch:
                    return
                self._last = order[len(batch) - 1]
                yield _batch(batch)
        finally:
            source.cursors.remove(self._collection)


class History:
    """Goes forward through a log; ``state`` is what it has come to."""

    def __init__(self, log: Sequence[Event]) -> None:
        """``log`` holds all events, and may grow."""
        self.state: State = {}
        self._log = log
        self._place = 0

    def forward(self, cluster_time: int) -> State:
        """Go on until right after ``cluster_time`` and return the state there."""
        while self._place < len(self._log) and self._log[self._place].cluster_time <= cluster_time:
            _apply(self.state, self._log[self._place])
            self._place += 1
        return self.state


class ScriptedFeed:
    """A ``ChangeFeed`` of a ``ScriptedSource``."""

    def __init__(self, source: ScriptedSource, collections: Collection[str], after: int, current_until: int) -> None:
        """See ``ChangeSource.feed``."""
        self.arrived = asyncio.Event()
        self._source = source
        self._collections = collections
        self._after = after
        self._current_until = current_until
        self._place: int | None = None
        source.feeds.add(self)

    async def poll(self, wait_ms: int) -> Sequence[Event] | None:
        """See ``ChangeFeed.poll``."""
        await self._source.enter("poll")
        if self._place is None:
            self._place = self._source.place_after(self._collections, self._after)
        if found := self._read(self._place):
            return found
        self.arrived.clear()
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self.arrived.wait()
        except TimeoutError:
            return None
        # What arrived may be of other collections: none of these proves nothing.
        return self._read(self._place)

    def _read(self, place: int) -> list[Event]:
        found, self._place = self._source.read(self._collections, place, self._source.feed_batch)
        return [self._now(event) for event in found]

    def _now(self, event: Event) -> Event:
        if event.cluster_time > self._current_until or not is_of_document(event):
            return event
        present = self._source.state.get(event.collection, {}).get(event.document_id)
        return with_document(event, deepcopy(present))

    async def close(self) -> None:
        """See ``ChangeFeed.close``."""
        self._source.feeds.discard(self)


def _cluster_time(event: Event) -> int:
    return event.cluster_time


def _concerns(event: Event, collections: Collection[str]) -> bool:
    renamed_into = event.kind == "rename" and event.target in collections
    return event.kind == "dropDatabase" or event.collection in collections or renamed_into


def _order(document_id: object) -> tuple[str, Any]:
    """Order values by type first, since those of two types may have none."""
    return type(document_id).__name__, document_id


def _apply(state: State, event: Event) -> None:
    match event.kind:
        case "insert" | "update" | "replace" if event.document is not None:
            state.setdefault(event.collection, {})[event.document_id] = dict(event.document)
        case "delete":
            state.get(event.collection, {}).pop(event.document_id, None)
        case "drop":
            state.pop(event.collection, None)
        case "rename":
            state[event.target] = state.pop(event.collection, {})
        case "dropDatabase":
            state.clear()
