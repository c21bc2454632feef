"""The main job: a document written to MongoDB shows up in zero-cache's replica and in a Zero client, exactly."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.regex import Regex
from pymongo.database import Database

from changesource.mapping.schema_formats import Schema, SchemaTable, read_schema
from devtools.zerocache import ZeroCache
from devtools.zeroclient import QueryServer, Row, Views, ZeroClient, schema_in
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import MAPPINGS, Rows, everything, fill
from tests.harness.replicas import wait_equal

VALUE_COLUMNS = {
    "id": ("string", "_id"),
    "uuid": ("string", "uuid"),
    "binary": ("string", "binary"),
    "decimalText": ("string", "decimal"),
    "longText": ("string", "long"),
    "date-text": ("string", "date"),
    "date": ("number", "date"),
    "decimal": ("number", "decimal"),
    "long": ("number", "long"),
    "double": ("number", "double"),
    "nan": ("number", "nan"),
    "infinity": ("number", "infinity"),
    "flag": ("boolean", "flag"),
    "city": ("string", "nested.address.city"),
    "nested": ("json", "nested"),
    "list": ("json", "list"),
}
VALUE = {
    "collection": "values",
    "columns": {
        name: {"type": kind, "path": path, "optional": name != "id"} for name, (kind, path) in VALUE_COLUMNS.items()
    },
    "primaryKey": ["id"],
    "idType": "objectId",
}
SEAT = {
    "collection": "seats",
    "columns": {
        "place": {"type": "string", "path": "place"},
        "holder": {"type": "string", "path": "_id"},
        "label": {"type": "string", "expression": {"$concat": ["$place", ": ", {"$toString": "$_id"}]}},
    },
    "primaryKey": ["place"],
    "idType": "number",
}
ALL = {"tables": {**MAPPINGS["tables"], "value": VALUE, "seat-of": SEAT}}
FIRST, SECOND = ObjectId("65f000000000000000000001"), ObjectId("65f000000000000000000002")
SOME_UUID = uuid.UUID("0190a5f0-7c1a-7bbb-8ccc-0123456789ab")
DOCUMENT: dict[str, Any] = {
    "uuid": Binary.from_uuid(SOME_UUID),
    "binary": Binary(b"\x00\xff\x10binary"),
    "decimal": Decimal128("0.12345678901234567890"),
    "long": Int64(2**53 - 1),
    "date": datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC),
    "double": 0.1 + 0.2,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "flag": False,
    "nested": {
        "address": {"city": "Zürich 🙂", "lines": ["a", {"b": None}]},
        "id": SECOND,
        "uuid": Binary.from_uuid(SOME_UUID),
        "when": datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC),
        "big": Int64(2**60),
        "money": Decimal128("1.10"),
        "nan": float("nan"),
        "bytes": Binary(b"\x01\x02"),
        "pattern": Regex("^a", "i"),
    },
    "list": [1, 2.5, "three", True, None, {"four": [4]}],
}
# By the table in ``changesource/mapping/values.py``, worked out by hand.
ROW: Row = {
    "uuid": "0190a5f0-7c1a-7bbb-8ccc-0123456789ab",
    "binary": "AP8QYmluYXJ5",
    "decimalText": "0.12345678901234567890",
    "longText": "9007199254740991",
    "date-text": "2026-02-03T04:05:06.789Z",
    "date": 1770091506789,
    "decimal": 0.12345678901234568,
    "long": 9007199254740991,
    "double": 0.30000000000000004,
    "nan": None,
    "infinity": None,
    "flag": False,
    "city": "Zürich 🙂",
    "nested": {
        "address": {"city": "Zürich 🙂", "lines": ["a", {"b": None}]},
        "id": str(SECOND),
        "uuid": str(SOME_UUID),
        "when": -1,
        "big": "1152921504606846976",
        "money": "1.10",
        "nan": None,
        "bytes": "AQI=",
        "pattern": "/^a/i",
    },
    "list": [1, 2.5, "three", True, None, {"four": [4]}],
}


@dataclass
class Path:
    """MongoDB at one end, the replica and a Zero client that shows every table at the other."""

    database: Database[dict[str, Any]]
    cache: ZeroCache
    client: ZeroClient
    schema: Schema
    values: Rows = field(default_factory=dict)
    seats: Rows = field(default_factory=dict)

    def expected(self) -> dict[str, Rows]:
        """What all tables must hold; ``value`` and ``seat-of`` as the test says."""
        return {**everything(self.database), "value": dict(self.values), "seat-of": dict(self.seats)}

    def arrives(self) -> dict[str, Rows]:
        """Wait until both ends hold what MongoDB does; return it."""
        expected = self.expected()
        wait_equal(self.cache, expected)
        self.client.wait_for(lambda views: self.shown(views) == expected, what="the client to show what MongoDB holds")
        return expected

    def shown(self, views: Views) -> dict[str, Rows]:
        """A client's views as rows by key, under the names that tables and columns have in MongoDB's mappings."""
        return {table.name: rows_of(table, views[table.alias]) for table in self.schema if table.alias in views}


def rows_of(table: SchemaTable, rows: list[Row]) -> Rows:
    """A view's rows by key, under the upstream's names."""
    named = [{table.server_name(column): value for column, value in row.items()} for row in rows]
    return {tuple(row[column] for column in table.primary_key): row for row in named}


@pytest.fixture
def path(
    deployment: DeploymentFactory,
    mongo: Database[Any],
    zero_cache: ZeroCacheFactory,
    query_server: Callable[[dict[str, object]], QueryServer],
    zero_client: Callable[..., ZeroClient],
) -> Path:
    """A whole way, with documents of every kind at its start, which have arrived."""
    fill(mongo, 50, others=20)
    mongo["values"].insert_one({"_id": FIRST, **DOCUMENT})
    mongo["seats"].create_index("place", unique=True)
    place = deployment()
    place.configure(mappings=ALL)
    server = place.server()
    # What clients are built with is what they would import.
    place.manage("exportschema", "--output", str(place.directory / "schema.ts"))
    exported = schema_in(place.directory / "schema.ts")
    schema = read_schema(exported)
    cache = zero_cache(server.stream_url, query_url=query_server(exported).url)
    cache.wait_ready()
    client = zero_client(cache.url, exported, [table.alias for table in schema])
    made = Path(mongo, cache, client, schema, {(str(FIRST),): {"id": str(FIRST), **ROW}})
    client.wait_complete()
    made.arrives()
    return made


def test_what_happens_to_documents_is_seen_at_the_other_end(path: Path, mongodb: MongoServer) -> None:
    """Insert, update, replace, delete, leave and enter a filter, a transaction; and every type, live as copied."""
    each_kind_of_change(path)
    in_and_out_of_filters(path)
    embedded_arrays(path)
    keys_that_move(path, mongodb)
    every_type(path)
    a_transaction_over_two_collections(path, mongodb)
    assert path.cache.exits == []
    assert path.client.state.errors == []
    assert path.client.state.replaced == 0


def each_kind_of_change(path: Path) -> None:
    """Each leaves its trace in what MongoDB itself says, so nothing that was there before satisfies the wait."""
    items = path.database["items"]
    items.insert_one({"_id": "new", "name": "new", "count": 1, "tags": ["a"]})
    assert path.arrives()["item"]["new",] == {"id": "new", "name": "new", "count": 1, "tags": ["a"]}
    items.update_one({"_id": "new"}, {"$set": {"count": 2.5}, "$push": {"tags": {"b": [1]}}})
    assert path.arrives()["item"]["new",] == {"id": "new", "name": "new", "count": 2.5, "tags": ["a", {"b": [1]}]}
    items.update_one({"_id": "new"}, {"$unset": {"count": ""}})
    assert path.arrives()["item"]["new",]["count"] is None
    items.replace_one({"_id": "new"}, {"name": "replaced"})
    assert path.arrives()["item"]["new",] == {"id": "new", "name": "replaced", "count": None, "tags": None}
    items.delete_one({"_id": "new"})
    assert ("new",) not in path.arrives()["item"]


def in_and_out_of_filters(path: Path) -> None:
    """A room moves between the tables that one collection feeds, and out of both."""
    rooms = path.database["rooms"]
    rooms.insert_one({"_id": 1000, "kind": "chat", "title": "wanders"})
    for change, table in (
        ({"$set": {"kind": "group"}}, "channel"),
        ({"$set": {"archived": True}}, ""),
        ({"$set": {"archived": False}}, "channel"),
        ({"$set": {"kind": "chat"}}, "chat"),
        ({"$set": {"kind": "other"}}, ""),
    ):
        rooms.update_one({"_id": 1000}, change)
        rows = path.arrives()
        assert [name for name in ("chat", "channel") if (1000,) in rows[name]] == ([table] if table else [])


def embedded_arrays(path: Path) -> None:
    """Each element is a row: of what is written over and over, only what changed is sent."""
    rooms = path.database["rooms"]
    rooms.insert_one({"_id": 1001, "kind": "chat", "people": [{"name": "ann", "since": 1}, {"name": "bob"}]})
    assert path.arrives()["resident"][1001, "bob"] == {"roomId": 1001, "name": "bob", "since": None}
    for change in (
        {"$push": {"people": {"name": "cid", "since": 2}}},
        {"$set": {"people.0.since": 5}},
        {"$pull": {"people": {"name": "bob"}}},
        {"$push": {"people": {"name": "ann", "since": 9}}},
        {"$pop": {"people": -1}},
        {"$set": {"kind": "other"}},
        {"$set": {"kind": "group"}},
        {"$unset": {"people": 1}},
    ):
        rooms.update_one({"_id": 1001}, change)
        path.arrives()
    rooms.update_one({"_id": 1001}, {"$set": {"people": [{"name": "dan"}]}})
    rooms.delete_one({"_id": 1001})
    assert not [key for key in path.arrives()["resident"] if key[0] == 1001]


def keys_that_move(path: Path, mongodb: MongoServer) -> None:
    """A key of a unique index goes from one document to another, and two documents swap theirs."""
    seats = path.database["seats"]

    def sit(**places: str) -> None:
        path.seats = {
            (place,): {
                "place": place,
                "holder": holder.removeprefix("n"),
                "label": f"{place}: {holder.removeprefix('n')}",
            }
            for holder, place in places.items()
        }
        path.arrives()

    seats.insert_many([{"_id": 1, "place": "a"}, {"_id": 2, "place": "b"}])
    sit(n1="a", n2="b")
    with mongodb.client.start_session() as session, session.start_transaction():
        for number, place in ((1, "nowhere"), (2, "a"), (1, "b")):
            seats.update_one({"_id": number}, {"$set": {"place": place}}, session=session)
    sit(n1="b", n2="a")
    with mongodb.client.start_session() as session, session.start_transaction():
        seats.delete_one({"_id": 1}, session=session)
        seats.update_one({"_id": 2}, {"$set": {"place": "b"}}, session=session)
    sit(n2="b")
    seats.update_one({"_id": 2}, {"$set": {"place": "c"}})
    seats.insert_one({"_id": 3, "place": "b"})
    sit(n2="c", n3="b")


def every_type(path: Path) -> None:
    """What was copied is there already; now the same document live, and then most of its values gone."""
    values = path.database["values"]
    values.insert_one({"_id": SECOND, **DOCUMENT})
    key = (str(SECOND),)
    path.values[key] = {"id": str(SECOND), **ROW}
    path.arrives()
    values.replace_one({"_id": SECOND}, {"flag": True, "nested": {}, "list": [], "double": -0.0})
    path.values[key] = {"id": str(SECOND), **dict.fromkeys(ROW), "flag": True, "nested": {}, "list": [], "double": 0}
    path.arrives()


def a_transaction_over_two_collections(path: Path, mongodb: MongoServer) -> None:
    """The client never shows a part of it: both tables' views change in the same update."""
    user, note = ObjectId(), uuid.uuid4()
    with mongodb.client.start_session() as session, session.start_transaction():
        path.database["users"].insert_one({"_id": user, "profile": {"name": "in one"}}, session=session)
        path.database["notes"].insert_one({"_id": Binary.from_uuid(note), "body": "go"}, session=session)
    path.arrives()
    added = {"user": (str(user),), "note": (str(note),)}
    first = next(
        u for u in map(path.shown, path.client.state.updates) if any(key in u.get(t, {}) for t, key in added.items())
    )
    assert all(key in first.get(table, {}) for table, key in added.items())
