"""One of several processes leads: it runs a task, as long as it renews its lease and the task shows signs of life.

Two that lead at once, since one was paused, or cut off from the database, must do no harm: the task has to bear that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable
from time import monotonic

from changesource.backoff import Backoff
from changesource.metrics import LEADER
from changesource.services.bookkeeping import read
from changesource.store import leases

logger = logging.getLogger(__name__)
# Seconds without a sign of life after which a task counts as stuck.
STUCK_SECONDS = 60.0
RENEWALS = 3  # in the time after which a lease counts as given up


class Leadership:
    """Runs ``lead`` in one process at a time. ``leads`` says whether that is this one."""

    def __init__(
        self, name: str, lead: Callable[[], Awaitable[None]], last_sign: Callable[[], float], seconds: float | None
    ) -> None:
        """``last_sign`` gives the time, by ``monotonic``, of the task's last sign of life.

        ``seconds`` is how long a leader is waited for that does not renew its lease; None where no other process could
        lead, so that this one always does.
        """
        self._name = name
        self._lead = lead
        self._last_sign = last_sign
        self._seconds = seconds
        self._holder = f"{socket.gethostname()[:40]}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._token = 0
        self.leads = False

    async def run(self) -> None:
        """Wait for the lease and lead, again and again, until cancelled; raises what ``lead`` raises."""
        while True:
            if self._seconds is not None:
                await self._acquire(self._seconds)
            task = asyncio.ensure_future(self._lead())
            self.leads = True
            LEADER.set(1)
            try:
                await self._keep(task)
            finally:
                self.leads = False
                LEADER.set(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self._release()
            if self._seconds is not None:
                # Whoever waits goes first: what made this one give up may not have passed.
                await asyncio.sleep(self._seconds)

    async def _acquire(self, seconds: float) -> None:
        """Return once the lease is ours: it was free, or its holder has not renewed it for ``seconds``."""
        seen: leases.Seen | None = None
        since = monotonic()
        backoff = Backoff("lease", first=seconds / RENEWALS / 2, longest=seconds)
        while True:
            found = await read(leases.look, None, self._name)
            if found is None:
                # While the database is away its holder cannot renew it either.
                seen = None
                await backoff.wait()
                continue
            backoff.reset()
            if found != seen:
                if found.holder and (seen is None or seen.holder != found.holder):
                    logger.info("standing by", extra={"lease": self._name, "leader": found.holder})
                seen, since = found, monotonic()
            if (not found.holder or monotonic() - since >= seconds) and await self._take(found):
                logger.info("leading", extra={"lease": self._name, "before": found.holder or "nobody"})
                return
            await asyncio.sleep(seconds / RENEWALS / 2)

    async def _take(self, found: leases.Seen) -> bool:
        taken = await read(leases.take, False, self._name, self._holder, found.token)
        self._token = found.token + 1
        return taken

    async def _keep(self, task: asyncio.Future[None]) -> None:
        """Return once the lease is lost or the task is stuck; raises what the task raises."""
        started = monotonic()
        while True:
            await asyncio.wait([task], timeout=(self._seconds or STUCK_SECONDS) / RENEWALS)
            if task.done():
                task.result()
                return
            silent = monotonic() - max(started, self._last_sign())
            if silent >= STUCK_SECONDS:
                logger.error("stuck, giving up the lead", extra={"lease": self._name, "seconds": round(silent)})
                return
            if self._seconds is not None and not await self._renew():
                logger.warning("lost the lead", extra={"lease": self._name})
                return

    async def _renew(self) -> bool:
        """False where another leads. While the database is away nobody else can."""
        if await read(leases.take, False, self._name, self._holder, self._token):
            self._token += 1
            return True
        # An earlier renewal may have been written although no answer came.
        found = await read(leases.look, None, self._name)
        if found is None:
            return True
        self._token = found.token
        return found.holder == self._holder

    async def _release(self) -> None:
        if self._seconds is not None:
            await read(leases.release, None, self._name, self._holder, self._token)
