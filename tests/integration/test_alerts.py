"""The alert rules: checked and tested by promtool, and fired by real faults, their times cut short."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from devtools.processes import free_port, wait_until
from devtools.prometheus import Prometheus, promtool
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill
from tests.harness.failpoints import failing
from tests.harness.reader import Reader, following
from tests.unit.test_monitoring import ALERT_TESTS, ALERTS, expressions

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "the-key-of-the-replica"
# What the test below does not bring about: they take a Redis that refuses, a reader that is slower than MongoDB, or a
# snapshot that stands for long. promtool tests them all the same.
NOT_BROUGHT_ABOUT = {"ZerosourceLayerRefuses", "ZerosourceReaderSlow", "ZerosourceSnapshotStands"}


def test_promtool_accepts_the_rules_and_they_fire_as_they_should(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", ALERT_TESTS)


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """As rules that record them; Grafana's variables are put in by Grafana."""
    asked = [expr.replace("$__rate_interval", "5m").replace("$job", ".*") for expr in expressions()]
    assert len(asked) > 20
    rules = [f"      - record: query:{number}\n        expr: '{expr}'\n" for number, expr in enumerate(asked)]
    file = tmp_path / "dashboard.yaml"
    file.write_text("groups:\n  - name: dashboard\n    rules:\n" + "".join(rules))
    assert f"{len(asked)} rules found" in promtool("check", "rules", "--lint=none", file)


def cut_short(rules: str) -> str:
    """The rules with seconds instead of minutes, but that what was there within an hour counts for a minute."""
    rules = re.sub(r"for: \d+m", "for: 0s", rules)
    rules = re.sub(r"\[(5|10|15)m\]", "[4s]", rules).replace("[1h]", "[1m]").replace("offset 15m", "offset 4s")
    return rules.replace("> 30", "> 3")


@contextmanager
def watched(directory: Path, port: int) -> Iterator[Prometheus]:
    """A Prometheus that watches a server on ``port``."""
    directory.mkdir(parents=True)
    rules = directory / "alerts.yaml"
    rules.write_text(cut_short(ALERTS.read_text()))
    prometheus = Prometheus(directory, rules, [f"127.0.0.1:{port}"])
    prometheus.start()
    try:
        yield prometheus
    finally:
        prometheus.stop()


@pytest.mark.slow
async def test_real_faults_fire_each_alert(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], tmp_path: Path
) -> None:
    fill(mongo, 5, others=5)
    place = deployment(CHANGE_SOURCE_API_KEYS=KEY, OPEN_METRICS="on", RELOAD_SECONDS="1")
    mappings = deepcopy(MAPPINGS)
    mappings["tables"]["item"]["errorPolicy"] = "stop"
    place.configure(mappings=mappings)
    port = free_port()
    server = place.server("--no-watcher", port=port)
    url = f"{server.stream_url}?apiKey={KEY}"
    fired: dict[str, dict[str, str]] = {}

    with watched(tmp_path / "prometheus", port) as prometheus:

        async def fires(*names: str) -> None:
            def all_of_them() -> bool:
                fired.update(prometheus.firing())
                return fired.keys() >= set(names)

            await asyncio.to_thread(wait_until, all_of_them, f"the alerts {names}", 30, detail=lambda: f"{fired}")

        def resumed(app_id: str) -> bool:
            return any("replica resumes" in line and app_id in line for line in server.log_text().splitlines())

        # Nobody leads, and so a replica reads its own change stream.
        with following(Reader(url, "alone")):
            await fires("ZerosourceNoLeader", "ZerosourceReplicaReadsMongoDB")
        await fires("ZerosourceReplicaGone")
        assert fired["ZerosourceReplicaGone"]["app_id"] == "alone"
        server.stop()
        await fires("ZerosourceDown")
        server = place.server(port=port)
        await asyncio.to_thread(
            wait_until, lambda: not prometheus.firing().keys() & {"ZerosourceDown", "ZerosourceNoLeader"}, "quiet", 30
        )
        # The last good one is kept, by which all that follows goes on.
        place.configure(mappings=[])
        await fires("ZerosourceMappingsFail")
        # A key that is no good, by somebody who does not stop; a watermark that is none.
        for _ in range(40):
            with suppress(WebSocketException):
                async with connect(f"{server.stream_url}?apiKey=wrong&appID=shop&shardNum=0"):
                    pass
            await asyncio.sleep(0.05)
        async with connect(f"{url}&appID=shop&shardNum=0&lastWatermark=none&replicaVersion=none") as socket:
            await socket.recv()
        await fires("ZerosourceRefusals", "ZerosourceReset")
        with following(Reader(url, "shop")):
            await asyncio.to_thread(wait_until, lambda: resumed("shop"), "the replica", 30)
            mongo["notes"].insert_one({"_id": "no UUID"})
            await fires("ZerosourceRowErrors")
            with failing(mongodb.client, ["getMore", "aggregate"], "alwaysOn", code=189):
                await fires("ZerosourceRetries", "ZerosourceReplicaLag", "ZerosourceWatcherLag")
            mongo["items"].insert_one({"_id": "unfit"})  # has no name, and the table stops at that
            await fires("ZerosourceReplicaStopped")
    names = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    assert names - fired.keys() == NOT_BROUGHT_ABOUT
