"""Documents that would break zero-cache for good: it takes them, live, as copied, and again from its change log."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import psycopg
import pytest
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo.database import Database

from devtools.processes import alive, wait_until
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.app import Rows
from tests.harness.replicas import wait_equal

MAPPINGS: dict[str, Any] = {
    "tables": {
        "risk": {
            "collection": "risks",
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "text": {"type": "string", "path": "text", "optional": True},
                "number": {"type": "number", "path": "number", "optional": True},
                "data": {"type": "json", "path": "data", "optional": True},
            },
            "primaryKey": ["id"],
            "filter": {"hidden": {"$ne": True}},
            "idType": "string",
        },
        "strict": {
            "collection": "risks",
            "columns": {"id": {"type": "string", "path": "_id"}, "number": {"type": "number", "path": "number"}},
            "primaryKey": ["id"],
            "idType": "string",
        },
        "tally": {
            "collection": "tallies",
            "columns": {
                "id": {"type": "number", "path": "_id"},
                "label": {"type": "string", "path": "label", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "number",
        },
        "blob": {
            "collection": "blobs",
            "columns": {"id": {"type": "number", "path": "_id"}, "text": {"type": "string", "path": "text"}},
            "primaryKey": ["id"],
            "idType": "number",
        },
    }
}
BAD = "\ufffd"
SAFE = 2**53 - 1
# What a document holds, and what its row holds: None where the value must not leave as it is.
NUMBERS: dict[str, tuple[object, float | None]] = {
    "safe": (Int64(SAFE), SAFE),
    "-safe": (Int64(-SAFE), -SAFE),
    "beyond": (Int64(SAFE + 1), None),
    "int64": (Int64(2**63 - 1), None),
    "-int64": (Int64(-(2**63)), None),
    "nan": (float("nan"), None),
    "inf": (float("inf"), None),
    "-inf": (float("-inf"), None),
    "-0": (-0.0, 0),
    "huge": (1.5e300, 1.5e300),
    "tiny": (5e-324, 5e-324),
    "decimal": (Decimal128("1e6000"), None),
    "decimal-nan": (Decimal128("NaN"), None),
    "text": ("1", None),
}
TEXTS = {"nul": "a\0b", "nuls": "\0\0", "escape": "\\u0000 and \\\0", "lines": "a\u2028b\r\n\x7f\x1f"}
BIG_SIZE = 300_000
LARGEST = 12 * 1024 * 1024


def insert_risks(database: Database[Any], when: str) -> Rows:
    """Insert one document for each risk; return the rows of ``risk`` that they must give."""
    documents: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for name, (value, number) in NUMBERS.items():
        documents.append({"_id": f"{when} {name}", "number": value, "data": {"deep": [{"number": value}]}})
        inner = str(value) if type(value) is Int64 and number is None else value if name == "text" else number
        if name == "decimal":
            inner = "1E+6000"
        rows.append({"text": None, "number": number, "data": {"deep": [{"number": inner}]}})
    for name, text in TEXTS.items():
        documents.append({"_id": f"{when} {name}", "text": text, "data": {text.replace("\0", "_"): [[text]]}})
        clean = text.replace("\0", BAD)
        rows.append({"text": clean, "number": None, "data": {text.replace("\0", "_"): [[clean]]}})
    database["risks"].insert_many(documents)
    # Keys that no row can have: a replica could not tell it from another document's.
    database["risks"].insert_many([{"_id": f"{when} \0"}, {"_id": 7, "number": 1}])
    database["tallies"].insert_many([{"_id": Int64(2**60), "label": when}, {"_id": float("nan"), "label": when}])
    return {(document["_id"],): {"id": document["_id"], **row} for document, row in zip(documents, rows, strict=True)}


def expected(risks: Rows, tallies: Rows) -> dict[str, Rows]:
    """All tables but the blobs. ``strict`` leaves out what has no number of its own."""
    strict = {
        key: {"id": row["id"], "number": row["number"]} for key, row in risks.items() if row["number"] is not None
    }
    return {"risk": risks, "strict": strict, "tally": tallies}


class Blobs:
    """Rows that are large together; compared by their sizes in the replica."""

    def __init__(self, database: Database[Any]) -> None:
        self._blobs = database["blobs"]
        self.count = 0
        self.size = 0

    def insert(self, count: int, size: int) -> None:
        """Insert ``count`` documents of ``size`` characters each, outside a transaction."""
        for start in range(0, count, 100):
            numbers = range(self.count, self.count + min(100, count - start))
            self._blobs.insert_many([{"_id": n, "text": f"{n:08}" + "x" * (size - 8)} for n in numbers])
            self.count += len(numbers)
            self.size += len(numbers) * size

    def arrived(self, cache: ZeroCache) -> bool:
        """Whether the replica has them all, each whole and in its place."""
        sums = "count(*) AS n, sum(length(text)) AS size, sum(substr(text, 1, 8) = printf('%08d', id)) AS own"
        (found,) = cache.query(f"SELECT {sums} FROM blob")  # noqa: S608
        return (found["n"], found["size"], found["own"]) == (self.count, self.size, self.count)

    def wait(self, cache: ZeroCache) -> None:
        """Wait until they have arrived."""
        wait_until(lambda: self.arrived(cache), f"{self.count} blobs", 120, interval=0.25, detail=cache.log_tail)


def kill(cache: ZeroCache) -> None:
    """Kill all of zero-cache."""
    pids = cache.pids()
    assert len(pids) > 2
    cache.kill()
    assert not alive(pids)


def replicator(cache: ZeroCache) -> int:
    """The process that brings the replica up to date; another one stores the change log in PostgreSQL."""
    entries = [json.loads(line) for line in cache.log_text().splitlines() if line.startswith("{")]
    pid = next(entry["pid"] for entry in reversed(entries) if entry.get("worker") == "serving-replicator")
    assert isinstance(pid, int)
    assert pid in cache.pids()
    return pid


def wait_stored(cache: ZeroCache, document_id: str) -> None:
    """Wait until zero-cache has the document's row in its change log."""
    sql = f"""SELECT 1 FROM "{cache.app_id}_0/cdc"."changeLog" WHERE change->'new'->>'id' = %s"""  # noqa: S608
    with psycopg.connect(cache.database_url, autocommit=True) as connection:
        wait_until(
            lambda: connection.execute(sql, [document_id]).fetchone(), "the change log", 30, detail=cache.log_tail
        )


