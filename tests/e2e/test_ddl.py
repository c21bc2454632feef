"""Events other than data, with a real zero-cache: collections and databases that are dropped, renamed, put into place
and made again, and change streams that end on MongoDB.

Whether zero-cache streams, is away or is in its initial snapshot: the replica ends equal to MongoDB, row for row, what
is written later still arrives, zero-cache never exits, and nobody is reset.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.database import Database

from devtools.processes import wait_until
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import Rows
from tests.harness.deployment import Server
from tests.harness.failpoints import catalog_held
from tests.harness.proxy import RecordingProxy, check_watermarks
from tests.harness.replicas import difference, wait_equal

Document = dict[str, Any]
Mongo = Database[Document]
Act = Callable[[Mongo, str, str], object]

# Collections are copied by the order of their names: those of side "a" before the large one, those of "z" after it.
SIDES = ("a", "z")
LARGE = "m_large"
LARGE_TEXT = "x" * 5_000
# Several times what can be on its way from MongoDB to zero-cache: a frame of 1 MiB, and some buffers.
LARGE_COUNT = 800
# In bytes a second: the large one takes minutes.
HELD_BACK = 20_000
# Few, so that the cursor stays open meanwhile.
BATCH_ROWS = "50"
KINDS = ("even", "odd")


def documents(label: str, numbers: range) -> list[Document]:
    """Return documents whose ids tell only the numbers, so that others may have them already."""
    return [{"_id": f"{n:02}", "name": f"{label} {n}", "kind": KINDS[n % 2]} for n in numbers]


def made_aside(database: Mongo, name: str, label: str) -> Collection[Document]:
    """Return a new collection that no table shows."""
    aside = database[f"aside_{label}_{name}"]
    aside.insert_many(documents(f"aside {label}", range(10, 30)))
    return aside


def drop(database: Mongo, name: str, _: str) -> None:
    database.drop_collection(name)


def drop_and_recreate(database: Mongo, name: str, label: str) -> None:
    database.drop_collection(name)
    database[name].insert_many(documents(f"again {label}", range(5, 25)))


def rename_away(database: Mongo, name: str, label: str) -> None:
    """To a name that no table shows; what is written there is nobody's concern."""
    elsewhere = f"elsewhere_{label}_{name}"
    database[name].rename(elsewhere)
    database[elsewhere].insert_one({"_id": "unseen", "name": "unseen", "kind": "even"})


def rename_into_place(database: Mongo, name: str, label: str) -> None:
    """Where no collection is."""
    rename_away(database, name, label)
    made_aside(database, name, label).rename(name)


def rename_over(database: Mongo, name: str, label: str) -> None:
    made_aside(database, name, label).rename(name, dropTarget=True)


def rename_over_a_shown_one(database: Mongo, name: str, _: str) -> None:
    """Over its counterpart of the other side, so that tables show both names."""
    side, rest = name.split("_", 1)
    other = f"{SIDES[1 - SIDES.index(side)]}_{rest}"
    database[name].rename(other, dropTarget=True)


def out(database: Mongo, name: str, label: str) -> None:
    """From a collection that no table shows."""
    aside = made_aside(database, name, label)
    with catalog_held(database):
        aside.aggregate([{"$set": {"name": f"out {label}"}}, {"$out": name}])


def out_of_itself(database: Mongo, name: str, label: str) -> None:
    """Two tables show the collection: some documents go, and all others change from one table to the other."""
    first = min(database[name].distinct("_id"))
    other_kind = {"$cond": [{"$eq": ["$kind", "even"]}, "odd", "even"]}
    changes = {"$set": {"name": f"out {label}", "kind": other_kind}}
    with catalog_held(database):
        database[name].aggregate([{"$match": {"_id": {"$gt": first}}}, changes, {"$out": name}])


ACTS: tuple[Act, ...] = (
    drop,
    drop_and_recreate,
    rename_away,
    rename_into_place,
    rename_over,
    rename_over_a_shown_one,
    out,
    out_of_itself,
)


def of_side(side: str) -> dict[str, Act]:
    """Return the act of each collection of a side."""
    return {f"{side}_{act.__name__}": act for act in ACTS}


COLLECTIONS = [name for side in SIDES for name in of_side(side)]
SHARED = [f"{side}_{out_of_itself.__name__}" for side in SIDES]
# By table, the collection and the filter.
TABLES: dict[str, tuple[str, Document]] = {
    **{name: (name, {}) for name in (*COLLECTIONS, LARGE) if name not in SHARED},
    **{f"{name}_{kind}": (name, {"kind": kind}) for name in SHARED for kind in KINDS},
}
MAPPINGS: Document = {
    "tables": {
        table: {
            "collection": collection,
            "columns": {"id": {"type": "string", "path": "_id"}, "name": {"type": "string", "path": "name"}},
            "primaryKey": ["id"],
            "filter": condition,
            "idType": "string",
        }
        for table, (collection, condition) in TABLES.items()
    }
}


