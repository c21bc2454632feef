"""What of an overview needs somebody's attention, each with the step that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from changesource.services.overview import Overview, Replica

Severity = Literal["error", "warning", "note"]
About = Literal["", "tables", "replicas", "row_errors"]
SHORT_OPLOG_HOURS = 24
FULL = 0.8  # of its bound: from about here on the oplog forgets
LATE = timedelta(minutes=1)
LONG_GONE = timedelta(hours=1)
NAMED = 5
MAX_WORDS = 300


@dataclass(frozen=True)
class Advice:
    """What is wrong, and what to do; ``about`` says which page of the admin shows more of it."""

    severity: Severity
    problem: str
    remedy: str
    about: About = ""


def advice(seen: Overview) -> list[Advice]:
    """Return all there is to say, what is worst first."""
    parts = (_mongodb, _layer, _watcher, _mappings, _replicas, _row_errors)
    found = [one for part in parts for one in part(seen)]
    return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))


def _mongodb(seen: Overview) -> Iterator[Advice]:
    problem = seen.mongodb_problem
    if problem is not None and problem.retryable:
        yield Advice(
            "error",
            f"MongoDB does not answer: {_short(problem.message)}",
            f"{problem.remedy} Replicas wait, and go on by themselves once it answers.",
        )
    elif problem is not None:
        yield Advice("error", _short(problem.message), problem.remedy)
    oplog = seen.mongodb.oplog if seen.mongodb else None
    if oplog is not None and oplog.filled >= FULL and oplog.hours < SHORT_OPLOG_HOURS:
        yield Advice(
            "warning",
            f"MongoDB's oplog reaches back {hours_in_words(oplog.hours)}: a replica away for longer syncs anew.",
            "Have it keep more: db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 48}).",
        )


def _layer(seen: Overview) -> Iterator[Advice]:
    if seen.layer.problem:
        yield Advice(
            "error",
            f"The channel layer does not answer: {_short(seen.layer.problem)}",
            "Check REDIS_URL, and that Redis runs. Meanwhile each replica reads MongoDB itself, which costs more.",
        )


def _watcher(seen: Overview) -> Iterator[Advice]:
    if seen.mongodb is None or seen.served is None:
        return  # nobody can watch
    remedy = "Run manage.py serve (without --no-watcher), or manage.py runwatcher beside it, and see its log."
    if seen.watcher is None:
        yield Advice("warning", "No watcher has run yet, so each replica reads MongoDB itself.", remedy)
    elif seen.at - seen.watcher.position.at > max(3 * seen.keepalive, timedelta(seconds=30)):
        age = in_words(seen.at - seen.watcher.position.at)
        yield Advice("warning", f"The watcher has not moved for {age}, so each replica reads MongoDB itself.", remedy)


def _mappings(seen: Overview) -> Iterator[Advice]:
    if seen.served is None:
        yield Advice("warning", "Nothing is published yet.", "Map a table and press Publish.", "tables")


def _replicas(seen: Overview) -> Iterator[Advice]:
    oldest = seen.mongodb.oplog.first if seen.mongodb and seen.mongodb.oplog else 0

    def lost(one: Replica) -> bool:
        return not one.connected and one.acked is not None and one.acked.at.timestamp() < oldest

    def gone(one: Replica) -> bool:
        return not one.connected and not one.silent and not lost(one) and seen.at - one.updated_at > LONG_GONE

    def late(one: Replica) -> bool:
        # While MongoDB does not answer, that is why.
        streams = seen.mongodb is not None and one.connected and one.state == "streaming"
        return streams and one.lag is not None and one.lag > LATE

    def unstored(one: Replica) -> bool:
        sent, acked = one.sent, one.acked
        return one.connected and one.state == "streaming" and bool(sent and acked and sent.at - acked.at > LATE)

    kinds: tuple[tuple[Callable[[Replica], bool], Severity, str, str], ...] = (
        (
            lambda one: one.connected and one.state == "stopped",
            "error",
            "Stopped: {names}. {message}",
            "Correct what the message names; the replica goes on by itself.",
        ),
        (lost, "error", "Away for longer than the oplog reaches back: {names}.", "It syncs anew when it comes back."),
        (
            late,
            "warning",
            "More than a minute behind: {names}.",
            "See whether its zero-cache and this server have processor time to spare, and what MongoDB's log says.",
        ),
        (
            unstored,
            "warning",
            "Sent, but not stored for more than a minute: {names}.",
            "See whether its zero-cache is overloaded, or waits for its PostgreSQL.",
        ),
        (
            lambda one: one.silent,
            "warning",
            "Not heard of, though they were not closed: {names}.",
            "The process that served them has ended. A zero-cache that runs comes back by itself.",
        ),
        (
            gone,
            "note",
            "Disconnected for more than an hour: {names}.",
            "Start its zero-cache, or forget the replica where it will not come back.",
        ),
    )
    for holds, severity, problem, remedy in kinds:
        if those := [one for one in seen.replicas if holds(one)]:
            message = _short(those[0].message)
            yield Advice(
                severity,
                problem.format(names=_listed([one.name for one in those]), message=message).strip(),
                remedy,
                "replicas",
            )


def _row_errors(seen: Overview) -> Iterator[Advice]:
    entries = sum(total.entries for total in seen.errors_by_table)
    if entries:
        what = "1 value or row" if entries == 1 else f"{entries:,} values or rows"
        yield Advice(
            "warning",
            f"{what} did not fit: {_listed([total.table for total in seen.errors_by_table])}.",
            "Correct the documents, or the mapping: what is mended goes from the list by itself.",
            "row_errors",
        )


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:NAMED])
    return f"{listed} and {len(names) - NAMED} more" if len(names) > NAMED else listed


def _short(words: str) -> str:
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"


def hours_in_words(hours: float) -> str:
    """Return them as hours, or as minutes where they are not one."""
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.0f} min"


def in_words(span: timedelta) -> str:
    """Return a span as people say it: ``12 s``, ``5 min``, ``3 h``, ``2 days``."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"
