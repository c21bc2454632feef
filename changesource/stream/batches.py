"""Batches: what a stretch of the oplog did to the mapped tables, encoded once for every replica.

On the channel layer a batch is one opaque payload: a line of JSON, then one frame a line (JSON holds no raw line
break).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeAlias

import orjson

from changesource.stream.events import MAX_TIME_MS, milliseconds

DATA = b'["data",{"tag":"'  # what every frame of a batch begins with
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
BARRIER = ""  # the table name of a run that stands for a barrier


Run: TypeAlias = tuple[int, str, int]
"""(cluster time, table, count): so many consecutive frames are of this table and cluster time.

A run of no frames says that an event touched the table's collection but no row. There is one for almost every change,
so they are plain tuples, which take a fraction of a named one's time.
"""


@dataclass(frozen=True)
class Batch:
    """All changes in (follows, end], both cluster times of events, in order.

    ``fingerprints`` holds that of every table that the maker watches, touched or not, so that a reader knows that
    nothing of its own is missing; that of a table that stopped is left out. ``final`` is False on the pieces of one
    MongoDB transaction that is still arriving. ``pull`` says that the frames are not here and must be read from
    MongoDB. ``refill`` names tables whose rows can only be had by reading their collection again, each with the cluster
    time of the event that says so. ``time_ms`` is when MongoDB made the first of the changes, in milliseconds since
    1970, 0 where that is not known; ``trace`` is the span that sent it, as W3C's ``traceparent``, empty where traces
    are off. Both say nothing of what a batch is, so batches are compared without them.
    """

    follows: int
    end: int
    fingerprints: Mapping[str, str]
    runs: tuple[Run, ...] = ()
    frames: tuple[bytes, ...] = ()
    final: bool = True
    pull: bool = False
    refill: Mapping[str, int] = field(default_factory=dict)
    time_ms: int = field(default=0, compare=False)
    trace: str = field(default="", compare=False)

    def pieces(self, after: int, tables: Collection[str]) -> Selection:
        """Return what a replica of ``tables`` that stands at ``after`` must be sent."""
        if after <= self.follows and self._touched.issubset(tables):
            return self._whole
        return self._part(after, tables)

    @cached_property
    def _touched(self) -> frozenset[str]:
        return frozenset(table for _, table, _ in self.runs if table != BARRIER)

    @cached_property
    def _whole(self) -> Selection:
        """What most replicas get of it, and so made once."""
        return self._part(0, self._touched)

    def _part(self, after: int, tables: Collection[str]) -> Selection:
        frames: list[bytes] = []
        position = transactions = 0
        barrier = False
        source = iter(self.frames)
        for cluster_time, table, count in self.runs:
            part = islice(source, count)
            if cluster_time <= after or (table != BARRIER and table not in tables):
                _skip(part)
                continue
            frames.extend(part)
            transactions += cluster_time != position
            position = cluster_time
            barrier = barrier or table == BARRIER
        return Selection(position, barrier, frames, transactions)


class Selection(NamedTuple):
    """A replica's part of a batch.

    ``position`` is the cluster time of the last event of its tables or of a barrier, 0 where there is none;
    ``transactions`` counts the different cluster times of these.
    """

    position: int
    barrier: bool
    frames: Sequence[bytes]
    transactions: int


def _skip(part: Iterator[bytes]) -> None:
    for _ in part:
        pass


def encode(batch: Batch) -> bytes:
    """Return the payload of a batch."""
    head: dict[str, object] = {
        "follows": batch.follows,
        "end": batch.end,
        "fingerprints": batch.fingerprints,
        "runs": [value for run in batch.runs for value in run],
        "pull": batch.pull,
        "refill": batch.refill,
        "time": batch.time_ms,
        "size": sum(map(len, batch.frames)),
    }
    if batch.trace:
        head["trace"] = batch.trace
    return b"\n".join((orjson.dumps(head), *batch.frames))


def decode(payload: bytes) -> Batch:
    """Return the batch of a payload; ``ValueError`` where it is not one."""
    lines = payload.split(b"\n")
    try:
        head = orjson.loads(lines[0])
        runs = head["runs"]
        batch = Batch(
            head["follows"],
            head["end"],
            head["fingerprints"],
            tuple(zip(runs[0::3], runs[1::3], runs[2::3], strict=False)),
            tuple(lines[1:]),
            pull=head["pull"],
            refill=head["refill"],
            # A process of an earlier release does not say.
            time_ms=head.get("time", 0),
            trace=_trace_of(head.get("trace")),
        )
        size = head["size"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a batch: {error}") from error
    if not _is_sound(batch):
        raise ValueError("not a batch: values of other types")
    if sum(count for _, _, count in batch.runs) != len(batch.frames) or size != sum(map(len, batch.frames)):
        raise ValueError("not a batch: frames are missing")
    return batch


def _trace_of(value: object) -> str:
    """What a payload says of its trace, or nothing: a batch that says something else there is as good as any."""
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else ""


def _is_sound(batch: Batch) -> bool:
    """Tell whether all that a payload held is as in a batch: it may come from another release, or another program.

    Times out of order would become watermarks that fall, which no replica survives.
    """
    if {type(batch.follows), type(batch.end), type(batch.time_ms)} != {int} or type(batch.pull) is not bool:
        return False
    if not (isinstance(batch.fingerprints, dict) and isinstance(batch.refill, dict)):
        return False
    if not 0 <= batch.follows <= batch.end or not 0 <= batch.time_ms <= MAX_TIME_MS:
        return False
    earliest = batch.follows + 1
    for time, table, frames in batch.runs:
        if type(time) is not int or not isinstance(table, str) or type(frames) is not int:
            return False
        if not earliest <= time <= batch.end or frames < 0:
            return False
        earliest = time
    times = batch.refill.values()
    return all(type(time) is int and batch.follows < time <= batch.end for time in times) and all(
        frame.startswith(DATA) for frame in batch.frames
    )


class BatchBuilder:
    """Collects runs until they become a batch; ``rows`` and ``size`` (bytes) say how large it has grown.

    ``end`` is the cluster time of the last event, whatever it did, 0 without one; ``transactions`` counts the builders
    that were taken over; ``wall`` is that of its first event.
    """

    __slots__ = (
        "_frames", "_refill", "_runs", "_withheld", "end", "fingerprints", "follows", "rows", "size", "transactions",
        "wall",
    )  # fmt: skip

    def __init__(self, follows: int, fingerprints: Mapping[str, str]) -> None:
        """``follows`` and ``fingerprints`` are the batch's."""
        self.follows = follows
        self.fingerprints = fingerprints
        self.end = self.rows = self.size = self.transactions = 0
        self.wall: object = None
        self._runs: list[Run] = []
        self._frames: list[bytes] = []
        self._refill: dict[str, int] = {}
        self._withheld: set[str] = set()

    def __bool__(self) -> bool:
        return self.end != 0

    def reaches(self, rows: int, size: int) -> bool:
        """Whether it has so many rows, or transactions, or so many bytes, or more."""
        return self.rows >= rows or self.size >= size or self.transactions >= rows

    def add(self, cluster_time: int, table: str, frames: Collection[bytes] | None) -> None:
        """Add the frames that one event made for one table; None withholds the table from the batch."""
        if frames is None:
            self._withheld.add(table)
            frames = ()
        runs, count = self._runs, len(frames)
        if runs and runs[-1][0] == cluster_time and runs[-1][1] == table:
            runs[-1] = (cluster_time, table, runs[-1][2] + count)
        else:
            runs.append((cluster_time, table, count))
        self._frames += frames
        self.rows += count
        for frame in frames:
            self.size += len(frame)

    def refill(self, tables: Iterable[str], cluster_time: int) -> None:
        """Say that these tables must be read again, since the event at ``cluster_time``."""
        self._refill.update(dict.fromkeys(tables, cluster_time))

    def take(self, other: BatchBuilder) -> None:
        """Take over what ``other`` holds, which follows what is here; it is empty then, and follows this."""
        if not self.end:
            self.wall = other.wall
        self.end = other.follows = other.end
        self._runs += other._runs
        self._frames += other._frames
        if other._refill or other._withheld:
            self._refill |= other._refill
            self._withheld |= other._withheld
            other._refill, other._withheld = {}, set()
        self.rows += other.rows
        self.transactions += 1
        self.size += other.size
        other._runs, other._frames = [], []
        other.end = other.rows = other.size = 0

    def build(self, *, final: bool = True) -> Batch:
        """Return the batch."""
        fingerprints = {name: own for name, own in self.fingerprints.items() if name not in self._withheld}
        return Batch(
            self.follows,
            self.end,
            fingerprints if self._withheld else self.fingerprints,
            tuple(self._runs),
            tuple(self._frames),
            final=final,
            refill=self._refill,
            time_ms=milliseconds(self.wall),
        )
