"""Where replicas and the watcher stand, as rows that operators see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from changesource.models import Watermark as Row
from changesource.store import minutes

CONNECTED = frozenset({"connected", "syncing", "synced", "streaming", "stopped"})
# A connected replica writes its row every ten seconds, or its process is gone.
SILENT_SECONDS = 30.0
POSITION = re.compile(r"[0-9]{1,20}", re.ASCII)  # a cluster time
WISH = ("app_id", "shard_num", "replica_version")


@dataclass(frozen=True)
class SyncPoint:
    """A replica's last initial sync: its ``replicaVersion``, and the position (a cluster time) that it showed."""

    replica_version: str
    position: int | None


def sync_point(app_id: str, shard_num: int) -> SyncPoint | None:
    """Return the replica's last initial sync, None where it is not known."""
    row = Row.objects.filter(kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num).first()
    if row is None:
        return None
    # Where it cannot be read it is not known, and what the snapshot shows is sent once more.
    known = POSITION.fullmatch(row.sync_end)
    return SyncPoint(row.replica_version, int(row.sync_end) if known else None)


SHARDS = 10  # of so many replicas one may be another shard of the same app id


def admit(app_id: str, shard_num: int, most: int) -> bool:
    """Whether the replica is known, or becomes so now as one of at most ``most``, and a tenth of those of one app id.

    So a key that is bound to one keeps no other app's replicas out.
    """
    with transaction.atomic():
        rows = Row.objects.filter(kind=Row.Kind.REPLICA)
        if rows.filter(app_id=app_id, shard_num=shard_num).exists():
            return True
        if rows.count() >= most or rows.filter(app_id=app_id).count() >= max(1, most // SHARDS):
            return False
        Row.objects.get_or_create({"state": "connected"}, kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num)
    return True


def begin_sync(app_id: str, shard_num: int, publications: Sequence[str], replica_version: str) -> None:
    """Note that an initial sync has begun."""
    values = {
        "publications": list(publications),
        "replica_version": replica_version,
        "sync_end": "",
        "resync_wanted": False,
        "sent": "",
        "acked": "",
        "state": "syncing",
        "message": "",
        "snapshot": None,
        "connected_at": timezone.now(),
        "updated_at": timezone.now(),
    }
    Row.objects.update_or_create(values, kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num)


def end_sync(app_id: str, shard_num: int, replica_version: str, position: int) -> None:
    """Remember which position the snapshot of ``replica_version`` showed."""
    Row.objects.filter(
        kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num, replica_version=replica_version
    ).update(sync_end=str(position), sent=replica_version, state="synced", updated_at=timezone.now())


@dataclass(frozen=True)
class Progress:
    """What a connection tells of itself; an empty text leaves what was there.

    ``lag`` is how old the last change was when it was sent, in whole seconds; None before the first. ``snapshot`` is
    how far the copying is, or was at its end, as JSON; None where there was none. ``rows`` were sent since this was
    told last; ``rows_per_second`` over the last seconds.
    """

    state: str
    sent: str = ""
    acked: str = ""
    message: str = ""
    lag: int | None = None
    snapshot: dict[str, object] | None = None
    rows: int = 0
    rows_per_second: float = 0.0


def note_progress(app_id: str, shard_num: int, progress: Progress, *, connected: bool = False) -> None:
    """Write how far a replica is; ``connected`` marks the beginning of a connection."""
    now = timezone.now()
    values: dict[str, object] = {
        "state": progress.state,
        "message": progress.message,
        "updated_at": now,
        "rows_per_second": progress.rows_per_second,
    }
    if progress.sent:
        values["sent"] = progress.sent
    if progress.acked:
        values["acked"] = progress.acked
    if progress.lag is not None:
        values["lag_ms"] = progress.lag * 1000
    if progress.snapshot is not None:
        values["snapshot"] = progress.snapshot
    if connected:
        values["connected_at"] = now
    lag_ms = None if progress.lag is None else progress.lag * 1000
    with transaction.atomic():
        row, _ = Row.objects.update_or_create(values, kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num)
        if progress.rows or lag_ms is not None:
            minutes.add(row, minutes.of(now), progress.rows, lag_ms)


def note_watcher(position: int, state: str = "watching") -> None:
    """Write how far the watcher is."""
    values = {"sent": str(position), "state": state, "updated_at": timezone.now()}
    Row.objects.update_or_create(values, kind=Row.Kind.WATCHER, app_id="", shard_num=0)


def watcher_noted_at() -> datetime | None:
    """Return when a watcher last moved on, None where none ever did; with heartbeats it does so all the time."""
    return Row.objects.filter(kind=Row.Kind.WATCHER).values_list("updated_at", flat=True).first()


def everything() -> list[Row]:
    """Return all rows: the watcher's, where there is one, and the replicas'."""
    return list(Row.objects.all())


def replicas() -> list[tuple[str, list[str], str]]:
    """Return all known replicas, as (name, publications, state)."""
    rows = Row.objects.filter(kind=Row.Kind.REPLICA)
    return [(str(row), row.publications if isinstance(row.publications, list) else [], row.state) for row in rows]


def resyncs_wanted() -> dict[tuple[str, int], str]:
    """Return the replicas, as (app id, shard), that operators asked to sync anew, each with its version then."""
    rows = Row.objects.filter(kind=Row.Kind.REPLICA, resync_wanted=True)
    return {(app_id, shard): version for app_id, shard, version in rows.values_list(*WISH)}


def want_resync(pks: Iterable[int]) -> list[Row]:
    """Have these replicas told to sync anew, when connected or as soon as they are; return them."""
    rows = list(Row.objects.filter(kind=Row.Kind.REPLICA, pk__in=list(pks)))
    Row.objects.filter(pk__in=[row.pk for row in rows]).update(resync_wanted=True)
    return rows


def forget(pks: Iterable[int]) -> list[Row]:
    """Delete what is known of these replicas, but for those that are connected; return those that were forgotten.

    One that comes back all the same goes on from its own watermark.
    """
    lately = timezone.now() - timedelta(seconds=SILENT_SECONDS)
    known = Row.objects.filter(kind=Row.Kind.REPLICA, pk__in=list(pks))
    rows = list(known.exclude(state__in=CONNECTED, updated_at__gt=lately))
    Row.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return rows


def replica(app_id: str, shard_num: int) -> int | None:
    """The primary key of a replica's row; None where it is not known."""
    return (
        Row.objects.filter(kind=Row.Kind.REPLICA, app_id=app_id, shard_num=shard_num)
        .values_list("pk", flat=True)
        .first()
    )
