"""A bound on how many do something at once: cursors with which snapshots read collections, requests for pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Hands out ``count`` turns, in the order in which they are asked for. ``waiting`` counts who waits for one."""

    def __init__(self, count: int) -> None:
        """Nobody has a turn yet."""
        self.count = count
        self.waiting = 0
        self._free = asyncio.Semaphore(count)

    @property
    def all_taken(self) -> bool:
        """Whether who asks now must wait."""
        return self._free.locked()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Have a turn for as long as the context lasts."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._free.release()
