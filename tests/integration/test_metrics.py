"""What running processes tell Prometheus: all that docs/metrics.md says, and it is true."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from pymongo.database import Database
from websockets.asyncio.client import connect

from changesource.metrics import WATCHERS
from changesource.services import runtime
from devtools.processes import free_port, wait_until
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill
from tests.harness.documentation import METRICS_HEAD, ROOT, table
from tests.harness.failpoints import failing
from tests.harness.reader import Reader
from tests.harness.runtimes import running
from tests.harness.scraping import labels_of, metrics_of, scraped, series_of, value_of
from tests.harness.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "the-key-of-prometheus"
REPLICA = {"app_id": "reader", "shard": "0"}
DOCUMENTED = table(ROOT / "docs" / "metrics.md", METRICS_HEAD)


async def test_a_running_server_tells_what_is_documented(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    fill(mongo, 5, others=5)
    place = deployment(CHANGE_SOURCE_API_KEYS=KEY)
    place.configure(mappings=MAPPINGS)
    server = place.server()
    page = f"{server.url}/metrics?apiKey={KEY}"
    await asyncio.to_thread(wait_until, lambda: "watching" in server.log_text(), "the watcher", 20)
    reader = Reader(f"{server.stream_url}?apiKey={KEY}")
    await reader.sync()
    copied = sum(len(reader.model.rows(name)) for name in MAPPINGS["tables"])
    text = scraped(page)
    assert value_of(text, "zerosource_snapshots_begun_total") == value_of(text, "zerosource_snapshots_done_total") == 1
    assert value_of(text, "zerosource_rows_total", way="snapshot") == copied > 0
    assert value_of(text, "zerosource_transactions_total") == 1
    assert value_of(text, "zerosource_transaction_rows_count") == 0
    mongo["items"].insert_one({"_id": "unfit"})  # has no name
    for number in range(3):
        mongo["items"].insert_one({"_id": f"new-{number}", "name": "new"})
    seen: list[str] = []

    def served() -> bool:
        if ("new-2",) not in reader.model.rows("item"):
            return False
        seen.append(scraped(page))
        acked = value_of(seen[-1], "zerosource_replica_acked_timestamp_seconds", **REPLICA)
        return acked is not None and value_of(seen[-1], "zerosource_replica_reads_mongodb", **REPLICA) == 0

    await reader.follow(served)
    text, now = seen[-1], time.time()
    for name in ("replica_sent", "watcher_position"):
        assert now - 10 < (value_of(text, f"zerosource_{name}_timestamp_seconds") or 0) <= now + 1
    for name in ("replica", "watcher"):
        lag = value_of(text, f"zerosource_{name}_lag_seconds")
        assert lag is not None
        assert 0 <= lag < 10
    assert value_of(text, "zerosource_replica_state", **REPLICA, state="streaming") == 1
    streamed = value_of(text, "zerosource_rows_total", way="stream")
    assert value_of(text, "zerosource_transaction_rows_sum") == streamed
    assert streamed in (3, 4)  # the row that was left out is deleted
    frames, size = (value_of(text, f"zerosource_sent_{what}_total") for what in ("frames", "bytes"))
    assert size is not None
    assert frames is not None
    assert size > frames * 20 > copied
    assert value_of(text, "zerosource_leader") == 1
    assert value_of(text, "zerosource_oplog_window_seconds") is not None
    assert 0 < (value_of(text, "zerosource_oplog_filled_ratio") or 0) < 1
    assert value_of(text, "zerosource_catch_ups_total", reason="connected") == 1
    assert value_of(text, "zerosource_row_errors_total", table="item", effect="left_out")
    await asyncio.to_thread(wait_until, lambda: "reader" not in scraped(page), "the end of the replica's series", 20)
    parameters = "appID=other&shardNum=0&lastWatermark=nonsense&replicaVersion=nonsense"
    async with connect(f"{server.stream_url}?apiKey={KEY}&{parameters}") as socket:
        assert "reset-required" in str(await socket.recv())
    text = scraped(page)
    assert value_of(text, "zerosource_resets_total", code="ZS201") == value_of(text, "zerosource_resets_total") == 1
    assert metrics_of(text) == {name.strip("`"): kind for name, kind, _, _ in DOCUMENTED}


async def test_labels_are_those_that_are_documented(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Of all that has series, seen while a replica is syncing, when most have."""
    fill(mongo, 5, others=5)
    mongo["items"].insert_one({"_id": "unfit"})
    place = deployment(OPEN_METRICS="on")
    place.configure(mappings=MAPPINGS)
    server = place.server()
    seen: list[str] = []
    await Reader(server.stream_url).sync(lambda number: seen.append(scraped(f"{server.url}/metrics")))
    documented = {
        name.strip("`"): set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", of))) for name, _, of, _ in DOCUMENTED
    }
    shown = labels_of(seen[-1]) | labels_of(scraped(f"{server.url}/metrics"))
    assert {name: documented[name] for name in shown} == shown
    missing = documented.keys() - shown.keys()
    assert {name for name in missing if "snapshot" in name or "row_errors" in name} == set()
    assert len(missing) <= 6, missing


@pytest.mark.parametrize("code", [189, 136], ids=["PrimarySteppedDown", "CappedPositionLost"])
async def test_the_oplogs_window_goes_and_comes_with_mongodb(
    mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whatever MongoDB answers: it is a metric, and ends nothing."""
    monkeypatch.setattr(runtime, "OPLOG_SECONDS", 0.05)
    async with running(mongodb.uri, mongo.name) as made:
        noting = asyncio.create_task(made._note_oplog())
        try:
            await until(lambda: WATCHERS.oplog is not None)
            with failing(mongodb.client, ["aggregate"], "alwaysOn", code=code):
                await until(lambda: WATCHERS.oplog is None)
            await until(lambda: WATCHERS.oplog is not None)
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
            WATCHERS.oplog = None


async def test_the_watcher_alone_tells_on_a_port_of_its_own(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    fill(mongo, 1, others=1)
    place = deployment(redis=True)
    place.configure(mappings=MAPPINGS)
    port = free_port()
    watcher = place.watcher(WATCHER_METRICS_PORT=str(port))
    page = f"http://127.0.0.1:{port}/"
    await asyncio.to_thread(wait_until, lambda: "watching" in watcher.log_text(), "the watcher", 30)

    def tells() -> bool:
        return value_of(scraped(page), "zerosource_watcher_lag_seconds") is not None

    await asyncio.to_thread(wait_until, tells, "a heartbeat that was published", 20)
    text = scraped(page)
    assert value_of(text, "zerosource_leader") == 1
    assert value_of(text, "zerosource_watcher_batches_total", result="published")
    assert not [labels for _, labels, _ in series_of(text) if "app_id" in labels]
    second = place.watcher(WATCHER_METRICS_PORT=str(port))
    assert second.wait(30) != 0
    assert "WATCHER_METRICS_PORT" in second.log_text()
