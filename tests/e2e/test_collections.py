"""Collections and databases that are dropped, renamed, put into place and made again, with a real zero-cache.

While it streams, while it is away, and while its snapshot runs: the replica ends equal to MongoDB, zero-cache never
exits, and nobody is reset. ``tests/integration/test_ddl.py`` has the same one by one, without a server between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import wait_until
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import Rows
from tests.harness.deployment import Server
from tests.harness.failpoints import fail_next
from tests.harness.proxy import RecordingProxy, check_watermarks
from tests.harness.replicas import wait_equal

# Collections are copied by the order of their names: those of ``a`` before the large one, those of ``z`` after it.
SIDES, LARGE = ("a", "z"), "m_large"
# The large one lasts at this rate (bytes a second) until the proxy is released.
HELD_BACK = 20_000
Act = Callable[[Database[Any], str, str], object]


def put(database: Database[Any], collection: str, stage: str, numbers: range) -> None:
    """Insert documents of which some, at another stage, have ids that are in use."""
    database[collection].insert_many([{"_id": f"{n:03}", "name": f"{stage} {collection} {n}"} for n in numbers])


def drop(database: Database[Any], collection: str, stage: str) -> None:
    database.drop_collection(collection)


def drop_and_recreate(database: Database[Any], collection: str, stage: str) -> None:
    database.drop_collection(collection)
    put(database, collection, stage, range(5, 25))


def rename_away(database: Database[Any], collection: str, stage: str) -> None:
    database[collection].rename(f"away_{collection}_{stage}")
    database[f"away_{collection}_{stage}"].insert_one({"_id": "unseen", "name": "x"})


def rename_into_place(database: Database[Any], collection: str, stage: str) -> None:
    put(database, f"staged_{collection}_{stage}", stage, range(8, 30))
    rename_away(database, collection, stage)
    database[f"staged_{collection}_{stage}"].rename(collection)


def rename_over(database: Database[Any], collection: str, stage: str) -> None:
    put(database, f"staged_{collection}_{stage}", stage, range(9, 31))
    database[f"staged_{collection}_{stage}"].rename(collection, dropTarget=True)


def out(database: Database[Any], collection: str, stage: str) -> None:
    put(database, f"staged_{collection}_{stage}", stage, range(11, 33))
    database[f"staged_{collection}_{stage}"].aggregate([{"$set": {"name": f"out {stage}"}}, {"$out": collection}])


def out_onto_itself(database: Database[Any], collection: str, stage: str) -> None:
    first = min(database[collection].distinct("_id"))
    pipeline = [{"$match": {"_id": {"$gt": first}}}, {"$set": {"name": f"itself {stage}"}}, {"$out": collection}]
    database[collection].aggregate(pipeline)


ACTS: tuple[Act, ...] = (drop, drop_and_recreate, rename_away, rename_into_place, rename_over, out, out_onto_itself)
COLLECTIONS = {f"{side}_{act.__name__}": act for side in SIDES for act in ACTS}
TABLES = [*COLLECTIONS, LARGE]
MAPPINGS: dict[str, Any] = {
    "tables": {
        name: {
            "collection": name,
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "name": {"type": "string", "path": "name", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "string",
        }
        for name in TABLES
    }
}


def fill(database: Database[Any], stage: str) -> None:
    """Put documents into every collection, where none are."""
    for name in COLLECTIONS:
        put(database, name, stage, range(20))
    database[LARGE].insert_many([{"_id": f"{n:05}", "name": f"{stage} " + "x" * 1000} for n in range(2000)])


def expected(database: Database[Any]) -> dict[str, Rows]:
    """All rows, as MongoDB has them."""
    return {
        name: {(found["_id"],): {"id": found["_id"], "name": found.get("name")} for found in database[name].find()}
        for name in TABLES
    }


def act_on_all(database: Database[Any], stage: str) -> None:
    """Do each act on the collections of its name, among writes; it must change what MongoDB shows of each."""
    before = expected(database)
    for name, act in COLLECTIONS.items():
        write(database, name, f"before {stage}")
        act(database, name, stage)
        write(database, name, f"after {stage}")
    after = expected(database)
    for name in COLLECTIONS:
        gone = before[name].keys() - after[name].keys()
        new = {key for key, row in after[name].items() if before[name].get(key) != row}
        assert gone, name
        assert new, name


def write(database: Database[Any], name: str, text: str) -> None:
    database[name].insert_one({"_id": text, "name": text})
    database[name].update_one({"_id": "015"}, {"$set": {"name": text}})
    database[name].delete_one({"_id": "016"})


def drop_database(database: Database[Any], stage: str) -> None:
    """Drop everything, and write some of it anew: the stream is invalidated, and what follows is read by another."""
    database.client.drop_database(database.name)
    assert not any(expected(database).values())
    for name in COLLECTIONS:
        put(database, name, f"anew {stage}", range(3, 9))


@dataclass
class Scene:
    """One server, and what is to be seen of it."""

    database: Database[Any]
    server: Server
    start: ZeroCacheFactory

    def check(self, cache: ZeroCache) -> None:
        """Wait until the replica equals MongoDB; it got there without an exit or a reset."""
        wait_equal(cache, expected(self.database), 60)
        assert cache.exits == []
        assert "replica must be reset" not in self.server.log_text()


@pytest.fixture
def scene(deployment: DeploymentFactory, mongo: Database[Any], zero_cache: ZeroCacheFactory) -> Scene:
    fill(mongo, "first")
    place = deployment()
    place.configure(mappings=MAPPINGS)
    return Scene(mongo, place.server(), zero_cache)


def test_while_it_streams_and_while_it_is_away(scene: Scene, mongodb: MongoServer) -> None:
    """Each act while zero-cache streams, and again while none of its processes lives."""
    database, cache = scene.database, scene.start(scene.server.stream_url)
    cache.wait_ready()
    scene.check(cache)
    act_on_all(database, "streaming")
    scene.check(cache)
    # As a killed cursor is told: the change stream is opened anew.
    fail_next(mongodb.client, "getMore", code=237)
    wait_until(lambda: "watcher retries" in scene.server.log_text(), "the lost stream", 30)
    write(database, LARGE, "the stream was lost")
    scene.check(cache)

    cache.kill()
    act_on_all(database, "away")
    cache.start()
    scene.check(cache)

    database.client.drop_database(database.name)
    wait_equal(cache, {name: {} for name in TABLES}, 30)
    drop_database(database, "streaming")
    scene.check(cache)
    cache.kill()
    drop_database(database, "away")
    cache.start()
    scene.check(cache)
    write(database, LARGE, "the end")
    scene.check(cache)


@pytest.mark.parametrize("act", [act_on_all, drop_database], ids=lambda act: str(act.__name__))
def test_during_the_snapshot(scene: Scene, act: Callable[[Database[Any], str], None]) -> None:
    """Half of the collections were copied when it happens, and half were not."""
    with RecordingProxy(scene.server.port, HELD_BACK) as proxy:
        cache = scene.start(proxy.stream_url)
        copied = [f"collection copied collection={name} " for name in COLLECTIONS if name.startswith("a_")]
        wait_until(
            lambda: all(line in scene.server.log_text() for line in copied),
            "half of the copy",
            60,
            detail=cache.log_tail,
        )
        act(scene.database, "snapshot")
        connection = proxy.connections[0]
        assert [tag for tag, _ in connection.transactions] == ["begin"]
        assert f"collection copied collection={LARGE}" not in scene.server.log_text()
        proxy.release()
        scene.check(cache)
        write(scene.database, LARGE, "after the snapshot")
        scene.check(cache)
        check_watermarks(proxy.connections)
