"""Traces, as a collector takes them of real processes: a write is followed from the change stream to its ack."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from typing import Any

import pytest
from pymongo.database import Database
from websockets.asyncio.client import connect

from devtools.processes import wait_until
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.collector import Collector, TakenSpan, collecting
from tests.harness.reader import Reader, following
from tests.harness.scraping import scraped, value_of

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "the-key-that-no-trace-shows"
SECRET = "words-of-a-document"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


def only(spans: list[TakenSpan]) -> TakenSpan:
    (span,) = spans
    return span


def follow_the_write(collector: Collector, mongo: Database[Any]) -> list[TakenSpan]:
    """Write once, and return the spans of its way, from ``changes`` to ``ack``."""
    before = time.time_ns()
    mongo["items"].insert_one({"_id": SECRET, "name": SECRET})
    return collector.way_since(before)


def follows_the_layer(metrics: str) -> bool:
    replica = {"app_id": "shop", "shard": "0"}
    return (
        value_of(metrics, "zerosource_replica_state", **replica, state="streaming") == 1
        and value_of(metrics, "zerosource_replica_reads_mongodb", **replica) == 0
    )


async def test_a_write_is_followed_across_processes(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    fill(mongo, 5, others=5)
    with collecting() as (address, collector):
        place = deployment(redis=True, CHANGE_SOURCE_API_KEYS=KEY, OTEL_EXPORTER_OTLP_ENDPOINT=address, **SOON)
        place.configure(mappings=MAPPINGS)
        server = place.server("--no-watcher", OTEL_SERVICE_NAME="server", OTEL_EXPORTER_OTLP_HEADERS="x-token=abc")
        watcher = place.watcher(OTEL_SERVICE_NAME="watcher")
        watcher.wait_until(lambda: "watching" in watcher.log_text(), "the watcher", 20)
        url = f"{server.stream_url}?apiKey={KEY}"
        with following(Reader(url, "shop")):
            page = f"{server.url}/metrics?apiKey={KEY}"
            await asyncio.to_thread(wait_until, lambda: follows_the_layer(scraped(page)), "the layer", 20)
            way = await asyncio.to_thread(follow_the_write, collector, mongo)
        assert [span.name for span in way] == ["changes", "publish", "deliver", "ack"]
        changes, publish, deliver, ack = way
        assert {span.trace for span in way} == {changes.trace}
        assert (changes.service, publish.service, deliver.service, ack.service) == ("watcher",) * 2 + ("server",) * 2
        assert (publish.kind, deliver.kind) == ("producer", "consumer")
        steps = collector.children(changes)
        assert steps.keys() == {"read", "transform", "group", "publish"}
        send = collector.children(deliver)["send"]
        ordered = [changes, steps["read"], steps["transform"], steps["group"], publish, deliver, ack]
        assert [span.began for span in ordered] == sorted(span.began for span in ordered)
        assert changes.began == steps["read"].began
        assert send.began == deliver.began
        assert send.ended == ack.began <= ack.ended <= deliver.ended
        assert deliver.attributes["zerosource.app_id"] == "shop"
        assert deliver.attributes["zerosource.acked"] is True
        # zero-cache comes back with what is no watermark, and is told to sync anew.
        async with connect(f"{url}&appID=shop&shardNum=0&lastWatermark=none&replicaVersion=none") as socket:
            await socket.recv()
        assert server.answers("/admin/login/?next=/admin/logout/")
        for name in ("reset", "GET admin/login/"):
            await asyncio.to_thread(wait_until, lambda name=name: collector.named(name), name, 20)
        watcher.stop()
        server.stop()
    check_the_rest(collector)
    check_nothing_is_told(collector, mongo)


def check_the_rest(collector: Collector) -> None:
    """A snapshot with each collection and its commands, barriers, a catch-up, publishing, a reset, a page."""
    snapshot = only(collector.named("snapshot", app_id="shop"))
    assert snapshot.attributes["zerosource.rows"]
    spans = [span for span in collector.spans if span.trace == snapshot.trace]
    copied = {span.attributes["db.collection.name"]: span for span in spans if span.name == "copy"}
    assert copied.keys() == {table["collection"] for table in MAPPINGS["tables"].values()}
    assert set(str(copied["rooms"].attributes["zerosource.tables"]).split(",")) == {"chat", "channel", "resident"}
    find = collector.children(copied["users"])["find users"]
    assert (find.kind, find.attributes["db.system.name"], find.failed) == ("client", "mongodb", False)
    assert {"barrier", "catch up"} <= {span.name for span in spans}
    assert "update _zerosource" in {name for span in collector.named("barrier") for name in collector.children(span)}
    assert collector.named("catch up", app_id="shop", reason="connected")
    assert only(collector.named("reset")).attributes["zerosource.code"]
    assert collector.named("publish mappings")
    page = only(collector.named("GET admin/login/"))
    assert (page.kind, page.attributes["http.response.status_code"]) == ("server", 200)
    assert "healthz" not in {span.attributes.get("http.route") for span in collector.spans}
    assert {headers.get("x-token") for headers in collector.headers} == {"abc", None}


def check_nothing_is_told(collector: Collector, mongo: Database[Any]) -> None:
    """No document, no key; the same bytes do hold what is told."""
    told = b"".join(collector.bodies)
    assert mongo.name.encode() in told
    for secret in (SECRET, KEY, b64encode(KEY.encode()).decode(), "logout"):
        assert secret.encode() not in told


async def test_what_a_replica_reads_itself_is_traced_too(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Without a watcher; the traces of what it was behind by name its catching up."""
    with collecting() as (address, collector):
        place = deployment(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{address}/v1/traces", **SOON)
        place.configure(mappings=MAPPINGS)
        server = place.server("--no-watcher")
        reader = Reader(server.stream_url, "alone")
        await reader.sync()
        mongo["items"].insert_one({"_id": "while away", "name": "late"})
        with following(reader, synced=True):
            await asyncio.to_thread(wait_until, lambda: collector.named("catch up", app_id="alone"), "the span", 20)
            way = await asyncio.to_thread(follow_the_write, collector, mongo)
        server.stop()
        assert [span.name for span in way] == ["changes", "deliver", "ack"]
        assert {span.service for span in way} == {"zerosource"}
        catching_up = only(collector.named("catch up", app_id="alone"))
        late = [span for span in collector.named("changes") if catching_up.own in span.links]
        assert late
        assert not any(catching_up.own in span.links for span in way)
        assert "aggregate" in {name.split()[0] for name in collector.children(catching_up)}


def test_a_receiver_that_fails_or_hangs_costs_spans_and_nothing_else(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    with collecting() as (address, collector):
        place = deployment(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_MAX_QUEUE_SIZE="8", **SOON)
        place.environment |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
        place.configure(mappings=MAPPINGS)
        collector.status = 400
        server = place.server()
        reader = Reader(server.stream_url, "shop")

        def written(first: int) -> None:
            """So many writes arrive, one after the other, whatever becomes of their spans."""
            for number in range(first, first + 12):
                mongo["items"].insert_one({"_id": str(number), "name": "n"})
                wait_until(lambda at=number: (str(at),) in reader.model.rows("item"), f"row {number}", 5)

        with following(reader):
            wait_until(lambda: "replica resumes" in server.log_text(), "the replica", 20)
            wait_until(lambda: collector.asked > 0, "the first spans", 20)
            written(0)
            collector.hangs.set()
            asked = collector.asked
            wait_until(lambda: collector.asked > asked, "a receiver that hangs", 20)
            written(100)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 15
        assert not collector.spans
        lines = [line for line in server.log_text().splitlines() if "OpenTelemetry" in line]
        assert any("Queue full" in line for line in lines), lines
        assert any("400" in line for line in lines), lines
        assert len({line.split("what=")[1][:40] for line in lines}) == len(lines) < 6
