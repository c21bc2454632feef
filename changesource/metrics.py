"""What this process counts, for Prometheus; docs/metrics.md lists it, and says how processes are taken together.

Nothing is counted by the frame or the row: what is sent is counted where a batch of it goes out, and what a replica is
like is asked of its session when somebody looks.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from changesource import VERSION
from changesource.exceptions import ResetRequired
from changesource.mapping.fingerprint import TRANSFORM_VERSION

# They say when each series began: twice as many series, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package forgot

BUILD = Info("zerosource_build", "What runs here.")
BUILD.info({"version": VERSION, "python": platform.python_version(), "transform_version": str(TRANSFORM_VERSION)})

# What comes of reading SCHEMA_* and TABLE_MAPPINGS_* again.
Reload = Literal["loaded", "unchanged", "older", "failed"]
RELOADS = Counter(
    "zerosource_reloads", "How often the managed schema and mappings were read again, by what came of it.", ["result"]
)

# What goes to replicas.
Way = Literal["snapshot", "stream"]
ROWS = Counter(
    "zerosource_rows", "Rows sent to replicas: in snapshots (and tables filled anew), or as changes.", ["way"]
)
TRANSACTIONS = Counter("zerosource_transactions", "Zero transactions committed to replicas, snapshots among them.")
TRANSACTION_ROWS = Histogram(
    "zerosource_transaction_rows",
    "Rows of each Zero transaction of changes, which joins MongoDB's own; 0 is one that only says that all is alive.",
    buckets=(0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000),
)
FRAMES = Counter("zerosource_sent_frames", "WebSocket messages sent to replicas.")
BYTES = Counter("zerosource_sent_bytes", "Bytes of the WebSocket messages sent to replicas.")
Source = Literal["layer", "mongodb"]
BATCHES = Counter("zerosource_batches", "Batches of changes given to replicas, by where they came from.", ["source"])
CatchUp = Literal["connected", "gap", "silence", "refill", "fault"]
CATCH_UPS = Counter("zerosource_catch_ups", "How often a replica began to read MongoDB itself, and why.", ["reason"])
SNAPSHOTS_BEGUN = Counter("zerosource_snapshots_begun", "Initial syncs that began.")
SNAPSHOTS_DONE = Counter("zerosource_snapshots_done", "Initial syncs that were sent to their end.")
RESETS = Counter("zerosource_resets", "Replicas told to sync anew (reset-required).", ["code"])

# What the watcher does.
LEADER = Gauge("zerosource_leader", "1 where this process runs the watcher that publishes changes, else 0.")
Published = Literal["published", "refused"]
PUBLISHED = Counter(
    "zerosource_watcher_batches", "Batches that the watcher put on the channel layer, or could not.", ["result"]
)
UNREADABLE = Counter("zerosource_unreadable_batches", "Batches from the channel layer that could not be read.")

# What went wrong.
ROW_ERRORS = Counter(
    "zerosource_row_errors",
    "Documents that did not fit a table, each time that was met: a row left out, or a value made null.",
    ["table", "effect"],
)
# What is tried again after a wait; docs/metrics.md says what each is.
Retry = Literal[
    "clock",
    "connection",
    "copy",
    "database",
    "layer",
    "lease",
    "mappings",
    "replica",
    "row_errors",
    "watcher",
]
RETRIES = Counter("zerosource_retries", "Tries that failed and were made again after a wait.", ["what"])
REFUSALS = Counter("zerosource_refusals", "What came from outside and was refused, or slowed down.", ["code"])
Place = Literal["http", "replica", "live_page"]
CONNECTIONS = Gauge("zerosource_connections", "Connections that are open, by what they are.", ["kind"])


def reset_codes() -> Iterator[str]:
    """The codes of all that makes a replica sync anew."""
    kinds: list[type[ResetRequired]] = [ResetRequired]
    for kind in kinds:
        kinds += kind.__subclasses__()
        yield kind.code


def _show_from_the_beginning() -> None:
    """So that the first one of a kind is seen as a rise."""
    series: tuple[tuple[Counter | Gauge, object], ...] = (
        (ROWS, Way),
        (BATCHES, Source),
        (CATCH_UPS, CatchUp),
        (PUBLISHED, Published),
        (RELOADS, Reload),
        (RETRIES, Retry),
        (CONNECTIONS, Place),
    )
    for metric, label in series:
        for value in get_args(label):
            metric.labels(value)
    for code in reset_codes():
        RESETS.labels(code)


_show_from_the_beginning()


@dataclass(frozen=True)
class CopyFigures:
    """How far a snapshot is: ``rows`` were sent, ``documents`` were read of about as many as are ``expected``."""

    rows: int
    documents: int
    expected: int


@dataclass(frozen=True)
class ReplicaFigures:
    """What a connected replica is like; None is what is not known yet.

    ``lag`` is in seconds, ``sent`` and ``acked`` are positions as seconds since 1970, ``unacknowledged`` counts source
    transactions that are on their way, ``reads_mongodb`` says that no watcher serves it just now.
    """

    state: str
    reads_mongodb: bool
    unacknowledged: int
    lag: float | None = None
    sent: int | None = None
    acked: int | None = None
    snapshot: CopyFigures | None = None


class Replica(Protocol):
    """A connected replica."""

    def figures(self) -> ReplicaFigures:
        """Return what it is like now."""


_REPLICA = ("app_id", "shard")
_OF_REPLICAS = {
    "lag": (
        "zerosource_replica_lag_seconds",
        "How old the last change was when the replica was sent it; how old it is, where heartbeats are overdue.",
    ),
    "sent": (
        "zerosource_replica_sent_timestamp_seconds",
        "The position up to which the replica was sent everything: when MongoDB made that change, in Unix time.",
    ),
    "acked": (
        "zerosource_replica_acked_timestamp_seconds",
        "The position up to which zero-cache has stored everything, in Unix time.",
    ),
    "unacknowledged": (
        "zerosource_replica_unacknowledged_transactions",
        "MongoDB's transactions that were sent to the replica and are not acknowledged yet.",
    ),
    "reads_mongodb": (
        "zerosource_replica_reads_mongodb",
        "1 while the replica reads MongoDB itself, 0 while a watcher serves it.",
    ),
}
_OF_SNAPSHOTS = {
    "rows": ("zerosource_snapshot_rows", "Rows that the replica's snapshot has sent so far."),
    "documents": ("zerosource_snapshot_documents", "Documents that the replica's snapshot has read so far."),
    "expected": ("zerosource_snapshot_expected_documents", "About how many documents the snapshot will read."),
}


class Replicas(Collector):
    """The replicas that are connected to this process: no others have series, so there are never more than those."""

    def __init__(self) -> None:
        """Start with none."""
        self._connected: dict[tuple[str, int], Replica] = {}

    def add(self, app_id: str, shard: int, replica: Replica) -> None:
        """A replica is connected; an older connection of its own is shown no more."""
        self._connected[app_id, shard] = replica

    def remove(self, app_id: str, shard: int, replica: Replica) -> None:
        """The connection has ended."""
        if self._connected.get((app_id, shard)) is replica:
            del self._connected[app_id, shard]

    def collect(self) -> Iterator[Metric]:
        """Ask each replica."""
        states = GaugeMetricFamily(
            "zerosource_replica_state", "1 for the state that a connected replica is in.", labels=[*_REPLICA, "state"]
        )
        gauges = {
            field: GaugeMetricFamily(name, text, labels=_REPLICA)
            for field, (name, text) in (_OF_REPLICAS | _OF_SNAPSHOTS).items()
        }
        for (app_id, shard), replica in list(self._connected.items()):
            figures, labels = replica.figures(), [app_id, str(shard)]
            states.add_metric([*labels, figures.state], 1)
            for shown, fields in ((figures, _OF_REPLICAS), (figures.snapshot, _OF_SNAPSHOTS)):
                for field in fields:
                    value = getattr(shown, field, None)
                    if value is not None:
                        gauges[field].add_metric(labels, value)
        yield states
        yield from gauges.values()


class Watching(Protocol):
    """A watcher."""

    @property
    def position(self) -> int:
        """The cluster time up to which everything was published; 0 before the first."""

    def lag(self) -> float | None:
        """How old the last change was when it was published, in seconds; None before the first."""


class Reach(NamedTuple):
    """How many seconds MongoDB's oplog reaches back, and how full it is, from 0 to 1."""

    seconds: float
    filled: float


