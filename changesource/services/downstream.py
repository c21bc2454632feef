"""Writes whole transactions to one replica, in order, at watermarks that rise strictly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from time import time

from changesource.framing import PIECE_BYTES
from changesource.metrics import ROWS, TRANSACTION_ROWS, TRANSACTIONS
from changesource.protocol import messages
from changesource.protocol.watermark import Watermark
from changesource.services.flight import QUIET, Flight
from changesource.stream.batches import Batch

RELIEF_BYTES = 64 * 1024 * 1024
STREAMED = ROWS.labels("stream")
Send = Callable[[Sequence[bytes]], Awaitable[None]]
"""Sends frames, each the UTF-8 of a text message."""


class Downstream:
    """One replica's connection, as a sequence of transactions.

    ``position`` is the cluster time up to which the replica has everything; ``committed`` is the watermark of its
    last commit. ``anchor`` is where reading may resume: that of the last event of its own tables or of a barrier, so
    at or before ``position``, which may be that of an event of tables that only the watcher knows. ``lag`` is how old
    the last commit of a batch was when it was sent, in seconds. ``rows`` counts those of batches.
    """

    def __init__(
        self,
        send: Send,
        fingerprint: int,
        tables: Collection[str],
        position: int,
        relief: bytes = b"",
        flight: Flight | None = None,
    ) -> None:
        """``tables`` are those that the replica gets, by name; ``send`` waits while the reader is slow.

        ``relief`` is sent after every 64 MiB of one transaction, see ``TableFrames.relief``. ``flight`` bounds what
        goes out by batches before it is acknowledged, and says whether they may hold several source transactions.
        """
        self._send = send
        self._fingerprint = fingerprint
        self._tables = tables
        self._relief = relief
        self._flight = flight
        self._transactions = 0
        self._unrelieved = 0
        self._rows_before = 0
        self._time_ms = 0
        self._open: Watermark | None = None
        self.position = position
        self.anchor = position
        self.committed = Watermark(position, fingerprint)
        self.commits = 0
        self.rows = 0
        self.lag: float | None = None

    @property
    def open(self) -> bool:
        """True while a transaction has begun and not ended."""
        return self._open is not None

    @property
    def opened(self) -> Watermark:
        """The watermark of the open transaction; ``RuntimeError`` outside one."""
        if self._open is None:
            raise RuntimeError("no transaction is open")
        return self._open

    async def begin(self, cluster_time: int) -> Watermark:
        """Open a transaction that will commit at ``cluster_time``."""
        await self._send([self._begin(cluster_time)])
        return self.opened

    async def frames(self, frames: Iterable[bytes]) -> None:
        """Send data frames within the transaction."""
        if given := list(frames):
            await self._send(self._relieved(given))

    async def commit(self) -> None:
        """Commit the open transaction."""
        if self._open is not None:
            await self._end([])

    async def rollback(self) -> None:
        """Drop a half-sent transaction; its watermark may be used again."""
        self._transactions = 0
        if self._open is not None:
            self._open = None
            await self._send([messages.rollback()])

    def _begin(self, cluster_time: int, time_ms: int = 0) -> bytes:
        self._open = Watermark(cluster_time, self._fingerprint)
        self._time_ms = time_ms
        self._unrelieved = 0
        self._rows_before = self.rows
        return messages.begin(self._open)

    def _relieved(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Return the frames, with ``relief`` among them where it is due."""
        size = sum(map(len, frames))
        if not self._relief or self._unrelieved + size <= RELIEF_BYTES:
            self._unrelieved += size
            return frames
        found: list[bytes] = []
        for frame in frames:
            if self._unrelieved + len(frame) > RELIEF_BYTES:
                found.append(self._relief)
                self._unrelieved = 0
            self._unrelieved += len(frame)
            found.append(frame)
        return found

    async def _end(self, frames: list[bytes]) -> None:
        """Send the last frames of the open transaction, and its commit."""
        if sum(map(len, frames)) > PIECE_BYTES:
            # It may take long, and be cancelled: then there is something to roll back.
            await self._send(frames)
            frames = []
        # First: what is awaited may be cancelled, and a commit that was sent cannot be rolled back.
        self.committed, self._open = self.opened, None
        if self._flight is not None:
            self._flight.sent(str(self.committed), self._transactions)
        self._transactions = 0
        await self._send([*frames, messages.commit(self.committed, self._time_ms)])
        self.lag = max(0.0, time() - (self._time_ms / 1000 or (self.committed.cluster_time >> 32)))
        self.commits += 1
        TRANSACTIONS.inc()

    async def batch(self, batch: Batch, *, commit: bool = True) -> None:
        """Send the replica's part of a batch; nothing where it has none and no barrier keeps it fresh.

        With ``commit`` off, the transaction is left open (and opened, if need be) for more of the caller's.
        """
        selection = batch.pieces(self.position, self._tables)
        flight = self._flight
        # Once joined with others, what moved no row was a watermark all the same.
        singly = flight is not None and flight.singly
        if self._open is None or self._open.cluster_time != selection.position:
            self._transactions += selection.transactions
        said = selection.barrier or (selection.position > 0 and (singly or self._transactions >= QUIET))
        # In one piece, since each that is sent costs as much as some rows.
        frames: list[bytes] = []
        if selection.frames or (said and batch.final) or not commit:
            if self._open is None:
                if flight is not None:
                    await flight.room(self._transactions)
                # The cluster time, which every event has, counts whole seconds.
                frames = [self._begin(selection.position, batch.time_ms or (selection.position >> 32) * 1000)]
            frames += self._relieved(selection.frames)
            self.rows += len(selection.frames)
            STREAMED.inc(len(selection.frames))
        if not (batch.final and commit):
            if frames:
                await self._send(frames)
            return
        if self._open is not None:
            await self._end(frames)
            TRANSACTION_ROWS.observe(self.rows - self._rows_before)
        self.reached(batch.end, max(selection.position, self.committed.cluster_time))

    def reached(self, position: int, anchor: int) -> None:
        """Note that the replica has everything up to ``position``, and can be read on from ``anchor``."""
        self.position = max(self.position, position)
        self.anchor = max(self.anchor, anchor)
