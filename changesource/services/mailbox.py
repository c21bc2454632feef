"""What came over the channel layer and waits for one replica, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from changesource.stream.batches import Batch
from changesource.stream.continuity import Verdict, agrees, judge

# Beyond these the oldest are dropped: a gap, which is pulled from MongoDB.
MAX_BATCHES = 256
MAX_BYTES = 16 * 1024 * 1024


class Mailbox:
    """A bounded queue of batches. ``dropped`` counts what did not fit, ``skipped`` what held nothing new."""

    def __init__(self) -> None:
        """Start empty."""
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.skipped = 0

    def offer(self, batch: Batch, size: int) -> None:
        """Take a batch of ``size`` bytes; never blocks."""
        self._batches.append((batch, size))
        self._size += size
        while len(self._batches) > MAX_BATCHES or (self._size > MAX_BYTES and len(self._batches) > 1):
            _, dropped = self._batches.popleft()
            self._size -= dropped
            self.dropped += 1
        self._arrived.set()

    def connects(self, position: int, fingerprints: Mapping[str, str]) -> bool:
        """Return True where the layer leads on from ``position``: by a batch to send, or one that ends just there."""
        leads_on = any(
            batch.follows <= position <= batch.end and not batch.pull and agrees(batch, fingerprints)
            for batch, _ in self._batches
        )
        self._forget(position)
        return leads_on

    def take(self, position: int, fingerprints: Mapping[str, str]) -> Batch | None:
        """Return the first batch that can be sent now, wherever it lies; what holds nothing new is dropped."""
        self._forget(position)
        for entry in self._batches:
            if judge(position, entry[0], fingerprints) is Verdict.SEND:
                self._batches.remove(entry)
                self._size -= entry[1]
                return entry[0]
        return None

    def _forget(self, position: int) -> None:
        """Drop what ends at or before ``position``."""
        kept = deque(entry for entry in self._batches if entry[0].end > position)
        self.skipped += len(self._batches) - len(kept)
        self._batches = kept
        self._size = sum(size for _, size in kept)

    def clear(self) -> None:
        """Drop everything."""
        self._batches.clear()
        self._size = 0

    @property
    def waiting(self) -> bool:
        """Whether something is here."""
        return bool(self._batches)

    async def wait(self, seconds: float) -> bool:
        """Wait until something is here; False when nothing came for so long."""
        if not self._batches:
            self._arrived.clear()
            try:
                # Not wait_for: before Python 3.12 it forgets a cancellation that meets an arrival.
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
            except TimeoutError:
                return False
        return True
