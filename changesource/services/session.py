"""One replica's connection, from its first frame to its last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn

from changesource import tracing
from changesource.backoff import Backoff
from changesource.exceptions import (
    AccessRefused,
    FingerprintChanged,
    ResetRequired,
    SourceRefused,
    SourceUnavailable,
    TableStopped,
    WatermarkInvalid,
    ZerosourceError,
)
from changesource.mapping.compiled import CompiledMapping
from changesource.metrics import (
    BATCHES,
    CATCH_UPS,
    REPLICAS,
    RESETS,
    SNAPSHOTS_BEGUN,
    SNAPSHOTS_DONE,
    CatchUp,
    CopyFigures,
    ReplicaFigures,
)
from changesource.protocol import messages
from changesource.protocol.request import StreamRequest
from changesource.protocol.watermark import Watermark
from changesource.services.bookkeeping import FaultLog, read, write
from changesource.services.correcting import correct
from changesource.services.downstream import Downstream, Send
from changesource.services.filling import Filling
from changesource.services.flight import Flight
from changesource.services.initial_sync import InitialSync
from changesource.services.limits import Limits
from changesource.services.mailbox import Mailbox
from changesource.services.progress import CopyProgress, Pace
from changesource.services.replay import batches
from changesource.services.subscriber import Subscriber
from changesource.services.traces import CatchUpTrace, Deliveries, Times, batch_trace
from changesource.services.watcher import age_of, heartbeat, is_late
from changesource.sources.base import ChangeSource
from changesource.store import watermarks
from changesource.stream.batches import Batch
from changesource.stream.transform import Corrections, Transform

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 1.0
PROGRESS_AGAIN_SECONDS = 10.0
PACE_SECONDS = 10.0
# With what a process knows of the database for half a second, an edit reaches a replica within two.
OVERSIGHT_SECONDS = 0.5
PULL_IDLE_MS = 500
FROM_LAYER, FROM_MONGODB = BATCHES.labels("layer"), BATCHES.labels("mongodb")

Guard = Callable[[], Coroutine[None, None, NoReturn]]


def _first(group: BaseExceptionGroup[ZerosourceError]) -> ZerosourceError:
    """Return the first error of a group, however deep it lies."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, ZerosourceError):
        raise TypeError(error)
    return error


@dataclass
class Tallies:
    """What a connection has done; for the log, the tests and the metrics."""

    sent: int = 0
    gaps: int = 0
    silences: int = 0
    pulled: int = 0