def expected(database: Mongo, collections: set[str] | None = None) -> dict[str, Rows]:
    """Return the rows of all tables, or of those that show these collections, as MongoDB itself tells them."""
    return {
        table: {
            (found["_id"],): {"id": found["_id"], "name": found["name"]} for found in database[name].find(condition)
        }
        for table, (name, condition) in TABLES.items()
        if collections is None or name in collections
    }


def fill(database: Mongo, label: str, large: int = 1) -> None:
    """Put documents into all collections that have none."""
    contents = {name: documents(label, range(20)) for name in COLLECTIONS}
    contents[LARGE] = [{"_id": f"{n:04}", "name": f"{label} {LARGE_TEXT}"} for n in range(large)]
    for name, content in contents.items():
        if database[name].find_one() is None:
            database[name].insert_many(content)
    assert all(expected(database).values())


def write(database: Mongo, name: str, label: str) -> None:
    """Insert, update (or insert, too) and delete (where it is there) in a collection."""
    database[name].insert_one({"_id": f"{label} {name}", "name": label, "kind": "odd"})
    database[name].update_one({"_id": "15"}, {"$set": {"name": label, "kind": "even"}}, upsert=True)
    database[name].delete_one({"_id": "16"})


def act_among_writes(database: Mongo, name: str, act: Act, label: str) -> None:
    """Act on a collection right between writes to it; what is to be seen of it must be another thing after the act."""
    write(database, name, f"before {label}")
    before = expected(database, {name})
    act(database, name, label)
    after = expected(database, {name})
    assert all(before[table] and before[table] != after[table] for table in before), name
    write(database, name, f"after {label}")


def act_on_all(database: Mongo, label: str) -> None:
    """Do every act on both sides; after each side, all that is being read of the database is killed."""
    for side in SIDES:
        for name, act in of_side(side).items():
            act_among_writes(database, name, act, label)
        kill_cursors(database)


def drop_database(database: Mongo, label: str) -> None:
    """Drop everything after writes, and leave it so."""
    for name in (*COLLECTIONS, LARGE):
        write(database, name, f"before {label}")
    assert all(expected(database).values())
    database.client.drop_database(database.name)
    assert not any(expected(database).values())


def drop_database_and_write(database: Mongo, label: str) -> None:
    """Write to one side at once, and to the other when another stream has taken the place of the invalidated one."""
    streams = wait_until(lambda: open_streams(database), "a change stream")
    drop_database(database, label)
    for name in of_side("a"):
        database[name].insert_many(documents(label, range(13, 19)))
        write(database, name, f"after {label}")
    wait_until(lambda: open_streams(database) - streams, "another change stream")
    for name in of_side("z"):
        write(database, name, f"after {label}")


def open_cursors(database: Mongo) -> dict[int, str]:
    """Return the cursors that are open on a database, with the name that each has for its collection."""
    admin = database.client.admin
    # MongoDB tells of cursors by the stage, and nests what it tells; SecantusDB tells by the command.
    told = [
        *admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}]),
        *admin.command({"currentOp": 1, "idleCursors": True})["inprog"],
    ]
    found: dict[int, str] = {}
    for operation in told:
        cursor = operation.get("cursor", operation)
        name, _, collection = operation.get("ns", "").partition(".")
        if "cursorId" in cursor and name == database.name:
            found[cursor["cursorId"]] = collection
    return found


def open_streams(database: Mongo) -> set[int]:
    """Return those cursors that are change streams of the whole database."""
    return {cursor for cursor, collection in open_cursors(database).items() if collection == "$cmd.aggregate"}


def kill_cursors(database: Mongo) -> None:
    """Kill every change stream and every copy's cursor; another stream takes the place."""
    wait_until(lambda: open_streams(database), "a change stream")
    cursors = open_cursors(database)
    for cursor, collection in cursors.items():
        database.command({"killCursors": collection, "cursors": [cursor]})
    wait_until(lambda: open_streams(database) - cursors.keys(), "another change stream")


