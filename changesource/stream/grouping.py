"""Joins events into batches without ever splitting a MongoDB transaction.

A source transaction has provably ended where the next event has another cluster time *and* another transaction, or
where the server answered, after its last event, that it has nothing more. The end of a driver's batch proves
nothing. Ended transactions are joined while more are at hand (zero-cache pays per transaction), up to the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from changesource.stream.batches import Batch, BatchBuilder
from changesource.stream.events import Event

TableChanges = Iterable[tuple[str, Collection[bytes] | None]]


@dataclass(frozen=True)
class Bounds:
    """When a group of source transactions is closed although more are at hand.

    ``rows`` and ``size`` (bytes of frames) bound one batch, ``rows`` its source transactions as well, which may have
    none; ``age`` is in seconds since its first event.
    """

    rows: int = 1000
    size: int = 4 * 1024 * 1024
    age: float = 0.2


class Grouping:
    """Takes events in order and gives batches.

    A MongoDB transaction that alone exceeds the bounds comes as pieces that are not ``final``, but for the last.
    """

    def __init__(
        self,
        follows: int,
        fingerprints: Mapping[str, str],
        bounds: Bounds,
        clock: Callable[[], float] = monotonic,
        singly: Callable[[], bool] = lambda: False,
    ) -> None:
        """``follows`` is the cluster time after which the events begin; none are joined while ``singly`` is true."""
        self._fingerprints = fingerprints
        self._bounds = bounds
        self._clock = clock
        self._singly = singly
        self._closed = BatchBuilder(follows, fingerprints)
        self._open = BatchBuilder(follows, fingerprints)
        self._open_time = 0
        self._open_transaction: tuple[object, object] | None = None
        self._since = 0.0
        self._streaming = False

    @property
    def waiting(self) -> bool:
        """True while something is held back whose end is not proved."""
        return bool(self._open) or bool(self._closed) or self._streaming

    def add(self, event: Event, changes: TableChanges, refill: Collection[str] = ()) -> list[Batch]:
        """Add one event with the frames it makes; return the batches that are complete now."""
        found = self.ended_by(event)
        cluster_time, transaction = event.cluster_time, event.transaction
        builder = self._open
        if not (builder.end or self._closed.end or self._streaming):
            self._since = self._clock()
        self._open_time, self._open_transaction = cluster_time, transaction
        if not builder.end:
            builder.wall = event.wall
        builder.end = cluster_time
        for table, frames in changes:
            builder.add(cluster_time, table, frames)
        if refill:
            builder.refill(refill, cluster_time)
        if builder.reaches(self._bounds.rows, self._bounds.size):
            self._stream(found)
        return found

    def ended_by(self, event: Event) -> list[Batch]:
        """Return the batches that are complete since ``event``, which is to be added, begins another transaction."""
        found: list[Batch] = []
        if (
            self._open_time
            and event.cluster_time != self._open_time
            and (event.transaction is None or event.transaction != self._open_transaction)
        ):
            self._close(found)
        return found

    def let_go(self) -> list[Batch]:
        """Return the whole transactions that wait for company; what comes after them cannot be told."""
        return [self._flush()] if self._closed else []

    def nothing_more(self) -> list[Batch]:
        """The server has nothing more at hand, so whatever is open has ended; return it."""
        found: list[Batch] = []
        self._close(found)
        return found + self.let_go()

    def _close(self, found: list[Batch]) -> None:
        """Move the open transaction to the closed ones."""
        rows, size = self._bounds.rows, self._bounds.size
        if self._streaming:
            self._open.end = self._open_time
            found.append(self._open.build())
            self._streaming = False
            self._closed = BatchBuilder(self._open_time, self._fingerprints)
        elif self._open:
            if self._closed and (
                self._closed.rows + self._open.rows > rows or self._closed.size + self._open.size > size
            ):
                found.append(self._flush())
            self._closed.take(self._open)
            if self._closed.reaches(rows, size) or self._singly() or self._clock() - self._since >= self._bounds.age:
                found.append(self._flush())
            self._open_time = 0
            return
        self._open = BatchBuilder(self._open_time, self._fingerprints)
        self._open_time = 0

    def _flush(self) -> Batch:
        batch = self._closed.build()
        self._closed = BatchBuilder(batch.end, self._fingerprints)
        self._since = self._clock()
        return batch

    def _stream(self, found: list[Batch]) -> None:
        """Let go of a part of one transaction that is larger than a batch may be."""
        found += self.let_go()
        self._streaming = True
        self._open.follows = self._closed.follows
        found.append(self._open.build(final=False))
        self._open = BatchBuilder(self._closed.follows, self._fingerprints)
