"""Series of replicas and of the watcher: there while they are, and no longer."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from changesource.metrics import CopyFigures, Reach, ReplicaFigures, Replicas, Watchers, reset_codes
from changesource.services.watcher import age_of, is_late
from tests.harness.scraping import series_of, value_of


class Connected:
    """A replica in some state."""

    def __init__(self, state: str, snapshot: CopyFigures | None = None) -> None:
        self._figures = ReplicaFigures(state, True, 3, lag=0.25, sent=1_700_000_000, snapshot=snapshot)

    def figures(self) -> ReplicaFigures:
        return self._figures


def shown(replicas: Replicas | Watchers) -> str:
    registry = CollectorRegistry()
    registry.register(replicas)
    return generate_latest(registry).decode()


def test_a_replica_has_series_while_it_is_connected() -> None:
    replicas, one, other = Replicas(), Connected("streaming"), Connected("syncing", CopyFigures(7, 5, 10))
    replicas.add("shop", 0, one)
    replicas.add("shop", 1, other)
    text = shown(replicas)
    assert value_of(text, "zerosource_replica_lag_seconds", app_id="shop", shard="0") == 0.25
    assert value_of(text, "zerosource_replica_unacknowledged_transactions", shard="1") == 3
    assert value_of(text, "zerosource_replica_acked_timestamp_seconds") is None  # nobody has said
    assert value_of(text, "zerosource_snapshot_documents", shard="0") is None
    assert value_of(text, "zerosource_snapshot_expected_documents", shard="1") == 10
    replicas.remove("shop", 0, one)
    replicas.remove("shop", 1, other)
    assert series_of(shown(replicas)) == []


def test_the_end_of_an_older_connection_leaves_the_newer_ones_series() -> None:
    replicas, older, newer = Replicas(), Connected("synced"), Connected("streaming")
    replicas.add("shop", 0, older)
    replicas.add("shop", 0, newer)
    replicas.remove("shop", 0, older)
    states = [labels["state"] for name, labels, _ in series_of(shown(replicas)) if name == "zerosource_replica_state"]
    assert states == ["streaming"]


class Leading:
    """A watcher that has published up to ``position``."""

    def __init__(self, position: int, lag: float | None) -> None:
        self.position = position
        self._lag = lag

    def lag(self) -> float | None:
        return self._lag


@pytest.mark.parametrize(("position", "lag", "count"), [(0, None, 0), (5 << 32, None, 1), (5 << 32 | 3, 0.5, 2)])
def test_a_watcher_has_series_once_it_has_published(position: int, lag: float | None, count: int) -> None:
    watchers = Watchers()
    assert series_of(shown(watchers)) == []
    watchers.watcher = Leading(position, lag)
    text = shown(watchers)
    assert len(series_of(text)) == count
    assert value_of(text, "zerosource_watcher_position_timestamp_seconds") == (5 if position else None)


def test_the_oplogs_window_is_shown_once_it_is_known() -> None:
    watchers = Watchers()
    watchers.oplog = Reach(7200, 0.25)
    text = shown(watchers)
    assert value_of(text, "zerosource_oplog_window_seconds") == 7200
    assert value_of(text, "zerosource_oplog_filled_ratio") == 0.25
    watchers.oplog = None
    assert series_of(shown(watchers)) == []


def test_a_lag_grows_where_heartbeats_are_overdue() -> None:
    now = int(time.time())
    assert age_of(now - 60 << 32 | 7) in (60, 61)
    assert age_of(now + 60 << 32) == 0  # MongoDB's clock is ahead
    assert is_late(22, keepalive=10)
    assert not is_late(21, keepalive=10)


def test_every_reset_has_its_series_from_the_beginning() -> None:
    assert {"ZS200", "ZS201", "ZS202", "ZS203", "ZS204", "ZS205"} <= set(reset_codes())
