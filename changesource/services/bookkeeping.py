"""Writes to the database beside the way of the data: throttled, and never in its way.

A database that is away costs what operators see, not what replicas get.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import Error as DatabaseFailure

from changesource.backoff import Backoff
from changesource.conf import settings
from changesource.exceptions import DatabaseDamaged
from changesource.mapping.compiled import RowFault
from changesource.metrics import ROW_ERRORS
from changesource.store import row_errors

logger = logging.getLogger(__name__)
INTERVAL = 1.0
MAX_FAULTS = 2000
# What hangs holds up nobody for longer.
DATABASE_SECONDS = 2.0
P = ParamSpec("P")
T = TypeVar("T")


async def write(action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Do ``action`` on the database in a thread; False, and a warning, where the database refuses or hangs."""
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            await database_sync_to_async(action)(*args, **kwargs)
    except (DatabaseFailure, DatabaseDamaged, TimeoutError) as error:
        logger.warning("database write failed", extra={"what": action.__name__, "error": repr(error)})
        return False
    return True


async def read(action: Callable[P, T], otherwise: T, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``action`` finds in the database; ``otherwise``, and a warning, where that refuses or hangs."""
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            found: T = await database_sync_to_async(action)(*args, **kwargs)
    except (DatabaseFailure, DatabaseDamaged, TimeoutError) as error:
        logger.warning("database read failed", extra={"what": action.__name__, "error": repr(error)})
        return otherwise
    return found


class FaultLog:
    """Collects row faults and writes them once a second; beyond 2,000 different ones a second they are counted."""

    def __init__(self) -> None:
        """Start empty."""
        self._faults: Counter[RowFault] = Counter()
        self.total = 0
        self.unlisted = 0

    def report(self, fault: RowFault) -> None:
        """Take note of a fault; never blocks."""
        self.total += 1
        ROW_ERRORS.labels(fault.table, "left_out" if fault.left_out else "nulled").inc()
        if fault in self._faults or len(self._faults) < MAX_FAULTS:
            self._faults[fault] += 1
        else:
            self.unlisted += 1

    async def flush(self) -> bool:
        """Write what was collected; False where the database refuses, and it is tried again with the next."""
        if not self._faults:
            return True
        faults, self._faults = self._faults, Counter()
        logger.warning("rows with errors", extra={"count": faults.total(), "tables": len({f.table for f in faults})})
        if await write(row_errors.record, faults, settings().max_row_errors):
            return True
        for fault, count in faults.items():
            if fault in self._faults or len(self._faults) < MAX_FAULTS:
                self._faults[fault] += count
            else:
                self.unlisted += count
        return False

    async def run(self) -> None:
        """Write once a second until cancelled, less often while the database refuses."""
        backoff = Backoff("row_errors", first=INTERVAL)
        while True:
            await asyncio.sleep(INTERVAL)
            if await self.flush():
                backoff.reset()
            else:
                await backoff.wait()
