"""zero-cache's own end-to-end lag, by OpenTelemetry: from the write in MongoDB to what its clients were sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from devtools.zeroclient import QueryServer, ZeroClient, schema_in
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import MAPPINGS, fill

LAG = "zero.sync.e2e_serving_lag"
Point = dict[str, Any]


@contextmanager
def collector() -> Iterator[tuple[str, list[Point]]]:
    """An OpenTelemetry collector, as far as it goes here: its URL, and the points of the lag that came in."""
    points: list[Point] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(b"".join(self.chunks()))
            for resource in sent["resourceMetrics"]:
                for scope in resource["scopeMetrics"]:
                    for metric in scope["metrics"]:
                        if metric["name"] == LAG:
                            points.extend(metric["exponentialHistogram"]["dataPoints"])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def chunks(self) -> Iterator[bytes]:
            """The body, which comes by chunks."""
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/metrics", points
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_zero_cache_measures_the_whole_way(
    deployment: DeploymentFactory,
    mongo: Database[Any],
    zero_cache: ZeroCacheFactory,
    query_server: Callable[[dict[str, object]], QueryServer],
    zero_client: Callable[..., ZeroClient],
) -> None:
    fill(mongo, 5, others=5)
    place = deployment()
    place.configure(mappings={"tables": {"item": MAPPINGS["tables"]["item"]}})
    server = place.server()
    place.manage("exportschema", "--output", str(place.directory / "schema.ts"))
    schema = schema_in(place.directory / "schema.ts")
    with collector() as (url, points):
        settings = {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": url,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_METRIC_EXPORT_TIMEOUT": "400",
        }
        cache = zero_cache(server.stream_url, query_url=query_server(schema).url, settings=settings)
        cache.wait_ready()
        client = zero_client(cache.url, schema, ["item"])
        client.wait_complete()
        for number in range(5):
            mongo["items"].insert_one({"_id": f"late-{number}", "name": "late"})
            client.wait_for(lambda views, n=number: any(row["id"] == f"late-{n}" for row in views["item"]))
        wait_until(lambda: any(int(point["count"]) >= 5 for point in points), f"points of {LAG}", 30)
    worst = max(point["sum"] / int(point["count"]) for point in points if int(point["count"]))
    # To the second, where MongoDB's events do not say when they were made.
    assert 0 <= worst < 3, points[-1]
