"""A write's trace, as a collector takes it, ends with the acknowledgement of a real zero-cache."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.collector import collecting


@pytest.mark.slow
def test_the_trace_of_a_write_ends_with_zero_caches_ack(
    deployment: DeploymentFactory, mongo: Database[Any], zero_cache: ZeroCacheFactory
) -> None:
    fill(mongo, 5, others=5)
    with collecting() as (address, collector):
        place = deployment(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="50")
        place.configure(mappings=MAPPINGS)
        server = place.server()
        zero_cache(server.stream_url).wait_ready()
        wait_until(lambda: bool(collector.named("catch up", reason="connected")), "the replica to have caught up", 30)
        before = time.time_ns()
        mongo["items"].insert_one({"_id": "traced", "name": "traced"})
        way = collector.way_since(before)
    names = [span.name for span in way]
    assert names in (["changes", "publish", "deliver", "ack"], ["changes", "deliver", "ack"])
    assert way[-2].attributes["zerosource.acked"] is True
    assert way[-1].ended - way[0].began < 5 * 10**9
