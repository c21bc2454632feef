"""What one process shares among its connections: the source, the channel layer's subscriber, the compiled mapping."""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from time import monotonic

from channels.layers import get_channel_layer
from django.db import Error as DatabaseFailure

from changesource.conf import Settings, settings
from changesource.exceptions import (
    ConfigurationUnavailable,
    DatabaseDamaged,
    FingerprintChanged,
    MappingError,
    ResyncWanted,
    SettingError,
    SourceRefused,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.mapping.compiled import CompiledMapping
from changesource.metrics import WATCHERS, Reach
from changesource.protocol.request import StreamRequest
from changesource.services.bookkeeping import DATABASE_SECONDS, FaultLog, read, write
from changesource.services.configuration import Published, acurrent
from changesource.services.downstream import Send
from changesource.services.housekeeping import keep_house
from changesource.services.leadership import Leadership
from changesource.services.limits import Limits
from changesource.services.mending import Mending
from changesource.services.publisher import Publisher, group_of
from changesource.services.reloading import Reloading
from changesource.services.session import ReplicaSession
from changesource.services.subscriber import Subscriber
from changesource.services.turns import Turns
from changesource.services.watcher import Revision, Watcher
from changesource.sources.mongodb.source import MongoSource, servers_of
from changesource.store import watermarks
from changesource.stream.grouping import Bounds

logger = logging.getLogger(__name__)
WATCHER_NOTES_SECONDS = 1.0
MAX_AGE = 0.5
PREPARE_SECONDS = 60.0
READINESS_SECONDS = 1.0
PING_SECONDS = 2.0
OPLOG_SECONDS = 60.0
OPLOG_REFUSED_SECONDS = 3600.0


def mongodb_uri(chosen: Settings) -> str:
    """Return MONGODB_URI; ``SettingError`` where it is unset."""
    if not chosen.mongodb_uri:
        raise SettingError("MONGODB_URI is not set.")
    return chosen.mongodb_uri


class Runtime:
    """One process's shared parts. Belongs to one event loop."""

    def __init__(self, chosen: Settings) -> None:
        """Connects to nothing yet."""
        layer = get_channel_layer()
        self.settings = chosen
        self.source = MongoSource(
            mongodb_uri(chosen),
            chosen.mongodb_database,
            chosen.barrier_collection,
            snapshot_batch=chosen.snapshot_batch_rows,
            post_images=chosen.post_images,
        )
        group = group_of(*servers_of(mongodb_uri(chosen)), chosen.mongodb_database, chosen.barrier_collection)
        self.subscriber = Subscriber(layer, group)
        self.publisher = Publisher(layer, group)
        self.faults = FaultLog()
        self.limits = Limits(
            Bounds(chosen.group_max_rows, chosen.group_max_bytes, chosen.group_max_age_ms / 1000),
            chosen.keepalive_seconds,
            Turns(chosen.snapshot_cursors),
            chosen.snapshot_catch_up_seconds,
            backfill=chosen.snapshot_frames == "backfill",
        )
        self._revision: Revision | None = None
        self._published: Published | None = None
        self._unfit = ""  # why what is published is not served
        self._asked = -MAX_AGE
        self._prepared = -PREPARE_SECONDS
        self._preparing: asyncio.Task[None] | None = None
        self._readiness: tuple[float, ZerosourceError | None] = (-READINESS_SECONDS, None)
        self._resyncs: tuple[float, dict[tuple[str, int], str]] = (-MAX_AGE, {})

    async def revision(self) -> Revision:
        """Return what is published, compiled once, as of half a second ago.

        It is the last one while the database is away, and where what is published since is not valid here: another
        release may have taken it. Raises ``ConfigurationUnavailable`` before the first publishing, and ``MappingError``
        where nothing that is valid came before.
        """
        if self._revision is not None and monotonic() - self._asked < MAX_AGE:
            return self._revision
        self._asked = monotonic()
        try:
            # Once mappings are known, a database that hangs holds up nobody.
            async with asyncio.timeout(None if self._revision is None else DATABASE_SECONDS):
                published = await acurrent()
            self._revision, self._unfit = self._compiled(published), ""
        except MappingError as error:
            if self._revision is None:
                raise
            if str(error) != self._unfit:
                self._unfit = str(error)
                logger.error("what is published is not valid here, keeping the mappings", extra={"error": str(error)})
        except (DatabaseFailure, DatabaseDamaged, TimeoutError) as error:
            if self._revision is None:
                raise ConfigurationUnavailable(f"The database did not answer: {error}") from error
            logger.warning("database read failed, keeping the mappings", extra={"error": repr(error)})
        return self._revision

    def _compiled(self, published: Published | None) -> Revision:
        if published is None:
            raise ConfigurationUnavailable(
                "No table mappings have been published yet.",
                remedy="Map a table in the admin and press Publish there, or run manage.py importmappings FILE.",
            )
        if self._revision is not None and self._published == published:
            return self._revision
        mapping = CompiledMapping.compile(
            published.specification, self.settings.mongodb_database, self.settings.max_row_bytes
        )
        self._published = published
        return Revision(published.number, mapping)

    async def check_ready(self) -> None:
        """Raise ``ZerosourceError`` where replicas could not be served now; MongoDB is asked once a second at most."""
        await self.revision()
        asked, problem = self._readiness
        if monotonic() - asked >= READINESS_SECONDS:
            problem = await self._source_problem()
            self._readiness = (monotonic(), problem)
        if problem is not None:
            raise problem

    async def _source_problem(self) -> ZerosourceError | None:
        try:
            await self.source.ping(PING_SECONDS)
        except (SourceUnavailable, SourceRefused) as error:
            return error
        return None

    async def session(self, request: StreamRequest, send: Send) -> ReplicaSession:
        """Return a session for a connection; raises as ``revision`` does, and ``UnknownPublication``."""
        revision = await self.revision()
        fingerprint = revision.mapping.published(request.publications).fingerprint
        # Not awaited: a handshake has little time, and MongoDB may be slow or away.
        self._preparing = asyncio.create_task(self._prepare(revision), name="prepare")
        first = True

        async def may_go_on(replica_version: str) -> None:
            nonlocal revision, first
            newest = await self.revision()
            if newest != revision:
                if newest.mapping.published(request.publications).fingerprint != fingerprint:
                    raise FingerprintChanged()
                revision = newest
            # What is known may be from before an initial sync that has fulfilled the wish.
            fresh, first = first, False
            version = (await self._resyncs_wanted(fresh=fresh)).get((request.app_id, request.shard_num))
            # A replica of another version has synced since, even where the database could not take note of it.
            if version is not None and (not version or replica_version in ("", version)):
                raise ResyncWanted()

        return ReplicaSession(request, revision.mapping, self.source, self.subscriber, self.limits, send, may_go_on)

    async def _prepare(self, revision: Revision) -> None:
        """Prepare the source once a minute: the watcher that does it may live in another process."""
        if monotonic() - self._prepared >= PREPARE_SECONDS:
            self._prepared = monotonic()
            try:
                await self.source.prepare(revision.mapping.needs, revision.mapping.with_history)
            except (SourceRefused, SourceUnavailable) as error:
                logger.warning("collections were not prepared", extra={"error": str(error)})

    async def _resyncs_wanted(self, *, fresh: bool) -> dict[tuple[str, int], str]:
        """Return the replicas that operators asked to resync; unless ``fresh``, asked once for all sessions."""
        asked, known = self._resyncs
        if fresh or monotonic() - asked >= MAX_AGE:
            self._resyncs = (monotonic(), known)
            # What was known may be fulfilled by now: where it cannot be asked, nothing is wished.
            known = await read(watermarks.resyncs_wanted, {} if fresh else known)
            self._resyncs = (monotonic(), known)
        return known

    async def watch(self) -> None:
        """Run the watcher, in one process at a time, until cancelled.

        Where the channel layer is this process's own, others could not hear another's watcher: each has one then.
        """
        sign = monotonic()
        watcher: Watcher | None = None

        async def lead() -> None:
            nonlocal watcher
            watcher = self._watcher()
            await self._watch(watcher)

        seconds = self.settings.lease_seconds if self.settings.redis_url else None
        await Leadership("watcher", lead, lambda: watcher.last_sign if watcher is not None else sign, seconds).run()

    def _watcher(self) -> Watcher:
        return Watcher(
            self.source,
            self.publisher,
            self.revision,
            bounds=self.limits.bounds,
            keepalive=self.limits.keepalive,
            report=self.faults.report,
        )

    async def _watch(self, watcher: Watcher) -> None:
        """Run the watcher, with what it notes in the database."""
        WATCHERS.watcher = watcher
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watcher.run(), name="watcher")
                tasks.create_task(self.faults.run(), name="watcher-faults")
                tasks.create_task(self._note(watcher), name="watcher-notes")
                tasks.create_task(self._note_oplog(), name="oplog")
                tasks.create_task(Mending(self.source, self._mapping).run(), name="row-errors")
                tasks.create_task(keep_house(self.settings), name="housekeeping")
                tasks.create_task(Reloading(self.settings).run(), name="reloading")
        finally:
            WATCHERS.watcher = WATCHERS.oplog = None

    async def _mapping(self) -> CompiledMapping:
        return (await self.revision()).mapping

    async def _note(self, watcher: Watcher) -> None:
        noted = 0
        while True:
            await asyncio.sleep(WATCHER_NOTES_SECONDS)
            if watcher.position != noted:
                noted = watcher.position
                await write(watermarks.note_watcher, noted)

    async def _note_oplog(self) -> None:
        """For the metrics alone: the admin asks by itself."""
        while True:
            oplog, pause = None, OPLOG_SECONDS
            try:
                oplog = await self.source.oplog()
                if oplog is None:
                    # It may not be read, and each question is a line in MongoDB's log.
                    pause = OPLOG_REFUSED_SECONDS
            except ZerosourceError:
                pass  # of a MongoDB that does not answer others say so
            except Exception:
                # The watcher must not end for it.
                logger.exception("the oplog's window could not be read")
            WATCHERS.oplog = Reach(oplog.seconds, oplog.filled) if oplog else None
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections to MongoDB."""
        await self.source.close()


@lru_cache(maxsize=1)
def _runtime(loop: asyncio.AbstractEventLoop) -> Runtime:
    return Runtime(settings())


def runtime() -> Runtime:
    """Return the runtime of the running event loop."""
    return _runtime(asyncio.get_running_loop())
