"""A MongoDB at the speed of memory: ``python -m devtools.bench.replayed --port P --documents N``.

It behaves as the primary of a replica set towards a driver and towards zerosource, but holds everything encoded, so
that what is measured is who reads. Documents never change: an update is only an event. What it does not know is
answered by an error, and logged.

The command ``replayed``, of its own, takes ``updates`` (how many, with ``by`` in each transaction) or ``pace``
(``rate`` a second, ``by``, ``seconds``), and answers what was asked of it so far.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle, islice
from typing import Any, cast

import bson
from bson import Timestamp
from bson.errors import BSONError

from devtools.bench import dataset, wire
from devtools.bench.listening import listen
from devtools.bench.oplog import Oplog, Template, token

NAME = "replayed"
UNKNOWN_COMMAND, CURSOR_NOT_FOUND, BAD_VALUE = 59, 43, 2
FIRST_BATCH = 101
UNCOUNTED = ("hello", "ismaster", "isMaster", NAME)
Command = dict[str, Any]


class Refusal(Exception):
    """A command that is answered by an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Stream:
    """A change stream; ``collection`` is empty for one of the database."""

    namespace: str
    position: int
    collection: str = ""


@dataclass
class Copy:
    """A cursor over a collection."""

    namespace: str
    documents: list[bytes]
    position: int = 0

    def next(self, size: int) -> list[bytes]:
        """Return the next documents; all that are left where ``size`` is 0."""
        found = self.documents[self.position : self.position + size] if size else self.documents[self.position :]
        self.position += len(found)
        return found


