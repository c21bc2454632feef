"""The watcher: one change stream for the whole deployment, published to the channel layer for every replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic, time
from weakref import WeakKeyDictionary

from changesource import tracing
from changesource.backoff import Backoff
from changesource.exceptions import (
    CollectionRefused,
    PostImagesMissing,
    ResetRequired,
    SourceRefused,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.mapping.compiled import CompiledMapping, Report
from changesource.services.publisher import Publisher
from changesource.services.replay import batches
from changesource.services.traces import Times, batch_trace
from changesource.sources.base import ChangeSource
from changesource.stream.batches import BARRIER, Batch
from changesource.stream.grouping import Bounds
from changesource.stream.transform import Transform

logger = logging.getLogger(__name__)
HEARTBEAT = "heartbeat"
IDLE_MS = 500
# With what it waits for the stream (IDLE_MS), a new revision is taken up within two seconds.
REVISION_SECONDS = 0.5


def age_of(cluster_time: int) -> int:
    """How long ago it was, in whole seconds, which are all that a cluster time has."""
    return max(0, int(time()) - (cluster_time >> 32))


def is_late(age: float, keepalive: float) -> bool:
    """Whether heartbeats are overdue where the last thing that came is so old: the way is not alive."""
    return age > 2 * keepalive + 1


_written: WeakKeyDictionary[ChangeSource, float] = WeakKeyDictionary()


async def heartbeat(source: ChangeSource, keepalive: float) -> None:
    """Write one, unless this process wrote one just now: every replica that reads by itself wants one, and gets all.

    Where MongoDB takes no writes for now, what it has can be read all the same.
    """
    now = monotonic()
    if now - _written.get(source, -keepalive) < keepalive / 2:
        return
    _written[source] = now
    try:
        await source.mark(HEARTBEAT)
    except (SourceUnavailable, SourceRefused) as error:
        logger.warning("heartbeat not written", extra={"error": str(error)})


@dataclass(frozen=True, eq=False)
class Revision:
    """A compiled mapping and the number of the revision that it was compiled from.

    Compared by identity: in a database that was restored, another one may have the same number.
    """

    number: int
    mapping: CompiledMapping


class Watcher:
    """Publishes what happens from now on. What was before, replicas read themselves.

    ``position`` is the cluster time up to which everything was published, 0 before the first barrier; ``last_sign`` is
    when, by ``monotonic``, it was last seen to do something.
    """

    def __init__(
        self,
        source: ChangeSource,
        publisher: Publisher,
        revision: Callable[[], Awaitable[Revision]],
        *,
        bounds: Bounds,
        keepalive: float,
        report: Report,
    ) -> None:
        """``revision`` gives what is published now; ``keepalive`` is in seconds."""
        self._source = source
        self._publisher = publisher
        self._revision = revision
        self._bounds = bounds
        self._keepalive = keepalive
        self._report = report
        self._backoff = Backoff("watcher")
        self._last_barrier = 0.0
        self._too_large = False
        self._lag: float | None = None
        self._times: Times | None = None
        self.position = 0
        self.last_sign = monotonic()

    async def run(self) -> None:
        """Watch until cancelled. Faults are logged and retried; a revision that changed is taken up."""
        while True:
            self.last_sign = monotonic()
            try:
                await self._watch()
            except ResetRequired as error:
                # Replicas that need what is gone find out themselves; publishing goes on from now.
                logger.warning("watcher lost its place, going on from now", extra={"error": str(error)})
                self.position = 0
                await self._backoff.wait()
            except ZerosourceError as error:
                logger.warning("watcher retries", extra={"error": str(error), "tries": self._backoff.tries})
                await self._backoff.wait()
            except Exception:
                logger.exception("watcher failed, and tries again", extra={"tries": self._backoff.tries})
                await self._backoff.wait()

    async def _watch(self) -> None:
        """Publish until the revision changes."""
        revision = await self._revision()
        await self._prepare(revision)
        if not self.position:
            self.position = await self._source.barrier("watcher")
            # What was before it, replicas read themselves, and at once: nothing else would tell them.
            announcement = Batch(self.position, self.position, revision.mapping.fingerprints, pull=True)
            await self._publisher.publish(announcement)
        self._too_large = False
        self._last_barrier = monotonic()
        logger.info("watching", extra={"revision": revision.number, "position": self.position})
        # Beside the stream, which must not wait for the database.
        superseded = asyncio.create_task(self._superseded(revision), name="watcher-revision")
        transform = Transform(revision.mapping, self._report, withholds=True)
        self._times = Times(self._source) if tracing.enabled() else None
        stream = batches(
            self._times or self._source,
            transform,
            revision.mapping.needs,
            self.position,
            bounds=self._bounds,
            idle_ms=min(IDLE_MS, int(self._keepalive * 500)),
        )
        try:
            async with aclosing(stream):
                async for batch in stream:
                    if batch is not None:
                        await self._publish(batch)
                        self._backoff.reset()
                        if batch.refill:
                            # A collection was made anew, perhaps, without what was switched on.
                            await self._prepare(revision)
                    now = self.last_sign = monotonic()
                    if now - self._last_barrier >= self._keepalive:
                        self._last_barrier = now
                        await heartbeat(self._source, self._keepalive)
                        await self._prepare(revision)
                    if superseded.done():
                        superseded.result()
                        # Another set of collections: a position in it must be one of its own, so a new barrier.
                        self.position = 0
                        return
        finally:
            superseded.cancel()

    async def _superseded(self, revision: Revision) -> None:
        """Return once another revision is published."""
        while True:
            if await self._revision() != revision:
                return
            await asyncio.sleep(REVISION_SECONDS)

    async def _prepare(self, revision: Revision) -> None:
        """Again and again, since a collection that was made anew lacks what was switched on in the one before."""
        try:
            await self._source.prepare(revision.mapping.needs, revision.mapping.with_history)
        except (CollectionRefused, PostImagesMissing) as error:
            # The other tables are served.
            logger.warning("a collection cannot be watched", extra={"error": str(error)})

    async def _publish(self, batch: Batch) -> None:
        if not batch.final:
            self._too_large = True
            return
        if batch.runs and batch.runs[-1][1] == BARRIER:
            self._last_barrier = monotonic()
        if self._too_large:
            # A transaction that is too large for the layer is only announced; replicas read it themselves.
            batch = Batch(self.position, batch.end, batch.fingerprints, pull=True, time_ms=batch.time_ms)
            self._too_large = False
        with batch_trace(batch, self._times):
            await self._publisher.publish(batch)
        self.position = batch.end
        self._lag = max(0.0, time() - batch.time_ms / 1000) if batch.time_ms else age_of(self.position)

    def lag(self) -> float | None:
        """How old the last change was when it was published, in seconds; how old it is, if heartbeats are overdue."""
        age = age_of(self.position)
        return age if self.position and is_late(age, self._keepalive) else self._lag
