"""Joins events into batches without ever splitting a MongoDB transaction.

A source transaction has provably ended where the next event has another cluster time *and* another transaction, or
where the server answered, after its last event, that it has nothing more. The end of a driver's batch proves
nothing. Ended transactions are joined while more are at hand (zero-cache pays per transaction), up to the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

from changesource.stream.batches import Batch, BatchBuilder
from changesource.stream.events import Event

TableChanges = Iterable[tuple[str, list[bytes] | None]]


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

    def add(self, event: Event, changes: TableChanges, refill: Iterable[str] = ()) -> Iterator[Batch]:
        """Add one event with the frames it makes; give the batches that are complete now."""
        if self._open_time and self._begins_another(event):
            yield from self._close()
        if not self.waiting:
            self._since = self._clock()
        self._open_time, self._open_transaction = event.cluster_time, event.transaction
        self._open.touch(event.cluster_time)
        for table, frames in changes:
            self._open.add(event.cluster_time, table, frames)
        self._open.refill(refill, event.cluster_time)
        if self._over(self._open):
            yield from self._stream()

    def let_go(self) -> Iterator[Batch]:
        """Give the whole transactions that wait for company; what comes after them cannot be told."""
        if self._closed:
            yield self._flush()

    def nothing_more(self) -> Iterator[Batch]:
        """The server has nothing more at hand, so whatever is open has ended."""
        yield from self._close()
        if self._closed:
            yield self._flush()

    def _begins_another(self, event: Event) -> bool:
        if event.cluster_time == self._open_time:
            return False
        return event.transaction is None or event.transaction != self._open_transaction

    def _over(self, builder: BatchBuilder) -> bool:
        many = max(builder.rows, builder.transactions) >= self._bounds.rows
        return many or builder.size >= self._bounds.size

    def _close(self) -> Iterator[Batch]:
        """Move the open transaction to the closed ones."""
        if self._streaming:
            self._open.touch(self._open_time)
            yield self._open.build()
            self._streaming = False
            self._closed = BatchBuilder(self._open_time, self._fingerprints)
        elif self._open:
            joint = self._closed.rows + self._open.rows, self._closed.size + self._open.size
            if self._closed and (joint[0] > self._bounds.rows or joint[1] > self._bounds.size):
                yield self._flush()
            self._closed.append(self._open)
            if self._over(self._closed) or self._singly() or self._clock() - self._since >= self._bounds.age:
                yield self._flush()
        self._open = BatchBuilder(self._open_time, self._fingerprints)
        self._open_time = 0

    def _flush(self) -> Batch:
        batch = self._closed.build()
        self._closed = BatchBuilder(batch.end, self._fingerprints)
        self._since = self._clock()
        return batch

    def _stream(self) -> Iterator[Batch]:
        """Let go of a part of one transaction that is larger than a batch may be."""
        if self._closed:
            yield self._flush()
        self._streaming = True
        self._open.follows = self._closed.follows
        yield self._open.build(final=False)
        self._open = BatchBuilder(self._closed.follows, self._fingerprints)
