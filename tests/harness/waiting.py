"""Waiting for a condition within one event loop, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE = 20.0


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Return as soon as ``condition`` holds; ``TimeoutError`` where it does not within ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
