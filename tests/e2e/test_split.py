"""The split form: servers, a watcher and two zero-caches, over Redis and PostgreSQL, while writers never stop."""

from __future__ import annotations

from typing import Any

from pymongo.database import Database

from devtools.processes import alive, wait_until
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import MAPPINGS, Writers, fill
from tests.harness.replicas import open_cursors, settle

ITEMS = 1_000
WRITES = 400
PEOPLE, PLACES = ["user", "note"], ["chat", "channel", "resident", "item"]


def test_two_zero_caches_on_two_servers_share_one_watcher(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], zero_cache: ZeroCacheFactory
) -> None:
    """Each gets its own publication, exactly; with one change stream on MongoDB, and with the watcher dead."""
    fill(mongo, ITEMS)
    before = open_cursors(mongodb.client)
    place = deployment(database="postgres", redis=True)
    place.configure(mappings=MAPPINGS)
    servers = [place.server("--no-watcher") for _ in range(2)]
    watcher = place.watcher()
    people = zero_cache(servers[0].stream_url, app_id="people_app", publications=["people"])
    places = zero_cache(servers[1].stream_url, app_id="places_app", publications=["places"])
    both = {people: PEOPLE, places: PLACES}

    def write_and_compare(seed: int) -> None:
        with Writers(mongodb.uri, mongo.name, threads=2, seed=seed, items=ITEMS, pause=0.01) as writers:
            wait_until(lambda: writers.total > WRITES or writers.errors, f"{WRITES} writes", 60)
        for cache, tables in both.items():
            settle(cache, mongo, tables)

    for cache, tables in both.items():
        cache.wait_ready()
        assert set(cache.replica.tables()) == set(tables)
    write_and_compare(seed=100)
    wait_until(lambda: open_cursors(mongodb.client) - before == 1, "one change stream for both replicas", 30)

    pids = watcher.pids()
    watcher.kill()
    assert not alive(pids)
    # The cursor of a client that died stays open for a while; besides it, each replica has its own now.
    left = open_cursors(mongodb.client)
    write_and_compare(seed=200)
    assert open_cursors(mongodb.client) - left == 2

    place.watcher()
    write_and_compare(seed=300)
    # Both follow the channel layer again.
    wait_until(lambda: open_cursors(mongodb.client) - left == 1, "one change stream again", 30)
    assert (people.exits, places.exits) == ([], [])
    assert not any("channel layer lost" in server.log_text() for server in servers)
