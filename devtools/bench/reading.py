"""Reads a change source as quickly as it can and only counts: ``python -m devtools.bench.reading URL``.

It asks as zero-cache does, acknowledges every commit and answers pings, but keeps nothing. What it found it prints as
one line of JSON. Rows of a ``backfill`` frame are counted by what stands between them, so no value may hold ``],[``.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import urlencode, urlsplit

from devtools.bench import websocket

READ_BYTES = 1024 * 1024
COMMIT = b'["commit"'
DATA = b'["data",{"tag":"'
BACKFILL = DATA + b"backfill"
ROW = (DATA + b"insert", DATA + b"update", DATA + b"delete")
CONTROL = b'["control"'
CONNECT_SECONDS = 30


@dataclass
class Counts:
    """What one connection has got; ``began``, ``first`` and ``last`` (a row or a commit) are by ``monotonic``."""

    rows: int = 0
    commits: int = 0
    frames: int = 0
    size: int = 0
    watermark: str = ""
    replica_version: str = ""
    began: float = 0.0
    first: float = 0.0
    last: float = 0.0


class SourceEnded(Exception):
    """The change source closed the connection, or wants the replica to be reset."""


class Connection:
    """One replica. Without ``watermark`` it asks for the initial sync."""

    def __init__(
        self,
        url: str,
        app_id: str,
        watermark: str = "",
        replica_version: str = "",
        heard: Callable[[bytes, float], None] | None = None,
    ) -> None:
        """Connect; returns once the WebSocket is open. ``heard`` is called with each row's frame, and when it came."""
        self._heard = heard
        self.counts = Counts(watermark=watermark, replica_version=replica_version, began=time.monotonic())
        self._buffer = bytearray()
        parts = urlsplit(url)
        query = {"appID": app_id, "shardNum": "0"}
        if watermark:
            query |= {"lastWatermark": watermark, "replicaVersion": replica_version or watermark}
        joined = "&".join(filter(None, (parts.query, urlencode(query))))
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        self.socket = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(websocket.request(host, port, f"{parts.path}?{joined}"))
        while websocket.HEAD_END not in self._buffer:
            self._receive()
        head, _, rest = bytes(self._buffer).partition(websocket.HEAD_END)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise SourceEnded(head.split(b"\r\n")[0].decode())
        self._buffer = bytearray(rest)

    def _receive(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise SourceEnded("the connection was closed")
        self._buffer += data

    def read(self) -> None:
        """Take what the socket has and count it; waits where it has nothing."""
        self._receive()
        counts, buffer = self.counts, self._buffer
        now = time.monotonic()
        counts.first = counts.first or now
        place, end = 0, len(buffer)
        answers: list[bytes] = []
        # The hot loop: no calls but where something is to be done.
        while end - place >= 2:
            length, start = buffer[place + 1], place + 2
            if length == 126:
                start = place + 4
                length = int.from_bytes(buffer[place + 2 : start], "big")
            elif length == 127:
                start = place + 10
                length = int.from_bytes(buffer[place + 2 : start], "big")
            if end < start + length:
                break
            opcode = buffer[place] & 0x0F
            place = start + length
            if opcode != websocket.TEXT:
                self._control(opcode, bytes(buffer[start:place]), answers)
                continue
            counts.frames += 1
            counts.size += length
            if buffer.startswith(ROW, start):
                counts.rows += 1
                if self._heard is not None:
                    self._heard(bytes(buffer[start:place]), now)
            elif buffer.startswith(BACKFILL, start):
                counts.rows += buffer.count(b"],[", start, place) + 1
            elif buffer.startswith(COMMIT, start):
                self._commit(bytes(buffer[start:place]), answers)
            elif buffer.startswith(CONTROL, start):
                raise SourceEnded(buffer[start:place].decode())
        del buffer[:place]
        if place:
            counts.last = now
        if answers:
            self.socket.sendall(b"".join(answers))

    def _commit(self, frame: bytes, answers: list[bytes]) -> None:
        watermark = json.loads(frame)[2]["watermark"]
        self.counts.commits += 1
        self.counts.watermark = watermark
        self.counts.replica_version = self.counts.replica_version or watermark
        ack = b'["status",{"tag":"commit"},{"watermark":"%s"}]' % watermark.encode()
        answers.append(websocket.client_frame(ack))

    def _control(self, opcode: int, payload: bytes, answers: list[bytes]) -> None:
        if opcode == websocket.PING:
            answers.append(websocket.client_frame(payload, websocket.PONG))
        elif opcode == websocket.CLOSE:
            raise SourceEnded(f"closed: {payload[2:].decode(errors='replace') or payload!r}")

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def read_all(connections: list[Connection], rows: int, commits: int, seconds: float) -> None:
    """Read until each connection has so many rows and commits, or until the time is over."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        left = 0
        for connection in connections:
            if connection.counts.rows < rows or connection.counts.commits < commits:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                left += 1
        while left and (patience := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(patience):
                connection = key.data
                connection.read()
                if connection.counts.rows >= rows and connection.counts.commits >= commits:
                    selector.unregister(connection.socket)
                    left -= 1


def synced(url: str, names: list[str], seconds: float) -> list[Counts]:
    """Take the initial sync of each replica, all at the same time; return what each brought."""
    connections = [Connection(url, name) for name in names]
    try:
        read_all(connections, 0, 1, seconds)
    finally:
        for connection in connections:
            connection.close()
    return [connection.counts for connection in connections]


def tell(frame: bytes, moment: float) -> None:
    """Print which update a frame brings, and when it came."""
    likes = json.loads(frame)[1]["new"]["likes"]
    print(json.dumps({"likes": likes, "moment": moment}), flush=True)


def main() -> None:
    """Read what the options say, and print what each connection counted, and the processor time that it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the change source: ws://HOST:PORT/changes/v0/stream?apiKey=KEY")
    parser.add_argument("--app-id", default="reader", help="with a number after it where there are several connections")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--watermark", default="", help="follow from there, instead of an initial sync")
    parser.add_argument("--replica-version", default="")
    parser.add_argument("--follow", action="store_true", help="follow after the initial sync")
    parser.add_argument("--times", action="store_true", help="print a line for each row")
    parser.add_argument("--rows", type=int, default=0, help="read until there are so many (of those that follow)")
    parser.add_argument("--commits", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120.0, help="at most; or just so long, without a number")
    chosen = parser.parse_args()
    names = [f"{chosen.app_id}{n}" if chosen.connections > 1 else chosen.app_id for n in range(chosen.connections)]
    places = {name: (chosen.watermark, chosen.replica_version) for name in names}
    if not chosen.watermark:
        counts = synced(chosen.url, names, chosen.seconds)
        places = {name: (c.watermark, c.replica_version) for name, c in zip(names, counts, strict=True)}
    if chosen.watermark or chosen.follow:
        wanted = chosen.rows, chosen.commits if chosen.rows or chosen.commits else 1 << 60
        heard = tell if chosen.times else None
        connections = [Connection(chosen.url, name, *places[name], heard) for name in names]
        print("following", flush=True)
        read_all(connections, *wanted, chosen.seconds)
        counts = [connection.counts for connection in connections]
    found = {"cpu": time.process_time(), "counts": [asdict(count) for count in counts]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
