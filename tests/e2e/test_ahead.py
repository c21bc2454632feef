"""zero-cache killed while its replica is ahead of what it has stored: it comes back, and goes on with that replica."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import MAPPINGS, everything, fill
from tests.harness.proxy import RecordingProxy, check_resumes, check_watermarks
from tests.harness.replicas import stored_watermark, wait_equal


def has(cache: ZeroCache, table: str, key: object) -> bool:
    return any(row["id"] == key for row in cache.rows(table))


@pytest.mark.parametrize(
    "moved",
    [
        # What the other does first, without the rest of it.
        pytest.param(False, id="inserts", marks=pytest.mark.slow),
        pytest.param(True, id="a collection renamed into place"),
    ],
)
def test_the_watermark_of_its_replica_comes_again(
    deployment: DeploymentFactory, mongo: Database[Any], zero_cache: ZeroCacheFactory, moved: bool
) -> None:
    """What follows is there at once when it is back, and would be joined with what comes again.

    Without a commit at just the replica's watermark zero-cache refuses it ("rejecting subscriber at watermark"), and
    exits with 14 at every start. It takes up the replica at once, where by default that takes it 15 s.
    """
    fill(mongo, 10, others=5)
    place = deployment(KEEPALIVE_SECONDS="60")
    place.configure(mappings=MAPPINGS)
    with RecordingProxy(place.server().port) as proxy:
        cache = zero_cache(proxy.stream_url, settings={"ZERO_CHANGE_STREAMER_STARTUP_DELAY_MS": "1"})
        cache.wait_ready()
        mongo["items"].insert_one({"_id": "zero", "name": "x"})
        wait_until(
            lambda: stored_watermark(cache) == cache.replica.watermark() != cache.replica.version(), "the first", 30
        )
        with psycopg.connect(cache.database_url) as lock:
            lock.execute(f'LOCK TABLE "{cache.app_id}_0/cdc"."changeLog" IN SHARE MODE')
            for name in ("one", "two"):
                mongo["items"].insert_one({"_id": name, "name": "x"})
                wait_until(lambda name=name: has(cache, "item", name), name, 30)  # type: ignore[misc]
            if moved:
                mongo["aside"].insert_one({"_id": "moved", "name": "x"})
                mongo["aside"].rename("items", dropTarget=True)
                wait_until(lambda: has(cache, "item", "moved"), "the rename", 30)
            ahead = cache.replica.watermark()
            cache.kill()
        assert stored_watermark(cache) < ahead
        mongo["items"].insert_one({"_id": "three", "name": "x"})
        cache.start()
        wait_until(lambda: has(cache, "item", "three"), "what came after", 60, detail=cache.log_tail)
        wait_equal(cache, everything(mongo))
        assert cache.exits == []
        assert ahead in proxy.connections[-1].commits
        check_watermarks(proxy.connections)
        check_resumes(proxy.connections)
