"""Lets the rest of the process go on while much is mapped."""

from __future__ import annotations

import asyncio
from time import monotonic

AT_MOST = 0.02  # seconds


class Pause:
    """Gives the event loop to others where it was held for long, from now on."""

    def __init__(self) -> None:
        """Begin to count."""
        self._since = monotonic()

    async def if_due(self) -> None:
        """Let others go on, if they have waited for more than 20 ms; cheap if not."""
        if monotonic() - self._since > AT_MOST:
            await asyncio.sleep(0)
            self._since = monotonic()
