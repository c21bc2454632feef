"""Two zero-caches on one server that does everything, while writers never stop and an operator edits."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import MAPPINGS, Writers, fill
from tests.harness.replicas import open_cursors, settle

ITEMS = 1_000
WRITES = 400
PEOPLE, PLACES = ["user", "note"], ["chat", "channel", "item"]


@pytest.mark.slow
def test_two_zero_caches_on_one_server_and_an_edit_of_one(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any], zero_cache: ZeroCacheFactory
) -> None:
    """All in one process: one change stream for both; an edit resets the replica that has the table, not the other."""
    fill(mongo, ITEMS)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    people = zero_cache(server.stream_url, app_id="people_app", publications=["people"])
    places = zero_cache(server.stream_url, app_id="places_app", publications=["places"])
    for cache in (people, places):
        cache.wait_ready()
    with Writers(mongodb.uri, mongo.name, threads=2, seed=400, items=ITEMS, pause=0.01) as writers:
        wait_until(lambda: writers.total > WRITES or writers.errors, f"{WRITES} writes", 60)
    settle(people, mongo, PEOPLE)
    settle(places, mongo, PLACES)
    wait_until(
        lambda: open_cursors(mongodb.client) == 1,
        "one change stream for both replicas",
        30,
        detail=lambda: f"{open_cursors(mongodb.client)} cursors are open. {server.log_tail()}",
    )

    edited = deepcopy(MAPPINGS)
    del edited["tables"]["user"]["columns"]["joined"]
    place.configure(mappings=edited)
    place.manage("reloadmappings")
    wait_until(lambda: people.exits == [14], "the reset of the replica with the edited table", 30)
    people.wait_ready()

    def synced_anew() -> bool:
        rows = people.rows("user") if "user" in people.replica.tables() else []
        return len(rows) == mongo["users"].count_documents({}) and not any("joined" in row for row in rows)

    wait_until(synced_anew, "the table without its column", 30)
    mongo["users"].insert_one({"profile": {"name": "last"}})
    wait_until(synced_anew, "a write after the edit", 30)
    settle(places, mongo, PLACES)
    assert (people.exits, places.exits) == ([14], [])