class Replayed:
    """The server's state, and how each command is answered: with the elements of a document."""

    def __init__(self, documents: int, tables: int) -> None:
        """``documents`` are shared out among ``tables`` collections."""
        self.collections = dataset.encoded(documents, tables)
        self.oplog = Oplog()
        self.counts: Counter[str] = Counter()
        self.address = ""
        self._cursors: dict[int, Stream | Copy] = {}
        self._ids = count(1)
        self._barriers: set[object] = set()
        self._pacing: asyncio.Task[None] | None = None
        names = {n: name for name, numbers in dataset.shares(documents, tables) for n in numbers}
        step = max(1, documents // dataset.UPDATED)
        self._templates = [self._template(names[n], n) for n in range(0, documents, step)]
        self._next = 0
        self._commands: dict[str, Callable[[Command], Awaitable[bytes]]] = {
            "aggregate": self._aggregate,
            "buildInfo": self._build_info,
            "buildinfo": self._build_info,
            "collMod": self._nothing,
            "count": self._count,
            "endSessions": self._nothing,
            "find": self._find,
            "getMore": self._get_more,
            "hello": self._hello,
            "insert": self._insert,
            "isMaster": self._hello,
            "ismaster": self._hello,
            "killCursors": self._kill_cursors,
            "listCollections": self._list_collections,
            "listIndexes": self._list_indexes,
            "ping": self._nothing,
            NAME: self._replayed,
            "update": self._update,
        }

    async def answer(self, request: wire.Request) -> bytes:
        """Return the reply to a command."""
        name = next(iter(request.command))
        if name not in UNCOUNTED:
            self.counts[name] += 1
        try:
            if (handler := self._commands.get(name)) is None:
                raise Refusal(UNKNOWN_COMMAND, f"no such command: '{name}'")
            return wire.reply(request, wire.document(await handler(request.command), self._tail(1.0)))
        except Refusal as error:
            print(f"refused {name}: {error}", flush=True)
            failed = {"errmsg": str(error), "code": error.code}
            return wire.reply(request, wire.document(self._tail(0.0), wire.elements(failed)))

    def _tail(self, ok: float) -> bytes:
        now = _timestamp(self.oplog.last_time)
        clock = {"clusterTime": now, "signature": {"hash": bytes(20), "keyId": bson.Int64(0)}}
        return wire.elements({"ok": ok, "operationTime": now, "$clusterTime": clock})

    def _template(self, name: str, number: int) -> Template:
        document = dataset.updated(number)
        return Template("update", name, document["_id"], bson.encode(document))

    # What a driver asks.

    async def _nothing(self, command: Command) -> bytes:
        return b""

    async def _hello(self, command: Command) -> bytes:
        return wire.elements(
            {
                "helloOk": True,
                "ismaster": True,
                "isWritablePrimary": True,
                "setName": NAME,
                "setVersion": 1,
                "hosts": [self.address],
                "primary": self.address,
                "me": self.address,
                "maxBsonObjectSize": 16 * 1024 * 1024,
                "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000,
                "localTime": datetime.now(UTC),
                "logicalSessionTimeoutMinutes": 30,
                "minWireVersion": 0,
                "maxWireVersion": 21,
                "readOnly": False,
            }
        )

    async def _build_info(self, command: Command) -> bytes:
        return wire.elements({"version": "7.0.0", "versionArray": [7, 0, 0, 0]})

    async def _list_collections(self, command: Command) -> bytes:
        images = {"changeStreamPreAndPostImages": {"enabled": True}}
        found = [{"name": name, "type": "collection", "options": images} for name in self.collections]
        namespace = f"{dataset.DATABASE}.$cmd.listCollections"
        return wire.cursor_elements("firstBatch", [bson.encode(one) for one in found], 0, namespace)

    async def _list_indexes(self, command: Command) -> bytes:
        index = bson.encode({"v": 2, "key": {"_id": 1}, "name": "_id_"})
        return wire.cursor_elements("firstBatch", [index], 0, f"{dataset.DATABASE}.{command['listIndexes']}")

    async def _count(self, command: Command) -> bytes:
        return wire.elements({"n": len(self.collections.get(command["count"], ()))})

    async def _find(self, command: Command) -> bytes:
        if command.get("filter"):
            raise Refusal(BAD_VALUE, "finds have no filter here")
        documents = self.collections.get(command["find"], [])
        if limit := command.get("limit", 0):
            documents = documents[:limit]
        copy = Copy(f"{dataset.DATABASE}.{command['find']}", documents)
        batch = copy.next(command.get("batchSize", FIRST_BATCH) or FIRST_BATCH)
        return wire.cursor_elements("firstBatch", batch, self._kept(copy), copy.namespace)

    def _kept(self, copy: Copy, cursor: int = 0) -> int:
        """Keep a cursor that has more; return its id, 0 for one that has not."""
        if copy.position >= len(copy.documents):
            self._cursors.pop(cursor, None)
            return 0
        cursor = cursor or next(self._ids)
        self._cursors[cursor] = copy
        return cursor

    async def _aggregate(self, command: Command) -> bytes:
        first = command["pipeline"][0]
        target = command["aggregate"]
        collection = target if isinstance(target, str) else ""
        if "$changeStream" not in first:
            # What is asked when a mapping is published: of which type a collection's ids are.
            answer = [bson.encode({"type": "objectId"})] if "$sort" in first else []
            return wire.cursor_elements("firstBatch", answer, 0, f"{dataset.DATABASE}.{target}")
        namespace = f"{dataset.DATABASE}.{collection or '$cmd.aggregate'}"
        cursor = next(self._ids)
        stream = Stream(namespace, self.oplog.start(first["$changeStream"]), collection)
        self._cursors[cursor] = stream
        more = wire.elements({"postBatchResumeToken": token(stream.position)})
        return wire.cursor_elements("firstBatch", [], cursor, namespace, more)

    async def _get_more(self, command: Command) -> bytes:
        cursor = int(command["getMore"])
        found = self._cursors.get(cursor)
        if found is None:
            raise Refusal(CURSOR_NOT_FOUND, f"cursor id {cursor} not found")
        size = command.get("batchSize", 0)
        if isinstance(found, Copy):
            batch = found.next(size)
            return wire.cursor_elements("nextBatch", batch, self._kept(found, cursor), found.namespace)
        deadline = time.monotonic() + command.get("maxTimeMS", 1000) / 1000
        while True:
            events, found.position = self.oplog.read(found.position, size, found.collection)
            left = deadline - time.monotonic()
            if events or left <= 0:
                break
            await self.oplog.wait(left)
        more = wire.elements({"postBatchResumeToken": token(found.position)})
        return wire.cursor_elements("nextBatch", events, cursor, found.namespace, more)

    async def _kill_cursors(self, command: Command) -> bytes:
        killed = [one for one in command["cursors"] if self._cursors.pop(int(one), None) is not None]
        return wire.elements({"cursorsKilled": killed, "cursorsNotFound": [], "cursorsAlive": []})

    async def _update(self, command: Command) -> bytes:
        upserted = []
        for index, update in enumerate(command["updates"]):
            key = update["q"]["_id"]
            is_new = key not in self._barriers
            if is_new:
                self._barriers.add(key)
                upserted.append({"index": index, "_id": key})
            document = {"_id": key, **update["u"]}
            self.oplog.write("insert" if is_new else "replace", command["update"], document)
        count = len(command["updates"])
        answer: dict[str, Any] = {"n": count, "nModified": count - len(upserted)}
        return wire.elements({**answer, "upserted": upserted} if upserted else answer)

    async def _insert(self, command: Command) -> bytes:
        for document in command["documents"]:
            self.oplog.write("insert", command["insert"], document)
        return wire.elements({"n": len(command["documents"])})

    # What a benchmark asks.

    async def _replayed(self, command: Command) -> bytes:
        if updates := command.get("updates"):
            self._append(updates, command.get("by", 1))
        if pace := command.get("pace"):
            self._pacing = asyncio.create_task(self._paced(**pace), name="pace")
        streams = [one for one in self._cursors.values() if isinstance(one, Stream)]
        events = len(self.oplog.events)
        return wire.elements(
            {
                "commands": dict(self.counts),
                "streams": len(streams),
                "behind": max((events - one.position for one in streams), default=0),
                "events": events,
                "last": bson.Int64(self.oplog.last_time),
                "moment": time.monotonic(),
            }
        )

    def _append(self, updates: int, by: int) -> None:
        templates = list(islice(cycle(self._templates), self._next, self._next + min(updates, len(self._templates))))
        self._next = (self._next + updates) % len(self._templates)
        self.oplog.append(templates, updates, by)

    async def _paced(self, rate: float, by: int, seconds: float) -> None:
        began = time.monotonic()
        for number in range(int(rate * seconds / by)):
            await asyncio.sleep(began + number * by / rate - time.monotonic())
            self._append(by, by)


def _timestamp(cluster_time: int) -> Timestamp:
    return Timestamp(cluster_time >> 32, cluster_time & 0xFFFFFFFF)


class Connection(asyncio.Protocol):
    """One driver's connection: its commands are answered one after the other."""

    def __init__(self, server: Replayed) -> None:
        self._server = server
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer when a command is whole; a driver sends the next one after the answer, if it wants one."""
        self._received += data
        while len(self._received) >= 4:
            size = int.from_bytes(self._received[:4], "little")
            if len(self._received) < size:
                break
            message = bytes(self._received[:size])
            del self._received[:size]
            self._task = asyncio.ensure_future(self._answer(message))

    async def _answer(self, message: bytes) -> None:
        try:
            request = wire.read_request(message)
            reply = await self._server.answer(request)
        except (ValueError, KeyError, BSONError) as error:
            print(f"not understood: {error!r}", file=sys.stderr, flush=True)
            if self._transport is not None:
                self._transport.abort()
            return
        if self._transport is not None and not request.silent:
            self._transport.write(reply)


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--tables", type=int, default=1)
    chosen = parser.parse_args()
    server = Replayed(chosen.documents, chosen.tables)
    server.address = f"127.0.0.1:{chosen.port}"
    asyncio.run(listen(lambda: Connection(server), chosen.port))


if __name__ == "__main__":
    main()
