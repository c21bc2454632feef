"""The alert rules: checked and tested by promtool, and fired by real faults, their times cut short."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from devtools.processes import free_port, wait_until
from devtools.prometheus import Prometheus, promtool
from devtools.redis import RedisServer
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill
from tests.harness.deployment import Deployment
from tests.harness.failpoints import failing
from tests.harness.reader import Reader, following
from tests.unit.test_monitoring import ALERT_TESTS, ALERTS, expressions

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "the-key-of-the-replica"
OPLOG = 10_000  # entries; all that is written before is fewer


@pytest.fixture
def mongodb(secantusdb: Callable[..., SecantusDB]) -> Iterator[MongoServer]:
    """One whose oplog is soon full."""
    own = secantusdb(oplog_entries=OPLOG)
    with MongoClient[dict[str, Any]](own.uri) as client:
        yield MongoServer(own.uri, client, is_secantusdb=True)


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
    """The rules with seconds instead of minutes, but that what was there within an hour counts for a minute.

    A snapshot has read nothing in its first moment, which is not what its alert is for.
    """
    rules = rules.replace("for: 10m", "for: 3s")
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


@dataclass
class Faults:
    """A deployment that a Prometheus watches, and what goes wrong with it; ``fired`` are the alerts so far."""

    place: Deployment
    prometheus: Prometheus
    mongodb: MongoServer
    mongo: Database[Any]
    redis: RedisServer
    port: int
    fired: dict[str, dict[str, str]] = field(default_factory=dict)

    def serve(self, *options: str) -> None:
        self.server = self.place.server(*options, port=self.port)
        self.url = f"{self.server.stream_url}?apiKey={KEY}"

    async def fires(self, *names: str) -> None:
        """Wait until these have fired, which are then known to; others may fire as well."""
        seen: dict[str, dict[str, str]] = {}

        def all_of_them() -> bool:
            seen.update(self.prometheus.firing())
            return seen.keys() >= set(names)

        await self.until(all_of_them, f"the alerts {names}")
        self.fired |= {name: seen[name] for name in names}

    async def quiet(self, *names: str) -> None:
        """Wait until none of these fires: before what they are for, or after it."""
        await self.until(lambda: not self.prometheus.firing().keys() & set(names), f"the end of {names}")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(wait_until, condition, what, 30)

    async def resumed(self, app_id: str) -> None:
        def says_so() -> bool:
            return any("replica resumes" in line and app_id in line for line in self.server.log_text().splitlines())

        await self.until(says_so, f"the replica {app_id}")

    async def nobody_leads(self) -> None:
        """And so a replica reads its own change stream; then it goes, and the process as well."""
        self.serve("--no-watcher")
        with following(Reader(self.url, "alone")):
            await self.fires("ZerosourceNoLeader", "ZerosourceReplicaReadsMongoDB")
        await self.fires("ZerosourceReplicaGone")
        assert self.fired["ZerosourceReplicaGone"]["app_id"] == "alone"
        self.server.stop()
        await self.fires("ZerosourceDown")
        self.serve()
        await self.quiet("ZerosourceDown", "ZerosourceNoLeader")

    async def mappings_cannot_be_read(self) -> None:
        """They are no JSON of ours any more. The last good one is kept, by which all that follows goes on."""
        await self.quiet("ZerosourceMappingsFail")
        self.place.configure(mappings=[])
        await self.fires("ZerosourceMappingsFail")

    async def strangers_come(self) -> None:
        """A key that is no good, by somebody who does not stop; a watermark that is none."""
        for _ in range(40):
            with suppress(WebSocketException):
                async with connect(f"{self.server.stream_url}?apiKey=wrong&appID=shop&shardNum=0"):
                    pass
            await asyncio.sleep(0.05)
        async with connect(f"{self.url}&appID=shop&shardNum=0&lastWatermark=none&replicaVersion=none") as socket:
            await socket.recv()
        await self.fires("ZerosourceRefusals", "ZerosourceReset")

    async def redis_is_full(self) -> None:
        """It takes no batch; what the watcher has to say every second is refused."""
        await self.quiet("ZerosourceLayerRefuses")
        with following(Reader(self.url, "hears")), Redis(port=self.redis.port) as client:
            await self.resumed("hears")
            client.config_set("maxmemory", 1)
            await self.fires("ZerosourceLayerRefuses")
            client.config_set("maxmemory", 0)
            await self.quiet("ZerosourceLayerRefuses")

    async def a_snapshot_cannot_read(self) -> None:
        """MongoDB answers no find, for a while; then the snapshot comes to its end."""
        await self.quiet("ZerosourceSnapshotStands")
        reader = Reader(self.url, "new")
        with failing(self.mongodb.client, ["find"], "alwaysOn", code=189):
            syncing = asyncio.create_task(reader.sync())
            await self.fires("ZerosourceSnapshotStands")
        assert self.fired["ZerosourceSnapshotStands"]["app_id"] == "new"
        await syncing

    async def a_reader_stores_nothing(self) -> None:
        """It takes what comes, and acknowledges none of it."""
        await self.quiet("ZerosourceReaderSlow")
        reader = Reader(self.url, "slow")
        await reader.sync()
        async with reader.connection() as socket:
            await self.resumed("slow")
            self.mongo["items"].insert_many([{"_id": f"many-{number}", "name": "n"} for number in range(2500)])
            taking = asyncio.create_task(self.take(socket))
            await self.fires("ZerosourceReaderSlow")
            taking.cancel()
        assert self.fired["ZerosourceReaderSlow"]["app_id"] == "slow"

    async def take(self, socket: ClientConnection) -> None:
        while True:
            await socket.recv()

    async def a_replica_meets_faults(self) -> None:
        """A document that does not fit, a MongoDB that fails, and a document at which a table stops."""
        with following(Reader(self.url, "shop")):
            await self.resumed("shop")
            await self.quiet(
                "ZerosourceRowErrors", "ZerosourceReplicaLag", "ZerosourceWatcherLag", "ZerosourceReplicaStopped"
            )
            self.mongo["notes"].insert_one({"_id": "no UUID"})
            await self.fires("ZerosourceRowErrors")
            with failing(self.mongodb.client, ["getMore", "aggregate"], "alwaysOn", code=189):
                await self.fires("ZerosourceRetries", "ZerosourceReplicaLag", "ZerosourceWatcherLag")
            self.mongo["items"].insert_one({"_id": "unfit"})  # has no name, and the table stops at that
            await self.fires("ZerosourceReplicaStopped")

    async def the_oplog_is_short(self) -> None:
        """It is full and forgets; a server asks how far it reaches as soon as it leads."""
        await self.quiet("ZerosourceOplogShort")
        for start in range(0, OPLOG, 1000):
            self.mongo["of_others"].insert_many([{"n": number} for number in range(start, start + 1000)])
        self.server.stop()
        self.serve()
        await self.fires("ZerosourceOplogShort")


@pytest.mark.slow
async def test_each_alert_fires_on_its_real_fault(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], tmp_path: Path
) -> None:
    fill(mongo, 5, others=5)
    redis, port = RedisServer(tmp_path / "redis"), free_port()
    place = deployment(CHANGE_SOURCE_API_KEYS=KEY, OPEN_METRICS="on", REDIS_URL=redis.url, RELOAD_SECONDS="1")
    mappings = deepcopy(MAPPINGS)
    mappings["tables"]["item"]["errorPolicy"] = "stop"
    place.configure(mappings=mappings)
    redis.start()
    try:
        with watched(tmp_path / "prometheus", port) as prometheus:
            faults = Faults(place, prometheus, mongodb, mongo, redis, port)
            await faults.nobody_leads()
            await faults.mappings_cannot_be_read()
            await faults.strangers_come()
            await faults.redis_is_full()
            await faults.a_snapshot_cannot_read()
            await faults.a_reader_stores_nothing()
            await faults.a_replica_meets_faults()
            await faults.the_oplog_is_short()
    finally:
        redis.stop()
    assert faults.fired.keys() == set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
