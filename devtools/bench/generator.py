"""The ceiling: a change source that only sends, ``python -m devtools.bench.generator --port P``.

Every frame is made before it listens, by our own encoder, so they are what zerosource sends for the same documents. A
connection without ``lastWatermark`` gets the snapshot; one with it waits until somebody asks for ``/go``, and gets all
updates. It prints when a snapshot has been sent, and when the last commit was acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

from changesource.mapping.compiled import ignore_fault
from changesource.protocol import messages
from changesource.protocol.watermark import Watermark
from devtools.bench import dataset, websocket
from devtools.bench.listening import listen

APP_ID = "bench"
FRAME_ROWS = 1000
# What is handed to the kernel at once; more waits until the reader has room.
CHUNK_BYTES = 256 * 1024
BEGAN = 1 << 60


class Frames:
    """All frames, as they go over the wire, in chunks."""

    def __init__(self, documents: int, updates: int, by: int) -> None:
        """``by`` is how many updates make a transaction."""
        mapping = dataset.compiled()
        (self._table,) = mapping.tables.values()
        self._fingerprint = mapping.fingerprint
        self._documents = documents
        self.snapshot = list(chunks(self._snapshot()))
        self.updates = list(chunks(self._updates(updates, by)))

    def _watermark(self, number: int) -> Watermark:
        return Watermark(BEGAN + number, self._fingerprint)

    def _snapshot(self) -> Iterator[bytes]:
        watermark, table = self._watermark(0), self._table
        yield messages.begin(watermark)
        yield from messages.create_tables([table.table], APP_ID, 0)
        numbers = iter(range(self._documents))
        while some := list(islice(numbers, FRAME_ROWS)):
            rows = [row for n in some for row in table.encoded(dataset.document(n), table.values, ignore_fault)]
            yield table.frames.backfill(table.columns, rows, watermark)
        yield messages.commit(watermark)

    def _updates(self, updates: int, by: int) -> Iterator[bytes]:
        table = self._table
        known = min(self._documents, dataset.UPDATED)
        frames = [f for n in range(known) for f in table.encoded(dataset.updated(n), table.updates, ignore_fault)]
        for number in range(updates // by):
            watermark = self._watermark(number + 1)
            yield messages.begin(watermark)
            yield from (frames[n % known] for n in range(number * by, (number + 1) * by))
            yield messages.commit(watermark)


def chunks(payloads: Iterable[bytes]) -> Iterator[bytes]:
    """Return frames of these payloads, joined to pieces that are written at once."""
    waiting: list[bytes] = []
    size = 0
    for payload in payloads:
        waiting.append(websocket.server_frame(payload))
        size += len(payload)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


class Connection(asyncio.Protocol):
    """One connection: zero-cache's, or one that asks for ``/go``."""

    following: Connection | None = None

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._received = bytearray()
        self._open = False
        self._room = asyncio.Event()
        self._room.set()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Send nothing any more."""
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The reader is slow."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has room again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take the request, then acknowledgements and pings."""
        self._received += data
        if not self._open:
            head, found, rest = bytes(self._received).partition(websocket.HEAD_END)
            if found:
                self._received = bytearray(rest)
                self._requested(head)
            return
        while (taken := websocket.take_client_frame(self._received)) is not None:
            self._told(*taken)

    def _requested(self, head: bytes) -> None:
        target = head.split(b" ")[1]
        if self._transport is None:
            return
        if target == b"/go":
            following = Connection.following
            if following is not None:
                following.send(self._frames.updates, "")
            now = json.dumps({"moment": time.monotonic(), "following": following is not None}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + now)
            self._transport.close()
            return
        self._open = True
        self._transport.write(websocket.accept(head))
        if b"lastWatermark=" in target:
            Connection.following = self
            print("following", flush=True)
        else:
            self.send(self._frames.snapshot, "snapshot sent")

    def send(self, pieces: Sequence[bytes], said: str) -> None:
        """Send in a task; ``said`` is printed at the end."""
        self._task = asyncio.ensure_future(self._send(pieces, said))

    async def _send(self, pieces: Sequence[bytes], said: str) -> None:
        for piece in pieces:
            await self._room.wait()
            if self._transport is None:
                return
            self._transport.write(piece)
        if said:
            print(said, flush=True)

    def _told(self, opcode: int, payload: bytes) -> None:
        if self._transport is None:
            return
        if opcode == websocket.PING:
            self._transport.write(websocket.server_frame(payload, websocket.PONG))
        elif opcode == websocket.CLOSE:
            self._transport.write(websocket.server_frame(payload, websocket.CLOSE))
            self._transport.close()


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=0)
    parser.add_argument("--by", type=int, default=100)
    chosen = parser.parse_args()
    frames = Frames(chosen.documents, chosen.updates, chosen.by)
    asyncio.run(listen(lambda: Connection(frames), chosen.port))


if __name__ == "__main__":
    main()
