"""Drops, once an hour, what ``store.history`` says is not needed."""

from __future__ import annotations

import asyncio
import logging

from changesource.conf import Settings
from changesource.services.bookkeeping import read
from changesource.store import history

logger = logging.getLogger(__name__)
INTERVAL = 3600.0


async def keep_house(chosen: Settings) -> None:
    """Do it now and once an hour, until cancelled."""
    while True:
        pruned = await read(history.prune, None, chosen.max_revisions, chosen.max_history)
        if pruned and any(pruned):
            logger.info("history pruned", extra=pruned._asdict())
        await asyncio.sleep(INTERVAL)
