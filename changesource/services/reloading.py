"""Reads SCHEMA_* and TABLE_MAPPINGS_* again and again, so that what changes there takes effect without a restart.

What cannot be used changes nothing: the last good one is served on, and operators are told.
"""

from __future__ import annotations

import asyncio
import logging
from time import time
from typing import Final

from django.db import Error as DatabaseFailure
from django.db import connection

from changesource.conf import Settings
from changesource.exceptions import DatabaseUnavailable, ZerosourceError
from changesource.metrics import RELOADS
from changesource.models import ManagedReading
from changesource.services.asking import Question
from changesource.services.config_files import ManagedSources, shown_origin
from changesource.services.configuration import hash_of, noting_failure, serve_managed
from changesource.services.inspection import inspector
from changesource.store import mappings, readings
from changesource.store.readings import Result

logger = logging.getLogger(__name__)
MAX_TOLD: Final = 100


def until_next(seconds: int, now: float) -> float:
    """Return how long it is until the next moment at which every process reads, by the clock (Unix time).

    Processes that share no database serve other mappings for as short a time so, and a replica that one of them resets
    does not sync by the old ones of another.
    """
    return seconds - now % seconds


class Reloading:
    """One process's. A fault is logged when it is met first, and again only after all was well."""

    def __init__(self, chosen: Settings) -> None:
        """Reads nothing yet."""
        self._chosen = chosen
        self._sources = ManagedSources(chosen)
        self._settled = False
        self._content_hash = ""
        self._told: set[str] = set()
        # In a thread of its own, which ends with the process: a download may take long, and the resolving of names for
        # ever.
        self._question = Question(self._in_thread, 0.0)

    async def run(self) -> None:
        """Do it every RELOAD_SECONDS, until cancelled; return at once where there is nothing to do."""
        if not (self._chosen.has_managed_source and self._chosen.reload_seconds):
            return
        while True:
            await asyncio.sleep(until_next(self._chosen.reload_seconds, time()))
            # Shielded: a thread that is not waited for any more finds its future as it was.
            await asyncio.shield(asyncio.wrap_future(self._question.begin()))

    def _in_thread(self) -> None:
        try:
            self.once()
        except Exception:
            # Replicas must not be left alone for it.
            logger.exception("reloading failed, and is tried again")
        finally:
            connection.close()

    def once(self) -> ManagedReading.Result:
        """Read once, and serve what is new; return what came of it. Raises nothing that may happen."""
        result = Result.FAILED
        try:
            result = self._reload()
        except ZerosourceError as error:
            self._tell_failure(error)
        except DatabaseFailure as error:
            self._tell_failure(DatabaseUnavailable.of(error))
        if result is Result.OLDER and result not in self._told:
            logger.warning(
                "managed mappings are older ones that were replaced; manage.py reloadmappings brings them back"
            )
            self._told.add(result)
        self._settled = result in readings.WELL
        if self._settled and self._told:
            logger.info("managed mappings can be used again")
            self._told.clear()
        RELOADS.labels(result).inc()
        return result

    def _tell_failure(self, error: ZerosourceError) -> None:
        if str(error) not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(str(error))
            logger.warning(
                "managed mappings cannot be used, keeping the last ones",
                extra={"code": error.code, "why": error.message},
            )

    def _reload(self) -> ManagedReading.Result:
        since = mappings.latest_content()
        with noting_failure():
            self._read()
            if self._settled and self._content_hash == mappings.latest_content():
                readings.note(Result.UNCHANGED)
                return Result.UNCHANGED
            # It is new, or another process gave another one, or the database was restored.
            spec = self._sources.specification()
        self._content_hash = hash_of(spec)
        return serve_managed(spec, shown_origin(self._chosen), inspector(), since=since)

    def _read(self) -> None:
        changed = self._sources.read()
        # Before more is read, which may fail.
        self._settled = self._settled and not changed
        if changed:
            self._sources.read_until_of_one_moment()
