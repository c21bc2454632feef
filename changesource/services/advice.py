"""What of an overview needs somebody's attention, each with the step that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from changesource.services.overview import Overview, Replica

Severity = Literal["error", "warning", "note"]
About = Literal["", "tables", "replicas", "row_errors"]
Code = Literal[
    "mongodb-away",
    "mongodb-refused",
    "oplog-short",
    "layer-away",
    "watcher-missing",
    "watcher-still",
    "nothing-published",
    "mappings-failed",
    "mappings-older",
    "replica-stopped",
    "replica-lost",
    "replica-late",
    "replica-unstored",
    "replica-silent",
    "replica-gone",
    "row-errors",
]
SHORT_OPLOG_HOURS = 24
FULL = 0.8  # of its bound: from about here on the oplog forgets
LATE = timedelta(minutes=1)
LONG_GONE = timedelta(hours=1)
NAMED = 5
MAX_WORDS = 300


@dataclass(frozen=True)
class Advice:
    """What is wrong, and what to do; ``about`` says which page of the admin shows more of it.

    ``code`` is stable, for scripts (docs/metadata.md lists all), and ``names`` are the replicas or tables concerned.
    """

    code: Code
    severity: Severity
    problem: str
    remedy: str
    about: About = ""
    names: tuple[str, ...] = ()


def advice(seen: Overview) -> list[Advice]:
    """Return all there is to say, what is worst first."""
    parts = (_mongodb, _layer, _watcher, _mappings, _replicas, _row_errors)
    found = [one for part in parts for one in part(seen)]
    return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))


def _mongodb(seen: Overview) -> Iterator[Advice]:
    problem = seen.mongodb_problem
    if problem is not None and problem.retryable:
        yield Advice(
            "mongodb-away",
            "error",
            f"MongoDB does not answer: {_short(problem.message)}",
            f"{problem.remedy} Replicas wait, and go on by themselves once it answers.",
        )
    elif problem is not None:
        yield Advice("mongodb-refused", "error", _short(problem.message), problem.remedy)
    oplog = seen.mongodb.oplog if seen.mongodb else None
    if oplog is not None and oplog.filled >= FULL and oplog.hours < SHORT_OPLOG_HOURS:
        yield Advice(
            "oplog-short",
            "warning",
            f"MongoDB's oplog reaches back {hours_in_words(oplog.hours)}: a replica away for longer syncs anew.",
            "Have it keep more: db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 48}).",
        )


def _layer(seen: Overview) -> Iterator[Advice]:
    if seen.layer.problem:
        yield Advice(
            "layer-away",
            "error",
            f"The channel layer does not answer: {_short(seen.layer.problem)}",
            "Check REDIS_URL, and that Redis runs. Meanwhile each replica reads MongoDB itself, which costs more.",
        )


def _watcher(seen: Overview) -> Iterator[Advice]:
    if seen.mongodb is None or seen.served is None:
        return  # nobody can watch
    remedy = "Run manage.py serve (without --no-watcher), or manage.py runwatcher beside it, and see its log."
    if seen.watcher is None:
        problem = "No watcher has run yet, so each replica reads MongoDB itself."
        yield Advice("watcher-missing", "warning", problem, remedy)
    elif seen.at - seen.watcher.position.at > max(3 * seen.keepalive, timedelta(seconds=30)):
        age = in_words(seen.at - seen.watcher.position.at)
        problem = f"The watcher has not moved for {age}, so each replica reads MongoDB itself."
        yield Advice("watcher-still", "warning", problem, remedy)


def _mappings(seen: Overview) -> Iterator[Advice]:
    if seen.served is None:
        problem, remedy = "Nothing is published yet.", "Map a table and press Publish."
        yield Advice("nothing-published", "warning", problem, remedy, "tables")
    reading = seen.reading
    if reading is not None and reading.result == reading.Result.FAILED:
        since = in_words(seen.at - reading.since)
        problem = (
            f"The file or URL of the mappings cannot be used, for {since}: {reading.code} {_short(reading.problem)}"
        )
        remedy = "Correct it, or see why it cannot be read. The last good mappings are served, and it is read again."
        yield Advice("mappings-failed", "warning", problem, remedy, "tables")
    elif reading is not None and reading.result == reading.Result.OLDER:
        problem = (
            "The file or URL gives mappings that were loaded before, and replaced by others; they are not taken again."
        )
        remedy = "Press Load from file or URL, or run manage.py reloadmappings, to serve them; or correct it."
        yield Advice("mappings-older", "warning", problem, remedy, "tables")


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

    kinds: tuple[tuple[Code, Callable[[Replica], bool], Severity, str, str], ...] = (
        (
            "replica-stopped",
            lambda one: one.connected and one.state == "stopped",
            "error",
            "Stopped: {names}. {message}",
            "Correct what the message names; the replica goes on by itself.",
        ),
        (
            "replica-lost",
            lost,
            "error",
            "Away for longer than the oplog reaches back: {names}.",
            "It syncs anew when it comes back.",
        ),
        (
            "replica-late",
            late,
            "warning",
            "More than a minute behind: {names}.",
            "See whether its zero-cache and this server have processor time to spare, and what MongoDB's log says.",
        ),
        (
            "replica-unstored",
            unstored,
            "warning",
            "Sent, but not stored for more than a minute: {names}.",
            "See whether its zero-cache is overloaded, or waits for its PostgreSQL.",
        ),
        (
            "replica-silent",
            lambda one: one.silent,
            "warning",
            "Not heard of, though they were not closed: {names}.",
            "The process that served them has ended. A zero-cache that runs comes back by itself.",
        ),
        (
            "replica-gone",
            gone,
            "note",
            "Disconnected for more than an hour: {names}.",
            "Start its zero-cache, or forget the replica where it will not come back.",
        ),
    )
    for code, holds, severity, problem, remedy in kinds:
        if those := [one for one in seen.replicas if holds(one)]:
            names, message = tuple(one.name for one in those), _short(those[0].message)
            words = problem.format(names=_listed(names), message=message).strip()
            yield Advice(code, severity, words, remedy, "replicas", names)


def _row_errors(seen: Overview) -> Iterator[Advice]:
    entries = sum(total.entries for total in seen.errors_by_table)
    if entries:
        what = "1 value or row" if entries == 1 else f"{entries:,} values or rows"
        names = tuple(total.table for total in seen.errors_by_table)
        yield Advice(
            "row-errors",
            "warning",
            f"{what} did not fit: {_listed(names)}.",
            "Correct the documents, or the mapping: what is mended goes from the list by itself.",
            "row_errors",
            names,
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
