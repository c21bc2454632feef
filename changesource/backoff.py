"""Waiting between tries: exponential, with jitter, so that many processes do not come back at once."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from changesource.metrics import RETRIES, Retry


@dataclass
class Backoff:
    """Seconds between tries double from ``first`` to ``longest``; each wait is half of that to all of it.

    ``what`` is what is tried again, by which the tries are counted for Prometheus.
    """

    what: Retry
    first: float = 0.1
    longest: float = 10.0
    tries: int = 0

    def next_delay(self) -> float:
        """Return how long to wait now, in seconds, and count the try."""
        limit: float = min(self.longest, self.first * 2 ** min(self.tries, 30))
        self.tries += 1
        RETRIES.labels(self.what).inc()
        return limit * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self.next_delay())

    def block(self) -> None:
        """Wait before the next try where nothing else is to be done meanwhile: outside an event loop."""
        time.sleep(self.next_delay())

    def reset(self) -> None:
        """A try succeeded."""
        self.tries = 0
