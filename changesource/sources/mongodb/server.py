"""What the MongoDB server is, and how far back its oplog reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo import MongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from pymongo.errors import OperationFailure

from changesource.sources.mongodb.errors import PRIVILEGE, translated
from changesource.sources.mongodb.survey import check_server

OPLOG = "oplog.rs"
FIRST: dict[str, Any] = {"filter": {}, "projection": {"ts": 1}, "sort": [("$natural", 1)]}
STATS: list[dict[str, Any]] = [{"$collStats": {"storageStats": {}}}]


@dataclass(frozen=True)
class Oplog:
    """``first`` and ``last`` are when its ends were written, in seconds since 1970.

    ``filled`` is how much of its bound it takes, from 0 to 1: until that is about 1, it forgets nothing.
    """

    first: int
    last: int
    filled: float

    @property
    def seconds(self) -> int:
        """How far back it reaches."""
        return self.last - self.first

    @property
    def hours(self) -> float:
        """The same in hours."""
        return self.seconds / 3600


@dataclass(frozen=True)
class Server:
    """A server that can be watched; ``members`` are all of its replica set. No ``oplog``: it may not be read."""

    version: str
    replica_set: str
    members: int
    oplog: Oplog | None


def describe(uri: str, seconds: float) -> Server:
    """Ask the server. Raises ``SourceRefused`` of a kind where it cannot be watched, and ``SourceUnavailable``.

    It takes no longer than ``seconds``, but for the resolving of names.
    """
    with (
        translated(),
        pymongo.timeout(seconds),
        MongoClient[dict[str, Any]](uri, connectTimeoutMS=int(seconds * 1000), appname="zerosource") as client,
    ):
        hello = client.admin.command("hello")
        check_server(hello)
        version = client.admin.command("buildInfo")["version"]
        members = [*hello.get("hosts", []), *hello.get("passives", []), *hello.get("arbiters", [])]
        return Server(version, hello["setName"], len(members), read_oplog(client.get_database("local"), hello))


def read_oplog(local: Database[dict[str, Any]], hello: dict[str, Any]) -> Oplog | None:
    """Read it of the database ``local``, by the answer to ``hello``; None where it may not, or cannot, be read."""
    try:
        first = local[OPLOG].find_one(**FIRST)
        stats = list(local[OPLOG].aggregate(STATS))
    except OperationFailure as error:
        if error.code in PRIVILEGE:
            return None
        raise
    return _oplog(first, stats, hello)


async def aread_oplog(local: AsyncDatabase[dict[str, Any]], hello: dict[str, Any]) -> Oplog | None:
    """``read_oplog`` by the driver's asynchronous side."""
    try:
        first = await local[OPLOG].find_one(**FIRST)
        stats = await (await local[OPLOG].aggregate(STATS)).to_list()
    except OperationFailure as error:
        if error.code in PRIVILEGE:
            return None
        raise
    return _oplog(first, stats, hello)


def _oplog(first: dict[str, Any] | None, found: list[dict[str, Any]], hello: dict[str, Any]) -> Oplog | None:
    try:
        stats = found[0]["storageStats"]
        # The embedded server bounds entries too.
        entries = stats["count"] / stats["max"] if stats.get("max", 0) > 0 else 0.0
        filled = max(stats["size"] / stats["maxSize"], entries)
        last = hello["lastWrite"]["opTime"]["ts"].time
        return Oplog(first["ts"].time if first else last, last, min(filled, 1.0))
    except (LookupError, TypeError, AttributeError, ZeroDivisionError):
        # A server that is compatible in other things. Nothing hangs on what is only shown.
        return None