@dataclass
class Stage:
    """One each of database, server, proxy and zero-cache."""

    database: Mongo
    server: Server
    proxy: RecordingProxy
    cache: ZeroCache

    def wait_copying(self) -> None:
        """Wait until the large collection is being copied: those of side "a" have been, those of side "z" not yet."""
        wait_until(lambda: LARGE in open_cursors(self.database).values(), "the copy", 60, detail=self.state)
        wait_until(self.is_copying, "the begin of the snapshot", 60, detail=self.state)
        assert all(self.was_copied(name) for name in of_side("a"))

    def is_copying(self) -> bool:
        """Whether zero-cache has the begin of its snapshot, no commit, and the large collection not all."""
        tags = [tag for tag, _ in self.proxy.connections[0].transactions] if self.proxy.connections else []
        return tags == ["begin"] and not self.was_copied(LARGE)

    def was_copied(self, collection: str) -> bool:
        """Whether the server has read a collection for a snapshot to its end."""
        return f"collection copied collection={collection} " in self.server.log_text()

    def check(self) -> None:
        """Wait until the replica equals MongoDB, by itself and after one more write; it took no exit and no reset."""
        wait_equal(self.cache, expected(self.database), 60)
        last = f"last {uuid.uuid4()}"
        self.database[LARGE].insert_one({"_id": last, "name": last})
        arrived = f"SELECT 1 FROM {LARGE} WHERE id = ?"  # noqa: S608
        wait_until(lambda: self.cache.replica.query(arrived, [last]), "the last write", 60, detail=self.state)
        assert not difference(self.cache, expected(self.database))
        assert self.cache.exits == [], self.state()
        assert "replica must be reset" not in self.server.log_text(), self.state()

    def fill(self) -> None:
        """Have rows in all tables."""
        fill(self.database, "anew")
        self.check()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within it zero-cache is not there; afterwards it comes back to where it was."""
        version, number = self.cache.replica.version(), len(self.proxy.connections)
        self.cache.kill()
        assert not self.cache.pids()
        yield
        assert len(self.proxy.connections) == number
        self.cache.start()
        wait_until(lambda: len(self.proxy.connections) > number, "zero-cache to come back", 60, detail=self.state)
        assert self.proxy.connections[number].query["replicaVersion"] == [version]

    def state(self) -> str:
        """What both logs say, for error messages."""
        return f"{self.cache.log_tail()}\nThe server: {self.server.log_tail()}"


@contextmanager
def staged(
    deployment: DeploymentFactory,
    database: Mongo,
    zero_cache: ZeroCacheFactory,
    large: int = 1,
    rate: float | None = None,
) -> Iterator[Stage]:
    """Set the stage on a database with documents; see ``RecordingProxy`` for the rate."""
    fill(database, "first", large)
    place = deployment(SNAPSHOT_BATCH_ROWS=BATCH_ROWS)
    place.configure(mappings=MAPPINGS)
    server = place.server()
    with RecordingProxy(server.port, rate) as proxy:
        yield Stage(database, server, proxy, zero_cache(proxy.stream_url))
        check_watermarks(proxy.connections)


def test_while_zero_cache_streams_and_while_it_is_away(
    deployment: DeploymentFactory, mongo: Mongo, zero_cache: ZeroCacheFactory
) -> None:
    """Each act by itself, then all of them at once, then all while zero-cache is killed; so too the whole database."""
    with staged(deployment, mongo, zero_cache) as stage:
        stage.cache.wait_ready()
        stage.check()
        for name, act in of_side("a").items():
            act_among_writes(mongo, name, act, "alone")
            stage.check()
        act_on_all(mongo, "together")
        stage.check()
        with stage.away():
            act_on_all(mongo, "away")
        stage.check()
        for drop_all in (drop_database, drop_database_and_write):
            stage.fill()
            drop_all(mongo, "streaming")
            stage.check()
            stage.fill()
            with stage.away():
                drop_all(mongo, "away")
            stage.check()


@pytest.mark.parametrize(
    "act",
    # tests/integration/test_ddl.py has all three in its snapshots.
    [act_on_all, *(pytest.param(act, marks=pytest.mark.slow) for act in (drop_database, drop_database_and_write))],
    ids=lambda act: act.__name__,
)
def test_while_the_initial_snapshot_runs(
    deployment: DeploymentFactory,
    mongo: Mongo,
    zero_cache: ZeroCacheFactory,
    act: Callable[[Mongo, str], None],
) -> None:
    """Half of the collections were copied by then, one of them in part, and half of them not."""
    with staged(deployment, mongo, zero_cache, LARGE_COUNT, HELD_BACK) as stage:
        stage.wait_copying()
        act(mongo, "snapshot")
        assert stage.is_copying()
        stage.proxy.release()
        stage.cache.wait_ready()
        stage.check()
        assert stage.was_copied(LARGE)
