"""What the live page is sent: excerpts of the batches that come over the channel layer.

A page is sent a message when it asks for one, and asks again once it has shown it. What comes meanwhile waits in
bounded memory; beyond that the oldest is dropped and counted. So a page that reads slowly, or not at all, holds up
nobody, under any server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import orjson

from changesource.services.subscriber import Subscriber
from changesource.stream.batches import Batch
from changesource.stream.excerpt import Excerpt, Wanted

MAX_BATCHES = 64
MAX_BYTES = 4 * 1024 * 1024
# With at most 50 lines each, 200 changes a second.
MESSAGE_SECONDS = 0.25
# With nothing to show, the rate is told.
IDLE_SECONDS = 1.0


class LiveFeed:
    """The changes that one open page is sent. ``wanted`` and ``paused`` may be set at any time."""

    def __init__(self, keepalive: float, silent_for: float) -> None:
        """``keepalive`` is the seconds between heartbeats; ``silent_for`` those since a watcher last moved on."""
        self.wanted = Wanted()
        self.paused = False
        self._silence = 2 * keepalive + 1
        self._heard = monotonic() - silent_for
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = self._position = self._missed = self._dropped = 0
        self._arrived = asyncio.Event()
        self._sent = -MESSAGE_SECONDS
        self._changes, self._rate, self._rated = 0, 0.0, monotonic()

    @contextmanager
    def attached(self, subscriber: Subscriber) -> Iterator[None]:
        """Be filled for as long as the context lasts."""
        subscriber.attach(self)
        try:
            yield
        finally:
            subscriber.detach(self)

    def offer(self, batch: Batch, size: int) -> None:
        """Take a batch of ``size`` bytes; never blocks."""
        self._heard = monotonic()
        self._changes += len(batch.frames)
        self._batches.append((batch, size))
        self._size += size
        while len(self._batches) > MAX_BATCHES or (self._size > MAX_BYTES and len(self._batches) > 1):
            self._drop(*self._batches.popleft())
        self._arrived.set()

    def _drop(self, batch: Batch, size: int) -> None:
        self._size -= size
        table = self.wanted.table
        self._dropped += sum(count for time, name, count in batch.runs if time > self._position and table in ("", name))
        self._position = max(self._position, batch.end)

    async def message(self) -> bytes:
        """Wait for something to show, a second at most, and return it as JSON.

        ``lines`` are those of ``Excerpt``; ``filter`` is what they were chosen by; ``missed`` is how many wanted
        changes were not shown since the page was opened; ``rate`` is all changes a second; ``heard`` is whether a
        watcher is.
        """
        await asyncio.sleep(self._sent + MESSAGE_SECONDS - monotonic())
        if not self._batches:
            self._arrived.clear()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                pass  # what is told then is the rate
        wanted, paused = self.wanted, self.paused
        excerpt = Excerpt(wanted, paused=paused)
        await self._fill(excerpt)
        self._missed += excerpt.missed
        self._sent = monotonic()
        return orjson.dumps(
            {
                "lines": excerpt.lines,
                "filter": {"table": wanted.table, "key": wanted.key, "paused": paused},
                "missed": self._missed,
                "rate": self._rate_now(),
                "heard": monotonic() - self._heard < self._silence,
            }
        )

    async def _fill(self, excerpt: Excerpt) -> None:
        # Those that come meanwhile wait for the next.
        for _ in range(len(self._batches)):
            excerpt.miss(self._dropped)
            self._dropped = 0
            if not self._batches:
                break
            batch, size = self._batches.popleft()
            self._size -= size
            excerpt.add(batch, self._position)
            self._position = max(self._position, batch.end)
            # One batch takes some milliseconds at most; others may have something to do.
            await asyncio.sleep(0)

    def _rate_now(self) -> float:
        """All changes a second, over the last second or so."""
        seconds = monotonic() - self._rated
        if seconds >= IDLE_SECONDS:
            self._rate, self._changes, self._rated = round(self._changes / seconds, 1), 0, monotonic()
        return self._rate
