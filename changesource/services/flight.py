"""What was sent to a zero-cache and is not acknowledged yet: a bound on it, and what follows from it after a reconnect.

zero-cache hands a transaction to its replica before it has stored it. Killed in between, its replica stands at a
watermark W that it does not name when it is back: it asks for what follows an earlier one. It refuses that replica for
good unless a commit at just W comes again. But where source transactions are joined, commits fall elsewhere the second
time. So after a reconnect each source transaction is a commit of its own, until all is past that may have been sent
before: at most what was on its way, which is bounded for this.
"""

from __future__ import annotations

import asyncio
from collections import deque

# Source transactions; enough that zero-cache, which stores some 9,000 a second, does not run dry for the way of an ack.
MOST = 2000
QUIET = 500  # source transactions without rows, after which an empty one says so
REFILLS = 4  # of so many transactions each is one of its own


class Flight:
    """Counts source transactions: ``on_its_way`` are not stored yet; ``singly`` says that none may be joined now."""

    def __init__(self, group: int) -> None:
        """``group`` is how many may be joined: at least two groups may be on their way."""
        self._most = max(MOST, 2 * group)
        self._commits: deque[tuple[str, int]] = deque()
        self.on_its_way = 0
        self._left = self._most
        self._changed = asyncio.Event()

    @property
    def singly(self) -> bool:
        """True after a reconnect, until ``caught_up``, or until as many were sent as may have been on their way."""
        return self._left > 0

    def caught_up(self) -> None:
        """All that there is has been sent, and so all that may have been sent before."""
        self._left = 0

    def refilled(self) -> None:
        """A transaction read tables anew, which may take long, and be wanted by each of many: few are singly then."""
        self._left = max(0, self._left - self._most // REFILLS)

    def sent(self, watermark: str, transactions: int) -> None:
        """A commit of so many source transactions was sent."""
        self._commits.append((watermark, transactions))
        self.on_its_way += transactions
        self._left = max(0, self._left - 1)

    def acked(self, watermark: str) -> None:
        """All commits up to ``watermark`` are stored."""
        while self._commits and self._commits[0][0] <= watermark:
            self.on_its_way -= self._commits.popleft()[1]
        self._changed.set()

    async def room(self, transactions: int) -> None:
        """Wait until so many more may go; any number may where nothing is on its way."""
        while self._commits and self.on_its_way + transactions > self._most:
            self._changed.clear()
            await self._changed.wait()