def caught_up(cache: ZeroCache) -> int:
    """How many changes the latest start read from the change log."""
    return int(re.findall(r"caught up \S+ with (\d+) changes", cache.log_text())[-1])


@pytest.mark.parametrize("big_rows", [300, pytest.param(2_100, marks=pytest.mark.slow)])
def test_zero_cache_survives_what_would_poison_it(
    deployment: DeploymentFactory,
    mongodb: MongoServer,
    mongo: Database[Any],
    zero_cache: ZeroCacheFactory,
    big_rows: int,
) -> None:
    """In the initial sync, live, and read again from its own change log: no exit, and every row as it must be."""
    risks = insert_risks(mongo, "copied")
    tallies: Rows = {}
    blobs = Blobs(mongo)
    blobs.insert(250, BIG_SIZE)
    place = deployment()
    place.configure(mappings=MAPPINGS)
    cache = zero_cache(place.server().stream_url)
    cache.wait_ready()
    wait_equal(cache, expected(risks, tallies))
    blobs.wait(cache)

    # The replica stands still while the change log fills, so that the next start must read all of it from there.
    os.kill(replicator(cache), signal.SIGSTOP)
    mongo["risks"].delete_many({"_id": {"$in": [7, "copied \0"]}})
    mongo["tallies"].delete_many({})
    risks |= insert_risks(mongo, "live")
    change_keys(mongo, mongodb, risks, tallies)
    risks |= insert_one(mongo, "last")
    wait_stored(cache, "last")
    kill(cache)
    cache.start()
    cache.wait_ready()
    wait_equal(cache, expected(risks, tallies))
    assert caught_up(cache) > len(NUMBERS) + len(TEXTS)

    blobs.insert(big_rows, BIG_SIZE)
    blobs.insert(1, LARGEST)
    blobs.wait(cache)
    kill(cache)
    cache.start()
    cache.wait_ready()
    risks |= insert_one(mongo, "after")
    wait_equal(cache, expected(risks, tallies))
    assert blobs.arrived(cache)
    assert cache.exits == []


def insert_one(database: Database[Any], name: str) -> Rows:
    """Insert a harmless document; return its row."""
    database["risks"].insert_one({"_id": name, "number": 1})
    return {(name,): {"id": name, "text": None, "number": 1, "data": None}}


def change_keys(database: Database[Any], mongodb: MongoServer, risks: Rows, tallies: Rows) -> None:
    """Whatever makes a row's key come and go: replaced out of and into the filter, deleted and inserted at once."""
    collection = database["risks"]
    for name in ("moves", "stays out"):
        collection.insert_one({"_id": name, "number": 1})
        collection.replace_one({"_id": name}, {"hidden": True, "number": 2})
    collection.replace_one({"_id": "moves"}, {"text": "back", "number": 3})
    collection.update_one({"_id": "stays out"}, {"$set": {"text": "unseen"}, "$unset": {"number": ""}})
    risks["moves",] = {"id": "moves", "text": "back", "number": 3, "data": None}
    tallies |= {(n,): {"id": n, "label": "again"} for n in (1, 2.5, SAFE)}
    database["tallies"].insert_many([{"_id": n, "label": "first"} for n in (1, 2.5, Int64(SAFE), 4)])
    with mongodb.client.start_session() as session, session.start_transaction():
        for number in (1.0, Decimal128("2.5"), Int64(SAFE)):
            database["tallies"].delete_one({"_id": number}, session=session)
            database["tallies"].insert_one({"_id": number, "label": "again"}, session=session)
        database["tallies"].delete_one({"_id": 4}, session=session)
        database["tallies"].insert_one({"_id": 5, "label": "gone at once"}, session=session)
        database["tallies"].delete_one({"_id": 5}, session=session)
