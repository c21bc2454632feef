"""What came over the channel layer and waits for one replica, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from changesource.stream.batches import Batch
from changesource.stream.continuity import Verdict, judge

# Beyond these the oldest are dropped: a gap, which is pulled from MongoDB.
MAX_BATCHES = 256
MAX_BYTES = 16 * 1024 * 1024


class Mailbox:
    """A bounded queue of batches. ``dropped`` counts what did not fit."""

    def __init__(self) -> None:
        """Start empty."""
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self.dropped = 0

    def offer(self, batch: Batch, size: int) -> None:
        """Take a batch of ``size`` bytes; never blocks."""
        self._batches.append((batch, size))
        self._size += size
        while len(self._batches) > MAX_BATCHES or (self._size > MAX_BYTES and len(self._batches) > 1):
            self._take()
            self.dropped += 1
        self._arrived.set()

    def connects(self, position: int, fingerprints: Mapping[str, str]) -> bool:
        """Return True if a batch here can be sent to a replica that has all up to ``position``."""
        while self._batches and self._batches[0][0].end <= position:
            self._take()
        return any(judge(position, batch, fingerprints) is Verdict.SEND for batch, _ in self._batches)

    async def get(self, timeout: float) -> Batch | None:  # noqa: ASYNC109 - silence is an answer here, not an error
        """Return the next batch, or None when nothing came for ``timeout`` seconds."""
        if not self._batches:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout)
            except TimeoutError:
                return None
        return self._take()

    def put_back(self, batch: Batch) -> None:
        """Return a batch that could not be used yet."""
        self._batches.appendleft((batch, 0))

    def _take(self) -> Batch:
        batch, size = self._batches.popleft()
        self._size -= size
        return batch
