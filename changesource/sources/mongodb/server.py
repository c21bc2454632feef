"""What the MongoDB server is, and how far back its oplog reaches, by the driver's synchronous side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from changesource.sources.mongodb.errors import PRIVILEGE, translated
from changesource.sources.mongodb.survey import check_server

OPLOG = "oplog.rs"


@dataclass(frozen=True)
class Oplog:
    """``first`` and ``last`` are when its ends were written, in seconds since 1970.

    ``filled`` is how much of its bound it takes, from 0 to 1: until that is about 1, it forgets nothing.
    """

    first: int
    last: int
    filled: float

    @property
    def hours(self) -> float:
        """How far back it reaches."""
        return (self.last - self.first) / 3600


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
    """Read it of the database ``local``, by the server's answer to ``hello``; None where it may not be read."""
    try:
        first = local[OPLOG].find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        (found,) = local[OPLOG].aggregate([{"$collStats": {"storageStats": {}}}])
    except OperationFailure as error:
        if error.code in PRIVILEGE:
            return None
        raise
    stats = found["storageStats"]
    # The embedded server bounds entries too.
    filled = max(stats["size"] / stats["maxSize"], stats["count"] / stats["max"] if stats.get("max", 0) > 0 else 0.0)
    last = hello["lastWrite"]["opTime"]["ts"].time
    return Oplog(first["ts"].time if first else last, last, min(filled, 1.0))
