"""The system at a glance: MongoDB, the watcher, the channel layer, replicas, their last hour, row errors.

The number of queries is the same for any number of replicas, and nobody who does not answer is waited for longer than
``WAIT_SECONDS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any, TypeVar

import redis
from django.utils import timezone

from changesource.conf import settings
from changesource.exceptions import SourceUnavailable, WatermarkInvalid, ZerosourceError
from changesource.models import ManagedReading, RowError
from changesource.models import Watermark as Row
from changesource.protocol.watermark import Watermark
from changesource.services.asking import Question
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.server import Server, describe
from changesource.store import leases, mappings, minutes, readings, row_errors, watermarks
from changesource.store.minutes import Minute
from changesource.store.watermarks import CONNECTED, SILENT_SECONDS

T = TypeVar("T")
WAIT_SECONDS = 1.8
ASK_SECONDS = 1.5
KEPT_SECONDS = 3.0
SHOWN_REPLICAS = 100
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Position:
    """A watermark and when what it stands for happened."""

    text: str
    at: datetime


@dataclass(frozen=True)
class Layer:
    """The channel layer: Redis, or this process's memory. ``problem`` is "" where it answers."""

    shared: bool
    problem: str = ""


@dataclass(frozen=True)
class WatcherState:
    """Where the watcher is; ``leader`` is the process that holds the lease, "" where there is no lease."""

    position: Position
    leader: str


@dataclass(frozen=True)
class Replica:
    """A replica, from its row; ``hour`` is its last hour, empty for those that are not shown."""

    pk: int
    name: str
    app_id: str
    shard: int
    publications: tuple[str, ...]
    state: str
    message: str
    silent: bool
    lag: timedelta | None
    sent: Position | None
    acked: Position | None
    rows_per_second: float
    connected_at: datetime | None
    updated_at: datetime
    resync_wanted: bool
    snapshot: dict[str, Any] | None
    hour: Sequence[Minute]

    @property
    def connected(self) -> bool:
        """Whether a process serves it now."""
        return self.state in CONNECTED and not self.silent


@dataclass(frozen=True)
class Overview:
    """All of it, as of ``at``. Of ``mongodb`` and ``mongodb_problem`` one is None.

    ``served`` is the number of the revision that is served, None before the first; ``reading`` what came of reading the
    managed mappings last, None where there are none. ``replicas`` are all of them; ``hour`` is that of all together:
    rows are added, of lags the highest counts.
    """

    at: datetime
    keepalive: timedelta
    served: int | None
    reading: ManagedReading | None
    mongodb: Server | None
    mongodb_problem: ZerosourceError | None
    layer: Layer
    watcher: WatcherState | None
    replicas: Sequence[Replica]
    hour: Sequence[Minute]
    errors_by_table: Sequence[row_errors.Total]
    newest_errors: Sequence[RowError]


def overview() -> Overview:
    """Return it as it is now. Raises what Django does where the database is away."""
    started = monotonic()
    server, layer = _server().begin(), _layer().begin()
    now = timezone.now()
    rows = watermarks.everything()
    served = mappings.latest_identity()
    leader = leases.holder("watcher")
    replicas = _replicas([row for row in rows if row.kind == Row.Kind.REPLICA], now)
    hour = minutes.last_hour(now)
    by_table, newest = row_errors.totals(), row_errors.newest(SHOWN_ERRORS)
    found, problem = _described(server, started)
    return Overview(
        at=now,
        keepalive=timedelta(seconds=settings().keepalive_seconds),
        served=served[0] if served else None,
        reading=readings.latest() if settings().has_managed_source else None,
        mongodb=found,
        mongodb_problem=problem,
        layer=_layer_state(layer, started),
        watcher=_watcher(rows, leader),
        replicas=replicas,
        hour=hour,
        errors_by_table=by_table,
        newest_errors=newest,
    )


# What others are asked.


@lru_cache(maxsize=1)
def _server() -> Question[Server]:
    return Question(lambda: describe(mongodb_uri(settings()), ASK_SECONDS), KEPT_SECONDS)


@lru_cache(maxsize=1)
def _layer() -> Question[None]:
    return Question(_ping_layer, KEPT_SECONDS)


def _ping_layer() -> None:
    url = settings().redis_url
    if url:
        with redis.Redis.from_url(url, socket_timeout=ASK_SECONDS, socket_connect_timeout=ASK_SECONDS) as client:
            client.ping()


def _in_time(answer: Future[T], started: float) -> T:
    return answer.result(timeout=max(0.0, started + WAIT_SECONDS - monotonic()))


def _described(answer: Future[Server], started: float) -> tuple[Server | None, ZerosourceError | None]:
    try:
        return _in_time(answer, started), None
    except ZerosourceError as error:
        return None, error
    except TimeoutError:
        return None, SourceUnavailable(f"MongoDB did not answer within {WAIT_SECONDS:g} seconds.")


def _layer_state(answer: Future[None], started: float) -> Layer:
    shared = bool(settings().redis_url)
    try:
        _in_time(answer, started)
    except (redis.RedisError, OSError, TimeoutError) as error:
        return Layer(shared, str(error) or "It did not answer in time.")
    return Layer(shared)


# What the database holds.


def _watcher(rows: Sequence[Row], leader: str) -> WatcherState | None:
    for row in rows:
        if row.kind == Row.Kind.WATCHER and row.sent:
            return WatcherState(_at(row.sent, int(row.sent)), leader if settings().redis_url else "")
    return None


def _replicas(rows: Sequence[Row], now: datetime) -> list[Replica]:
    hours = minutes.last_hour_of([row.pk for row in rows[:SHOWN_REPLICAS]], now)
    return [_replica(row, hours.get(row.pk, []), now) for row in rows]


def _replica(row: Row, hour: Sequence[Minute], now: datetime) -> Replica:
    return Replica(
        pk=row.pk,
        name=str(row),
        app_id=row.app_id,
        shard=row.shard_num,
        publications=tuple(row.publications),
        state=row.state,
        message=row.message,
        silent=row.state in CONNECTED and now - row.updated_at > timedelta(seconds=SILENT_SECONDS),
        lag=None if row.lag_ms is None else timedelta(milliseconds=row.lag_ms),
        sent=_position(row.sent),
        acked=_position(row.acked),
        rows_per_second=row.rows_per_second,
        connected_at=row.connected_at,
        updated_at=row.updated_at,
        resync_wanted=row.resync_wanted,
        snapshot=row.snapshot,
        hour=hour,
    )


def _position(text: str) -> Position | None:
    try:
        return _at(text, Watermark.parse(text).cluster_time) if text else None
    except WatermarkInvalid:
        return None


def _at(text: str, cluster_time: int) -> Position:
    return Position(text, datetime.fromtimestamp(cluster_time >> 32, UTC))
