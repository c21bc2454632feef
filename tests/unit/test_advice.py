"""What needs attention is said with the step that mends it; what does not is not said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from changesource.exceptions import NotReplicaSet, SourceUnavailable
from changesource.models import ManagedReading
from changesource.services.advice import advice, hours_in_words, in_words
from changesource.services.overview import Layer, Overview, Position, Replica, WatcherState
from changesource.sources.mongodb.server import Oplog, Server
from changesource.store.row_errors import Total

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def at(age: timedelta) -> Position:
    """A position of so long ago."""
    return Position("w", NOW - age)


def oplog(hours: float, filled: float) -> Server:
    """A server with such an oplog."""
    last = int(NOW.timestamp())
    return Server("8.0.0", "rs0", 3, Oplog(last - int(hours * 3600), last, filled))


REPLICA = Replica(
    pk=1, name="app/0", app_id="app", shard=0, publications=(), state="streaming", message="", silent=False,
    lag=timedelta(0), sent=at(SECOND), acked=at(SECOND), rows_per_second=0.0, connected_at=NOW - HOUR,
    updated_at=NOW - SECOND, resync_wanted=False, snapshot=None, hour=(),
)  # fmt: skip
WELL = Overview(
    at=NOW, keepalive=10 * SECOND, served=1, reading=None, mongodb=oplog(100, 0.9), mongodb_problem=None,
    layer=Layer(True), watcher=WatcherState(at(SECOND), "host/1"), replicas=(REPLICA,), hour=(), errors_by_table=(),
    newest_errors=(),
)  # fmt: skip


def gone(**changes: object) -> Replica:
    """A replica that is not connected."""
    return replace(REPLICA, state="disconnected", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seen",
    [
        WELL,
        replace(WELL, mongodb=oplog(0.1, 0.1)),  # it forgets nothing yet
        replace(WELL, mongodb=replace(oplog(1, 1), oplog=None)),
        replace(WELL, replicas=()),
        replace(WELL, replicas=(gone(updated_at=NOW - 60 * SECOND),)),
        replace(WELL, watcher=WatcherState(at(25 * SECOND), "")),
        replace(WELL, reading=ManagedReading(result="unchanged", since=NOW - HOUR)),
        replace(WELL, reading=ManagedReading(result="loaded", since=NOW - HOUR)),
    ],
)
def test_nothing_is_said_while_all_is_well(seen: Overview) -> None:
    assert advice(seen) == []


@pytest.mark.parametrize(
    ("seen", "severity", "problem", "remedy"),
    [
        (
            replace(WELL, mongodb=None, mongodb_problem=SourceUnavailable("No route.")),
            "error",
            "MongoDB does not answer: No route.",
            "go on by themselves",
        ),
        (replace(WELL, mongodb=None, mongodb_problem=NotReplicaSet()), "error", "standalone", "rs.initiate"),
        (replace(WELL, mongodb=oplog(3, 0.95)), "warning", "reaches back 3.0 hours", "replSetResizeOplog"),
        (replace(WELL, layer=Layer(True, "refused")), "error", "channel layer does not answer: refused", "REDIS_URL"),
        (replace(WELL, watcher=None), "warning", "No watcher has run yet", "runwatcher"),
        (replace(WELL, watcher=WatcherState(at(HOUR), "")), "warning", "not moved for 60 min", "runwatcher"),
        (replace(WELL, served=None), "warning", "Nothing is published", "press Publish"),
        (
            replace(WELL, replicas=(replace(REPLICA, state="stopped", message="ZS400 At x."),)),
            "error",
            "Stopped: app/0. ZS400 At x.",
            "goes on by itself",
        ),
        (replace(WELL, replicas=(replace(REPLICA, lag=90 * SECOND),)), "warning", "minute behind: app/0", "zero-cache"),
        (replace(WELL, replicas=(replace(REPLICA, acked=at(HOUR)),)), "warning", "not stored", "overloaded"),
        (replace(WELL, replicas=(replace(REPLICA, silent=True),)), "warning", "Not heard of", "comes back"),
        (replace(WELL, replicas=(gone(updated_at=NOW - 2 * HOUR),)), "note", "more than an hour: app/0", "forget"),
        (replace(WELL, replicas=(gone(acked=at(200 * HOUR)),)), "error", "longer than the oplog", "syncs anew"),
        (
            replace(WELL, reading=ManagedReading(result="failed", code="ZS102", problem="Away.", since=NOW - HOUR)),
            "warning",
            "cannot be used, for 60 min: ZS102 Away.",
            "last good",
        ),
        (replace(WELL, reading=ManagedReading(result="older")), "warning", "loaded before", "reloadmappings"),
        (replace(WELL, errors_by_table=(Total("t", 1, 9, NOW),)), "warning", "1 value or row did not fit: t.", "list"),
    ],
)
def test_each_fault_is_said_with_what_mends_it(seen: Overview, severity: str, problem: str, remedy: str) -> None:
    (one,) = advice(seen)
    assert one.severity == severity
    assert problem in one.problem
    assert remedy in one.remedy


def test_a_mongodb_that_is_away_is_not_blamed_on_replicas_and_watcher() -> None:
    late = replace(REPLICA, lag=HOUR)
    seen = replace(WELL, mongodb=None, mongodb_problem=SourceUnavailable(), watcher=None, replicas=(late,))
    assert [one.severity for one in advice(seen)] == ["error"]


def test_many_are_named_in_part_and_the_worst_comes_first() -> None:
    many = [replace(REPLICA, name=f"r{n}/0", lag=HOUR) for n in range(50)]
    found = advice(replace(WELL, replicas=many, layer=Layer(True, "x" * 1000)))
    assert [one.severity for one in found] == ["error", "warning"]
    assert len(found[0].problem) < 400
    assert "r0/0, r1/0, r2/0, r3/0, r4/0 and 45 more" in found[1].problem


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (180000, "2 days")],
)
def test_spans_in_words(seconds: int, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words


def test_hours_in_words() -> None:
    assert [hours_in_words(hours) for hours in (0.5, 1, 1234.56)] == ["30 min", "1.0 hours", "1,234.6 hours"]
