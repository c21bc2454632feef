"""Change events that are encoded before anybody asks for them."""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import bson
from bson import Int64
from bson.binary import Binary

from devtools.bench import wire
from devtools.bench.dataset import DATABASE

_UINT64 = struct.Struct("<Q")
# What a real server bounds a reply to.
REPLY_BYTES = 16 * 1024 * 1024
LSID = {"id": Binary.from_uuid(uuid.UUID(int=1)), "uid": Binary(bytes(32), 0)}


def token(position: int) -> dict[str, str]:
    """Return the resume token of whoever has all before ``position``."""
    return {"_data": f"{position:016x}"}


def position_of(resume_token: dict[str, str]) -> int:
    """Return where the bearer of a token goes on."""
    return int(resume_token["_data"], 16)


class Template:
    """An event but for its token, its time and its transaction, which are put in when it is appended."""

    def __init__(self, kind: str, collection: str, document_id: object, document: bytes) -> None:
        """``document`` is the one after the change, as BSON."""
        self.collection = collection
        namespace = {"db": DATABASE, "coll": collection}
        fields = {"operationType": kind, "ns": namespace, "documentKey": {"_id": document_id}}
        self._tail = wire.elements(fields) + b"\x03fullDocument\0" + document

    def event(self, position: int, cluster_time: int, transaction: bytes = b"") -> bytes:
        """Return the event as MongoDB would send it."""
        head = b"\x03_id\0\x21\0\0\0\x02_data\0\x11\0\0\0%016x\0\0\x11clusterTime\0" % (position + 1)
        return wire.document(head, _UINT64.pack(cluster_time), transaction, self._tail)


class Oplog:
    """All events since the start, in order."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[bytes] = []
        self.times: list[int] = []
        self.collections: list[str] = []
        self.last_time = int(time.time()) << 32 | 1
        self._transactions = 0
        self._news = asyncio.Event()

    def next_time(self) -> int:
        """Return the next cluster time."""
        self.last_time = max(self.last_time + 1, int(time.time()) << 32 | 1)
        return self.last_time

    def write(self, kind: str, collection: str, document: dict[str, Any]) -> None:
        """Append the event of a single write."""
        template = Template(kind, collection, document["_id"], bson.encode(document))
        self._show([template.event(len(self.events), self.next_time())], [self.last_time], [collection])

    def append(self, templates: Sequence[Template], count: int, by: int) -> None:
        """Append ``count`` events in transactions of ``by``, all seen at the same moment; nobody is served before."""
        events, times, collections = [], [], []
        first, cluster_time, transaction = len(self.events), 0, b""
        for number in range(count):
            if number % by == 0:
                cluster_time = self.next_time()
                if by > 1:
                    self._transactions += 1
                    transaction = wire.elements({"lsid": LSID, "txnNumber": Int64(self._transactions)})
            template = templates[number % len(templates)]
            events.append(template.event(first + number, cluster_time, transaction))
            times.append(cluster_time)
            collections.append(template.collection)
        self._show(events, times, collections)

    def _show(self, events: list[bytes], times: list[int], collections: list[str]) -> None:
        self.events += events
        self.times += times
        self.collections += collections
        news, self._news = self._news, asyncio.Event()
        news.set()

    def start(self, options: dict[str, Any]) -> int:
        """Return the position at which a change stream of these options begins."""
        for name in ("resumeAfter", "startAfter"):
            if name in options:
                return position_of(options[name])
        if "startAtOperationTime" in options:
            at = options["startAtOperationTime"]
            return bisect_left(self.times, at.time << 32 | at.inc)
        return len(self.events)

    def read(self, position: int, count: int, collection: str = "") -> tuple[list[bytes], int]:
        """Return up to ``count`` events, of one collection or of all, and where to go on."""
        if count <= 0 and position < len(self.events):
            count = max(1, REPLY_BYTES // (len(self.events[position]) + 8))
        end = min(position + count, len(self.events))
        events = self.events[position:end]
        if collection:
            names = self.collections[position:end]
            events = [event for event, name in zip(events, names, strict=True) if name == collection]
        return events, end

    async def wait(self, seconds: float) -> None:
        """Return when something was appended, or after ``seconds``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