class ReplicaSession:
    """Serves one connection: the initial sync, or all that comes after ``lastWatermark``.

    It reads MongoDB itself until a batch of the channel layer connects to what was sent, and again whenever one is
    missing. So it is exact whatever the layer loses, and with no watcher at all.
    """

    def __init__(
        self,
        request: StreamRequest,
        whole: CompiledMapping,
        source: ChangeSource,
        subscriber: Subscriber,
        limits: Limits,
        send: Send,
        may_go_on: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """``whole`` is the published mapping, of which the request names a part (``UnknownPublication``).

        ``may_go_on`` is asked of the replica's version, before streaming and twice a second while that or a snapshot
        lasts; it raises ``ResetRequired`` where the mappings have changed or an operator wishes it.
        """
        self.request = request
        self.tallies = Tallies()
        self.faults = FaultLog()
        self.mailbox = Mailbox()
        self._whole = whole
        self._mapping = whole.published(request.publications)
        self._source = source
        self._subscriber = subscriber
        self._limits = limits
        self._send = send
        self._may_go_on = may_go_on
        # Whether its API key was no good any more.
        self.locked_out = False
        self._acked = ""
        self._state = self._state_before = "connected"
        self._pulls = False
        self._message = ""
        self._downstream: Downstream | None = None
        self._flight = Flight(limits.bounds.rows)
        self._deliveries = Deliveries(request.app_id, request.shard_num)
        self._progress: CopyProgress | None = None
        self._copied_before = 0
        self._rows_noted = 0
        self._pace = Pace(PACE_SECONDS)
        self._corrections: Corrections = {}
        # Collections that the open transaction says must be read again, once it is whole.
        self._to_refill: set[str] = set()
        # Up to where tables that were filled anew show everything, though the watermarks up to there come again; with
        # their rows, if a replica may be ahead that took nothing of what filled them.
        self._shown = 0
        self._shown_again = False

    def ack(self, watermark: str) -> None:
        """zero-cache has stored all up to ``watermark``; anything but a watermark is ignored."""
        with suppress(WatermarkInvalid):
            self._acked = max(self._acked, str(Watermark.parse(watermark)))
            self._flight.acked(self._acked)
            self._deliveries.acked(self._acked)

    async def run(self, guard: Guard | None = None) -> None:
        """Serve until cancelled, or until nothing can be served (then it returns, and the socket is to be closed).

        ``guard`` raises ``AccessRefused`` once the connection's API key is no good any more, whatever is done then.
        """
        helpers = [
            asyncio.create_task(self._note_progress(), name="replica-progress"),
            asyncio.create_task(self.faults.run(), name="replica-faults"),
        ]
        self._subscriber.attach(self.mailbox, self._limits.keepalive)
        REPLICAS.add(self.request.app_id, self.request.shard_num, self)
        try:
            await self._serve_guarded(guard)
        except* ZerosourceError as group:
            await self._end(_first(group))
        finally:
            REPLICAS.remove(self.request.app_id, self.request.shard_num, self)
            self._subscriber.detach(self.mailbox)
            # At once: what is in cycles stays until the garbage collector comes.
            self.mailbox.clear()
            self._deliveries.close()
            for task in helpers:
                task.cancel()
            await self._note_end()
            await self.faults.flush()

    async def _end(self, error: ZerosourceError) -> None:
        """Tell zero-cache and the log why nothing more comes."""
        self._message = str(error)
        if isinstance(error, ResetRequired):
            logger.warning("replica must be reset", extra=self._names() | {"code": error.code, "why": error.message})
            self._state = "reset"
            RESETS.labels(error.code).inc()
            with tracing.span("reset", {**self._deliveries.replica, "zerosource.code": error.code}):
                if self._downstream is not None:
                    await self._downstream.rollback()
                await self._send([messages.reset_required(self._message, error.code)])
        elif isinstance(error, AccessRefused):
            logger.warning("connection locked out", extra=self._names() | {"code": error.code, "why": error.message})
            self.locked_out = True
        else:
            logger.error("connection ends", extra=self._names() | {"error": self._message})

    async def _serve_guarded(self, guard: Guard | None) -> None:
        if guard is None:
            await self._serve()
            return
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard(), name="replica-key")
            await self._serve()
            guarding.cancel()

    async def _serve(self) -> None:
        if self.request.last_watermark:
            if self._may_go_on is not None:
                await self._may_go_on(self.request.replica_version)
            downstream = self._downstream = await self._resume()
            self._state = "streaming"
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._stream(downstream), name="replica-stream")
                tasks.create_task(self._watch_over(self.request.replica_version), name="replica-oversight")
        else:
            self._state = "syncing"
            with tracing.span("snapshot", self._deliveries.replica) as noted:
                await self._initial_sync()
                noted["zerosource.rows"] = self._rows()
            self._state = "synced"
            # zero-cache reads nothing after the first commit; it closes and comes back with a watermark.
            await asyncio.get_running_loop().create_future()

    # The initial sync.

    async def _initial_sync(self) -> None:
        request, fingerprint = self.request, self._mapping.fingerprint
        sync = InitialSync(
            self._source,
            self._mapping,
            request,
            limits=self._limits,
            report=self.faults.report,
            stopped=self._note_stop,
        )
        began = await self._later_than_before(sync)
        version = Watermark(began, fingerprint)
        logger.info("initial sync begins", extra=self._names() | {"watermark": version})
        SNAPSHOTS_BEGUN.inc()
        await write(watermarks.begin_sync, request.app_id, request.shard_num, request.publications, str(version))

        async def remember(position: int) -> None:
            await write(watermarks.end_sync, request.app_id, request.shard_num, str(version), position)

        downstream = self._downstream = Downstream(self._send, fingerprint, self._mapping.tables, began)
        started = monotonic()
        self._progress = sync.progress
        async with asyncio.TaskGroup() as tasks:
            oversight = tasks.create_task(self._watch_over(str(version)), name="replica-oversight")
            position = await sync.run(downstream, began, remember)
            oversight.cancel()
        SNAPSHOTS_DONE.inc()
        seconds = round(monotonic() - started, 3)
        extra = self._names() | {"rows": sync.progress.rows, "seconds": seconds, "position": position}
        logger.info("initial sync done", extra=extra)

    async def _later_than_before(self, sync: InitialSync) -> int:
        """Return a T0 that is later than the replica's earlier one: the same or a lower one ends zero-cache."""
        known = await self._known_sync()
        backoff = Backoff("clock", first=1.0)
        while True:
            began = await sync.barrier()
            if known is None or not known.replica_version:
                return began
            if str(Watermark(began, self._mapping.fingerprint)) > known.replica_version:
                return began
            logger.warning("MongoDB's clock is behind the replica's last sync, waiting", extra=self._names())
            await backoff.wait()

    async def _known_sync(self) -> watermarks.SyncPoint | None:
        return await read(watermarks.sync_point, None, self.request.app_id, self.request.shard_num)

    # Streaming.

    async def _resume(self) -> Downstream:
        """Return where the replica stands, or raise ``ResetRequired``."""
        last = Watermark.parse(self.request.last_watermark)
        if last.fingerprint != self._mapping.fingerprint:
            raise FingerprintChanged()
        position = last.cluster_time
        if self.request.last_watermark == self.request.replica_version:
            known = await self._known_sync()
            if known and known.replica_version == self.request.replica_version and known.position:
                position = known.position
        downstream = Downstream(
            self._send, last.fingerprint, self._mapping.tables, position, self._mapping.relief, self._flight
        )
        logger.info("replica resumes", extra=self._names() | {"watermark": last, "position": position})
        return downstream

    async def _watch_over(self, replica_version: str) -> None:
        """Ask twice a second whether this may go on; the refusal ends the stream, or the snapshot."""
        while self._may_go_on is not None:
            await asyncio.sleep(OVERSIGHT_SECONDS)
            await self._may_go_on(replica_version)

    async def _stream(self, downstream: Downstream) -> None:
        backoff = Backoff("replica")
        why: CatchUp = "connected"
        while True:
            CATCH_UPS.labels(why).inc()
            catching_up = CatchUpTrace(self._deliveries.replica, why)
            # What happens below, unless it is said otherwise.
            why = "fault"
            try:
                self._pulls = True
                with catching_up:
                    await self._pull(downstream, backoff, catching_up)
                self._pulls = self._must_pull(downstream)
                why = "refill" if self._pulls else await self._follow(downstream)
            except TableStopped as error:
                # Nothing after the document may be sent; the operator corrects it, or the mapping.
                logger.error("replica stopped", extra=self._names() | {"error": str(error), "tries": backoff.tries})
                await self._rollback(downstream)
                self._note_stop(error)
                await backoff.wait()
                await self._correct(error)
            except (SourceUnavailable, SourceRefused) as error:
                # A refusal too: a zero-cache whose connection ends is back at once, again and again.
                logger.warning("replica waits for MongoDB", extra=self._names() | {"error": str(error)})
                await self._rollback(downstream)
                if isinstance(error, SourceRefused):
                    self._note_stop(error)
                await backoff.wait()

    async def _rollback(self, downstream: Downstream) -> None:
        self._to_refill.clear()
        await downstream.rollback()

    async def _correct(self, stopped: TableStopped) -> None:
        with suppress(SourceUnavailable, SourceRefused):
            await correct(self._source, self._mapping.needs, stopped, self._corrections)

    def _note_stop(self, error: TableStopped | SourceRefused | None) -> None:
        """Show operators that a table or a refusal stopped the replica, or that it goes on."""
        if error is not None:
            if self._state != "stopped":
                self._state_before = self._state
            self._state, self._message = "stopped", str(error)
        elif self._state == "stopped":
            self._state, self._message = self._state_before, ""

    async def _pull(self, downstream: Downstream, backoff: Backoff, catching_up: CatchUpTrace) -> None:
        """Read MongoDB from the replica's position until a batch of the layer connects."""
        shown, times = self._shown, Times(self._source) if tracing.enabled() else None
        transform = Transform(
            self._mapping,
            self.faults.report,
            corrections=self._corrections,
            current_until=shown if self._shown_again else 0,
            silent_until=0 if self._shown_again else shown,
        )
        stream = batches(
            times or self._source,
            transform,
            self._whole.needs,
            downstream.anchor,
            bounds=self._limits.bounds,
            idle_ms=min(PULL_IDLE_MS, int(self._limits.keepalive * 500)),
            singly=lambda: self._flight.singly,
        )
        fresh, commits = monotonic(), downstream.commits
        async with aclosing(stream):
            async for batch in stream:
                self._note_stop(None)
                if batch is None:
                    self._flight.caught_up()
                    catching_up.end()
                else:
                    self.tallies.pulled += 1
                    FROM_MONGODB.inc()
                    with batch_trace(batch, times, catching_up.links):
                        await self._send_batch(downstream, batch)
                    backoff.reset()
                if downstream.commits != commits:
                    fresh, commits = monotonic(), downstream.commits
                elif monotonic() - fresh >= self._limits.keepalive:
                    # No watcher is there to do it.
                    fresh = monotonic()
                    await heartbeat(self._source, self._limits.keepalive)
                if self._shown != shown:
                    return
                if downstream.open or self._must_pull(downstream):
                    continue
                if self.mailbox.connects(downstream.position, self._mapping.fingerprints):
                    return

    def _must_pull(self, downstream: Downstream) -> bool:
        """Whether what comes next must be read from MongoDB, even where the layer leads on."""
        return self._flight.singly or downstream.position < self._shown

    async def _follow(self, downstream: Downstream) -> CatchUp:
        """Send what the layer brings until something is missing, or nothing new came for too long; return which.

        What lies behind, said again, is no sign of life: whoever says it may lag, or be a layer that repeats itself.
        """
        fresh = monotonic()
        while True:
            batch = self.mailbox.take(downstream.position, self._mapping.fingerprints)
            if batch is not None:
                self.tallies.sent += 1
                FROM_LAYER.inc()
                await self._send_batch(downstream, batch)
                if self._must_pull(downstream):
                    return "refill"
                fresh = monotonic()
            elif self.mailbox.waiting:
                self.tallies.gaps += 1
                return "gap"
            elif not await self.mailbox.wait(fresh + self._limits.keepalive * 2 - monotonic()):
                self.tallies.silences += 1
                logger.info("silent channel layer, reading from MongoDB", extra=self._names())
                return "silence"

    async def _send_batch(self, downstream: Downstream, batch: Batch) -> None:
        self._to_refill.update(
            self._mapping.tables[name].collection
            for name, cluster_time in batch.refill.items()
            if cluster_time > downstream.position and name in self._mapping.tables
        )
        if self._to_refill and batch.final:
            with tracing.span("fill anew", self._deliveries.replica):
                await self._refill(downstream, batch, set(self._to_refill))
            self._to_refill.clear()
        else:
            with self._deliveries.delivering(batch, downstream):
                await downstream.batch(batch)

    async def _refill(self, downstream: Downstream, batch: Batch, collections: set[str]) -> None:
        """Send a batch after which tables must be filled anew: a collection was renamed into place.

        The transaction's watermark is the batch's, which its begin must bear, but it shows the state at a later
        barrier. What lies between comes all the same, each source transaction under its own watermark: zero-cache may
        be killed with its replica at any of them (see ``flight``).
        """
        logger.info("filling anew", extra=self._names() | {"collections": ",".join(sorted(collections))})
        request = self.request
        filling = Filling(
            self._source,
            self._mapping,
            f"{request.app_id}/{request.shard_num}",
            limits=self._limits,
            report=self.faults.report,
            backfill=False,
        )
        if self._progress is not None:
            self._copied_before += self._progress.rows
        self._progress = filling.progress
        await downstream.batch(batch, commit=False)
        # Not from the batch's end, which may be that of an event of others.
        opened = downstream.opened.cluster_time
        position = await filling.fill(downstream, opened, collections)
        await downstream.commit()
        downstream.reached(batch.end, opened)
        # A replica that is ahead takes nothing of what comes under the watermarks that it has, and so gets the rows
        # under those that follow: as they are now, so that none goes back in time.
        self._shown, self._shown_again = position, self._flight.singly
        self._flight.refilled()

    # What operators see.

    async def _note_progress(self) -> None:
        await self._write_progress(self._state, connected=True)
        written, at = ("", "", "", 0, 0.0), monotonic()
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            rows = self._rows()
            now = (self._state, self._sent(), self._acked, rows, self._pace.per_second(rows))
            # Again after a while, since an older connection of the replica may end, and say so, after this one began.
            if now != written or monotonic() - at >= PROGRESS_AGAIN_SECONDS:
                written, at = now, monotonic()
                await self._write_progress(self._state, now[-1])

    async def _note_end(self) -> None:
        """Write the last state, also where this is cancelled: zero-cache is gone as soon as it hears of a reset."""
        state = "reset" if self._state == "reset" else "disconnected"
        writing = asyncio.create_task(self._write_progress(state), name="replica-end")
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # for two seconds at most
            raise

    async def _write_progress(self, state: str, rows_per_second: float = 0.0, *, connected: bool = False) -> None:
        copied, message = self._progress, self._message
        if copied is not None and copied.waits:
            message = message or f"Waits for its turn: {self._limits.turns.count} snapshots read at a time."
        snapshot = copied.as_dict() if copied else None
        rows, lag = self._rows(), self._lag()
        whole = None if lag is None else int(lag)
        progress = watermarks.Progress(
            state, self._sent(), self._acked, message, whole, snapshot, rows - self._rows_noted, rows_per_second
        )
        request = self.request
        if await write(watermarks.note_progress, request.app_id, request.shard_num, progress, connected=connected):
            self._rows_noted = rows

    def _rows(self) -> int:
        """How many rows this connection has sent."""
        copied = self._copied_before + (self._progress.rows if self._progress else 0)
        return copied + (self._downstream.rows if self._downstream else 0)

    def _lag(self) -> float | None:
        """How old the last change was when it was sent, in seconds; how old it is now, where heartbeats are overdue."""
        downstream = self._downstream
        if downstream is None:
            return None
        age = age_of(downstream.committed.cluster_time)
        late = bool(self.request.last_watermark) and is_late(age, self._limits.keepalive)
        return age if late else downstream.lag

    def figures(self) -> ReplicaFigures:
        """What Prometheus is told of the replica."""
        downstream, copied = self._downstream, self._progress
        # Before its first commit a snapshot has sent nothing that stands.
        knows = downstream is not None and bool(downstream.commits or self.request.last_watermark)
        return ReplicaFigures(
            self._state,
            self._pulls,
            self._flight.on_its_way,
            lag=self._lag(),
            sent=downstream.committed.cluster_time >> 32 if downstream and knows else None,
            acked=Watermark.parse(self._acked).cluster_time >> 32 if self._acked else None,
            snapshot=CopyFigures(copied.rows, copied.documents, copied.expected) if copied else None,
        )

    def _sent(self) -> str:
        downstream = self._downstream
        return str(downstream.committed) if downstream and downstream.commits else ""

    def _names(self) -> dict[str, object]:
        return {"app_id": self.request.app_id, "shard": self.request.shard_num}
