"""The start page: the system at a glance, which refreshes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from changesource.admin import charts
from changesource.services.advice import Advice, advice, hours_in_words, in_words
from changesource.services.overview import SHOWN_REPLICAS, Overview, Position, Replica, overview

PARTS = "admin/overview/parts.html"
PAGE_OF = {
    "tables": "admin:changesource_tablemapping_changelist",
    "replicas": "admin:changesource_watermark_changelist",
    "row_errors": "admin:changesource_rowerror_changelist",
}
GOOD, WARN, BAD, IDLE = "good", "warn", "bad", "idle"


@dataclass(frozen=True)
class Tile:
    """A part of the system: how it is in a word or two, and more of it in lines."""

    title: str
    tone: str
    value: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Moment:
    """A position as people read it: when that was, how long ago, and the watermark itself."""

    clock: str
    ago: str
    watermark: str


@dataclass(frozen=True)
class Card:
    """A replica as it is shown."""

    replica: Replica
    url: str
    tone: str
    state: str
    lag: str
    rate: str
    sent: Moment | None
    acked: Moment | None
    since: str
    copied: int | None
    spark: str
    spark_words: str


def start_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the start page shows besides what every page has."""
    return {**context, **_shown(request)}


def parts(request: HttpRequest) -> HttpResponse:
    """The parts of the start page alone, as they are now; for those who may see replicas."""
    shown = _shown(request)
    if not shown["may_see"]:
        raise PermissionDenied
    return render(request, PARTS, shown)


def _shown(request: HttpRequest) -> dict[str, Any]:
    if not request.user.has_perm("changesource.view_watermark"):
        return {"may_see": False}
    seen = overview()
    sees_errors = request.user.has_perm("changesource.view_rowerror")
    return {
        "may_see": True,
        "sees_errors": sees_errors,
        "seen": seen,
        "tiles": _tiles(seen, sees_errors=sees_errors),
        "advice": [(one, _page_of(one)) for one in advice(seen) if sees_errors or one.about != "row_errors"],
        "charts": (charts.throughput(seen.hour, seen.at), charts.lag(seen.hour, seen.at)),
        "hour": charts.table(seen.hour, seen.at),
        "cards": [_card(one, seen.at) for one in seen.replicas[:SHOWN_REPLICAS]],
        "hidden": max(0, len(seen.replicas) - SHOWN_REPLICAS),
    }


def _page_of(one: Advice) -> str:
    return reverse(PAGE_OF[one.about]) if one.about else ""


def _tiles(seen: Overview, *, sees_errors: bool) -> list[Tile]:
    tiles = [_mongodb(seen), _watcher(seen), _layer(seen), _replicas(seen)]
    if sees_errors:
        entries = sum(total.entries for total in seen.errors_by_table)
        times = sum(total.seen for total in seen.errors_by_table)
        words = [f"met {times:,} times"] if entries else ["every document fits its tables"]
        tiles.append(Tile("Row errors", WARN if entries else GOOD, f"{entries:,}" if entries else "None", words))
    return tiles


def _mongodb(seen: Overview) -> Tile:
    server = seen.mongodb
    if server is None:
        problem = seen.mongodb_problem
        silent = problem is None or problem.retryable
        return Tile("MongoDB", BAD, "Does not answer" if silent else "Cannot be watched", ["see below"])
    members = "1 member" if server.members == 1 else f"{server.members} members"
    if server.oplog is None:
        oplog = "oplog: may not be read (docs/privileges.md)"
    else:
        oplog = f"oplog of {hours_in_words(server.oplog.hours)}, {server.oplog.filled:.0%} full"
    return Tile("MongoDB", GOOD, server.version, [f"replica set {server.replica_set}, {members}", oplog])


def _watcher(seen: Overview) -> Tile:
    watcher = seen.watcher
    if watcher is None:
        return Tile("Watcher", IDLE, "None yet", ["replicas read MongoDB themselves"])
    at, age = _clock(watcher.position.at, seen.at), seen.at - watcher.position.at
    leader = f"leader: {watcher.leader}" if watcher.leader else "in each server, for itself"
    still = age > max(3 * seen.keepalive, timedelta(seconds=30))
    lines = [f"at {at}, {in_words(age)} ago", leader]
    return Tile("Watcher", WARN if still else GOOD, "Stands still" if still else "Watching", lines)


def _layer(seen: Overview) -> Tile:
    if not seen.layer.shared:
        return Tile("Channel layer", GOOD, "In memory", ["of this process alone"])
    words = "does not answer" if seen.layer.problem else "answers"
    return Tile("Channel layer", BAD if seen.layer.problem else GOOD, "Redis", [words])


def _replicas(seen: Overview) -> Tile:
    connected = [one for one in seen.replicas if one.connected]
    rate = sum(one.rows_per_second for one in connected)
    lines = [f"of {len(seen.replicas):,} known", f"{charts.rate_in_words(rate)} rows per second"]
    return Tile("Replicas", GOOD if connected else IDLE, f"{len(connected):,} connected", lines)


def _card(one: Replica, now: datetime) -> Card:
    tone = BAD if one.state in ("stopped", "reset") or one.silent else GOOD if one.connected else IDLE
    state = "not heard of" if one.silent else one.state or "unknown"
    when = one.connected_at if one.connected else one.updated_at
    rate = one.rows_per_second if one.connected else 0.0
    highest = max((charts.rate_of(minute, now) for minute in one.hour), default=0.0)
    return Card(
        replica=one,
        url=reverse("admin:changesource_watermark_change", args=(one.pk,)),
        tone=tone,
        state=state,
        lag="-" if one.lag is None else "under 1 s" if one.lag < timedelta(seconds=1) else in_words(one.lag),
        rate=charts.rate_in_words(rate),
        sent=_moment(one.sent, now),
        acked=_moment(one.acked, now),
        since=f"{_clock(when, now)} ({in_words(now - when)})" if when else "-",
        copied=_copied(one),
        spark=charts.spark(one.hour, now),
        spark_words=f"Rows per second over the last hour: at most {charts.rate_in_words(highest)}",
    )


def _copied(one: Replica) -> int | None:
    """How much of the snapshot is there, in percent, while one is made."""
    if one.state != "syncing" or not one.snapshot or not one.snapshot["expected"]:
        return None
    return min(100, int(100 * one.snapshot["documents"] / one.snapshot["expected"]))


def _moment(position: Position | None, now: datetime) -> Moment | None:
    if position is None:
        return None
    return Moment(_clock(position.at, now), f"{in_words(now - position.at)} ago", position.text)


def _clock(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"