class Watchers(Collector):
    """The watcher of this process, while it has one, and what is known of the oplog meanwhile."""

    def __init__(self) -> None:
        """Start without one."""
        self.watcher: Watching | None = None
        self.oplog: Reach | None = None

    def collect(self) -> Iterator[Metric]:
        """Ask it."""
        position = GaugeMetricFamily(
            "zerosource_watcher_position_timestamp_seconds",
            "The position up to which this process's watcher has published everything, in Unix time.",
        )
        lag = GaugeMetricFamily(
            "zerosource_watcher_lag_seconds",
            "How old the last change was when the watcher published it; how old it is, where heartbeats are overdue.",
        )
        watcher = self.watcher
        if watcher is not None and watcher.position:
            position.add_metric([], watcher.position >> 32)
            if (seconds := watcher.lag()) is not None:
                lag.add_metric([], seconds)
        window = GaugeMetricFamily(
            "zerosource_oplog_window_seconds", "How far back MongoDB's oplog reaches; asked once a minute."
        )
        filled = GaugeMetricFamily(
            "zerosource_oplog_filled_ratio",
            "How full MongoDB's oplog is, from 0 to 1; before that it forgets nothing.",
        )
        if self.oplog is not None:
            window.add_metric([], self.oplog.seconds)
            filled.add_metric([], self.oplog.filled)
        yield from (position, lag, window, filled)


REPLICAS = Replicas()
WATCHERS = Watchers()
REGISTRY.register(REPLICAS)
REGISTRY.register(WATCHERS)
