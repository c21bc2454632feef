"""The overview as JSON, for scripts: codes and figures. No words of errors, which may quote a document's ``_id``."""

from __future__ import annotations

from datetime import datetime
from typing import Final, get_args

from changesource import VERSION
from changesource.conf import settings
from changesource.mapping.fingerprint import TRANSFORM_VERSION
from changesource.mapping.spec import Json
from changesource.models import ManagedReading
from changesource.services.advice import Severity, advice
from changesource.services.config_files import shown_origin
from changesource.services.configuration import current
from changesource.services.overview import Overview, Position, Replica, overview
from changesource.store.mappings import published_at

# The snapshot's figures that are told; a row of an older release may lack some.
SNAPSHOT: Final = ("rows", "documents", "expected")


def status() -> dict[str, Json]:
    """Return it as it is now, as ``/metadata/openapi.json`` describes it. Raises as ``overview`` does."""
    seen = overview()
    found = advice(seen)
    severities = [one.severity for one in found]
    return {
        "at": _iso(seen.at),
        "version": VERSION,
        "transform_version": TRANSFORM_VERSION,
        "severity": next((one for one in get_args(Severity) if one in severities), None),
        "attention": [{"code": one.code, "severity": one.severity, "names": list(one.names)} for one in found],
        "mappings": _mappings(seen),
        "mongodb": _mongodb(seen),
        "channel_layer": {"kind": "redis" if seen.layer.shared else "memory", "answers": not seen.layer.problem},
        "watcher": _watcher(seen),
        "replicas": [_replica(one) for one in seen.replicas],
        "row_errors": [
            {"table": total.table, "entries": total.entries, "seen": total.seen, "last_seen": _iso(total.last_seen)}
            for total in seen.errors_by_table
        ],
    }


def _mappings(seen: Overview) -> dict[str, Json]:
    published, reading = current(), seen.reading
    tables: list[Json] = [] if published is None else [table.name for table in published.specification.tables]
    publications: list[Json] = [] if published is None else [*sorted(published.specification.publications)]
    return {
        "revision": None if published is None else published.number,
        "published_at": None if published is None else _iso(published_at(published.number)),
        "tables": tables,
        "publications": publications,
        "source": None if reading is None else _source(reading),
    }


def _source(reading: ManagedReading) -> dict[str, Json]:
    chosen = settings()
    return {
        "origin": shown_origin(chosen),
        "reload_seconds": chosen.reload_seconds,
        "result": reading.result,
        "code": reading.code or None,
        "read_at": _iso(reading.read_at),
        "since": _iso(reading.since),
    }


def _mongodb(seen: Overview) -> dict[str, Json]:
    server, problem = seen.mongodb, seen.mongodb_problem
    oplog = None if server is None else server.oplog
    return {
        "code": None if problem is None else problem.code,
        "version": None if server is None else server.version,
        "replica_set": None if server is None else server.replica_set,
        "members": None if server is None else server.members,
        "oplog": None if oplog is None else {"hours": round(oplog.hours, 2), "filled": round(oplog.filled, 3)},
    }


def _watcher(seen: Overview) -> Json:
    watcher = seen.watcher
    if watcher is None:
        return None
    age = (seen.at - watcher.position.at).total_seconds()
    return {"at": _iso(watcher.position.at), "age_seconds": round(max(0.0, age), 1), "leader": watcher.leader or None}


def _replica(one: Replica) -> dict[str, Json]:
    snapshot = one.snapshot
    return {
        "app_id": one.app_id,
        "shard": one.shard,
        "publications": list(one.publications),
        "state": one.state,
        "connected": one.connected,
        "silent": one.silent,
        "resync_wanted": one.resync_wanted,
        "lag_seconds": None if one.lag is None else one.lag.total_seconds(),
        "rows_per_second": one.rows_per_second,
        "sent": _position(one.sent),
        "acked": _position(one.acked),
        "connected_at": None if one.connected_at is None else _iso(one.connected_at),
        "updated_at": _iso(one.updated_at),
        "snapshot": None if snapshot is None else {name: snapshot.get(name) for name in SNAPSHOT},
    }


def _position(position: Position | None) -> Json:
    return None if position is None else {"watermark": position.text, "at": _iso(position.at)}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
