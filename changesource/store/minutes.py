"""The last hour of each replica, minute by minute: one row for each minute of the clock, overwritten an hour later."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import F, Max, Sum

from changesource.models import ReplicaMinute, Watermark

MINUTES = 60


class Minute(NamedTuple):
    """``minute`` is counted from 1970; ``lag_ms`` is the highest, None where nothing was sent."""

    minute: int
    rows: int
    lag_ms: int | None


def of(moment: datetime) -> int:
    """Return the minute that a moment is in."""
    return int(moment.timestamp()) // 60


def add(replica: Watermark, minute: int, rows: int, lag_ms: int | None) -> None:
    """Add what a replica was sent to a minute, in the caller's transaction."""
    values: dict[str, object] = {"rows": F("rows") + rows}
    found = ReplicaMinute.objects.filter(replica=replica, slot=minute % MINUTES, minute=minute)
    known = found.values_list("lag_ms", flat=True).first() if lag_ms is not None else None
    if lag_ms is not None and (known is None or known < lag_ms):
        values["lag_ms"] = lag_ms
    if not found.update(**values):
        fresh = {"minute": minute, "rows": rows, "lag_ms": lag_ms}
        ReplicaMinute.objects.update_or_create(fresh, replica=replica, slot=minute % MINUTES)


def last_hour(now: datetime) -> list[Minute]:
    """Return the minutes up to ``now`` that have anything, in order: all replicas' rows, and the highest lag."""
    found = ReplicaMinute.objects.filter(minute__gt=of(now) - MINUTES, minute__lte=of(now))
    totals = found.values("minute").annotate(total=Sum("rows"), highest=Max("lag_ms")).order_by("minute")
    return [Minute(*row) for row in totals.values_list("minute", "total", "highest")]


def last_hour_of(replicas: Iterable[int], now: datetime) -> dict[int, list[Minute]]:
    """Return ``last_hour`` of each of these replicas, by the primary key of its watermark."""
    hours: dict[int, list[Minute]] = {pk: [] for pk in replicas}
    found = ReplicaMinute.objects.filter(replica__in=hours, minute__gt=of(now) - MINUTES, minute__lte=of(now))
    for pk, minute, rows, lag_ms in found.order_by("minute").values_list("replica_id", "minute", "rows", "lag_ms"):
        hours[pk].append(Minute(minute, rows, lag_ms))
    return hours
