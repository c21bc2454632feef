"""The application that the tests of the whole way use: its mappings, its writers, and what MongoDB itself says of it.

The oracle is MongoDB's own ``aggregate``, written by hand beside each mapping; our mapper has no part in it.
"""

from __future__ import annotations

import random
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.binary import Binary
from pymongo import DeleteOne, InsertOne, MongoClient, UpdateOne
from pymongo.database import Database
from pymongo.errors import PyMongoError

Document = dict[str, Any]
Rows = dict[tuple[object, ...], Document]

MAPPINGS: dict[str, Any] = {
    "tables": {
        "item": {
            "collection": "items",
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "name": {"type": "string", "path": "name"},
                "count": {"type": "number", "path": "count", "optional": True},
                "tags": {"type": "json", "path": "tags", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "string",
        },
        "user": {
            "collection": "users",
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "name": {"type": "string", "path": "profile.name", "optional": True},
                "active": {"type": "boolean", "path": "active", "optional": True},
                "joined": {"type": "number", "path": "joined", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "objectId",
        },
        "chat": {
            "collection": "rooms",
            "columns": {
                "id": {"type": "number", "path": "_id"},
                "title": {"type": "string", "path": "title", "optional": True},
            },
            "primaryKey": ["id"],
            "filter": {"kind": "chat"},
            "idType": "number",
        },
        "channel": {
            "collection": "rooms",
            "columns": {
                "id": {"type": "number", "path": "_id"},
                "title": {"type": "string", "path": "title", "optional": True},
            },
            "primaryKey": ["id"],
            "filter": {"kind": {"$in": ["channel", "group"]}, "archived": {"$ne": True}},
            "idType": "number",
        },
        "resident": {
            "collection": "rooms",
            "columns": {
                "roomId": {"type": "number", "path": "_id"},
                "name": {"type": "string", "path": "people.name"},
                "since": {"type": "number", "path": "people.since", "optional": True},
            },
            "primaryKey": ["roomId", "name"],
            "filter": {"kind": {"$ne": "other"}},
            "pipeline": [{"$unwind": "$people"}],
            "idType": "number",
        },
        "note": {
            "collection": "notes",
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "body": {"type": "string", "path": "body", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "uuid",
        },
    },
    "publications": {"people": ["user", "note"], "places": ["chat", "channel", "resident", "item"]},
}

# Without the table whose rows do not follow from `_id`: for where MongoDB keeps no images.
WITHOUT_HISTORY: dict[str, Any] = {
    "tables": {name: table for name, table in MAPPINGS["tables"].items() if name != "resident"},
    "publications": {"people": ["user", "note"], "places": ["chat", "channel", "item"]},
}
MILLISECONDS = {"$cond": [{"$eq": [{"$type": "$joined"}, "date"]}, {"$toLong": "$joined"}, None]}
PIPELINES: dict[str, tuple[str, list[Document]]] = {
    "item": (
        "items",
        [{"$project": {"_id": 0, "id": "$_id", "name": 1, "count": 1, "tags": 1}}],
    ),
    "user": (
        "users",
        [
            {
                "$project": {
                    "_id": 0,
                    "id": {"$toString": "$_id"},
                    "name": "$profile.name",
                    "active": 1,
                    "joined": MILLISECONDS,
                }
            }
        ],
    ),
    "chat": ("rooms", [{"$match": {"kind": "chat"}}, {"$project": {"_id": 0, "id": "$_id", "title": 1}}]),
    "channel": (
        "rooms",
        [
            {"$match": {"kind": {"$in": ["channel", "group"]}, "archived": {"$ne": True}}},
            {"$project": {"_id": 0, "id": "$_id", "title": 1}},
        ],
    ),
    "resident": (
        "rooms",
        [
            {"$match": {"kind": {"$ne": "other"}}},
            {"$unwind": "$people"},
            {"$project": {"_id": 0, "roomId": "$_id", "name": "$people.name", "since": "$people.since"}},
        ],
    ),
    "note": ("notes", [{"$project": {"_id": 1, "body": 1}}]),
}
COLUMNS = {name: list(table["columns"]) for name, table in MAPPINGS["tables"].items()}
KEYS = {name: list(table["primaryKey"]) for name, table in MAPPINGS["tables"].items()}


def expected(database: Database[Document], table: str) -> Rows:
    """Return the table's rows, by key, as MongoDB itself tells them; missing is null."""
    collection, pipeline = PIPELINES[table]
    rows: Rows = {}
    for document in database[collection].aggregate(pipeline):
        if table == "note":
            document["id"] = str(uuid.UUID(bytes=bytes(document.pop("_id"))))
        row = {column: document.get(column) for column in COLUMNS[table]}
        # Of two rows of one document with the same key the first one stays.
        rows.setdefault(tuple(row[column] for column in KEYS[table]), row)
    return rows


def everything(database: Database[Document], tables: list[str] | None = None) -> dict[str, Rows]:
    """Return ``expected`` of all tables, or of some."""
    return {table: expected(database, table) for table in tables or PIPELINES}


def item(number: int, chance: random.Random) -> Document:
    """Return a new item."""
    return {
        "_id": f"item-{number}",
        "name": f"name {chance.random():.6f} é🙂",
        "count": chance.choice([None, number, chance.random(), -7]),
        "tags": [chance.choice("abc"), {"n": chance.randrange(100)}],
    }


def people(chance: random.Random) -> list[Document]:
    """Return who lives in a room."""
    return [{"name": name, "since": chance.randrange(5)} for name in chance.sample("abcdef", chance.randrange(4))]


def fill(database: Database[Document], items: int, others: int = 200, seed: int = 1) -> None:
    """Insert ``items`` items and ``others`` documents of every other kind."""
    chance = random.Random(seed)
    for start in range(0, items, 5000):
        database["items"].insert_many([item(n, chance) for n in range(start, min(start + 5000, items))])
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    database["users"].insert_many(
        [
            {"profile": {"name": f"user {n}"}, "active": n % 2 == 0, "joined": moment + timedelta(seconds=n)}
            for n in range(others)
        ]
    )
    database["rooms"].insert_many(
        [
            {
                "_id": n,
                "kind": chance.choice(["chat", "channel", "group"]),
                "title": f"room {n}",
                "people": people(chance),
            }
            for n in range(others)
        ]
    )
    database["notes"].insert_many(
        [{"_id": Binary.from_uuid(uuid.UUID(int=n)), "body": f"note {n}"} for n in range(others)]
    )


def last_write(database: Database[Document], table: str) -> tuple[object, ...]:
    """Insert a document that a table shows, after all else; return its row's key."""
    if table == "item":
        name = f"last-{uuid.uuid4()}"
        database["items"].insert_one({"_id": name, "name": name})
        return (name,)
    note = uuid.uuid4()
    database["notes"].insert_one({"_id": Binary.from_uuid(note)})
    return (str(note),)


class Writers:
    """Threads that insert, update, replace and delete documents of every kind, and run transactions, until stopped.

    ``counts`` says how many writes of each kind MongoDB acknowledged (a transaction's are counted one by one).
    """

    def __init__(
        self,
        uri: str,
        database: str,
        threads: int = 3,
        seed: int = 7,
        items: int = 50_000,
        pause: float = 0,
        patient: bool = False,
    ) -> None:
        """``items`` is how many items there are to be changed; writers of one database need seeds of their own.

        ``pause`` is in seconds, between two steps of a thread: for writers that leave others their share of the CPU. It
        may be changed while they run.
        ``patient`` ones go on after an error, which they count in ``faults``.
        """
        self.pause = pause
        self._patient = patient
        self.faults = 0
        self._uri = uri
        self._database = database
        self._items = items
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts = {"insert": 0, "update": 0, "replace": 0, "delete": 0, "transaction": 0}
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed + n,), daemon=True) for n in range(threads)]

    @property
    def total(self) -> int:
        """All acknowledged writes."""
        with self._lock:
            return sum(self.counts.values())

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all writers, wait for them, and raise what one of them met."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
        if self.errors:
            raise self.errors[0]

    def _count(self, kind: str, number: int = 1) -> None:
        with self._lock:
            self.counts[kind] += number

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        with MongoClient(self._uri) as client:
            database: Database[Document] = client[self._database]
            step = 0
            while not self._stop.wait(self.pause):
                step += 1
                try:
                    self._step(client, database, chance, f"{seed}-{step}")
                except PyMongoError as error:
                    if not self._patient:
                        self.errors.append(error)
                        return
                    self.faults += 1

    def _step(
        self, client: MongoClient[Document], database: Database[Document], chance: random.Random, name: str
    ) -> None:
        match chance.randrange(8):
            case 0 | 1:
                fresh = [{**item(0, chance), "_id": f"new-{name}-{n}"} for n in range(20)]
                database["items"].bulk_write([InsertOne(document) for document in fresh])
                self._count("insert", len(fresh))
            case 2 | 3:
                change = {"$set": {"count": chance.randrange(1000)}}
                done = database["items"].bulk_write([UpdateOne({"_id": one}, change) for one in self._keys(chance)])
                self._count("update", done.matched_count)
            case 4:
                database["items"].replace_one({"_id": self._keys(chance)[0]}, {"name": f"replaced {name}"}, upsert=True)
                self._count("replace")
            case 5:
                done = database["items"].bulk_write([DeleteOne({"_id": one}) for one in self._keys(chance)[:5]])
                self._count("delete", done.deleted_count)
            case 6:
                kind = chance.choice(["chat", "channel", "group", "other"])
                change: Document = {"$set": {"kind": kind, "archived": chance.random() < 0.2, "title": f"t {name}"}}
                if chance.random() < 0.5:
                    change["$set"]["people"] = people(chance)
                elif chance.random() < 0.5:
                    change["$pull"] = {"people": {"name": chance.choice("abcdef")}}
                database["rooms"].update_one({"_id": chance.randrange(300)}, change, upsert=True)
                self._count("update")
            case _:
                self._transaction(client, database, chance, name)

    def _keys(self, chance: random.Random) -> list[str]:
        return [f"item-{chance.randrange(self._items)}" for _ in range(20)]

    def _transaction(
        self, client: MongoClient[Document], database: Database[Document], chance: random.Random, name: str
    ) -> None:
        def work(session: Any) -> None:
            database["users"].insert_one(
                {"_id": ObjectId(), "profile": {"name": name}, "active": True}, session=session
            )
            database["notes"].insert_one({"_id": Binary.from_uuid(uuid.uuid4()), "body": name}, session=session)

        with client.start_session() as session:
            session.with_transaction(work)
        self._count("transaction", 2)
