"""A TCP proxy before a server's WebSocket: notes every transaction that passes, and may hold the server back, cut
connections, and lie about where zero-cache stands."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from devtools.processes import free_port
from tests.harness.network import listen_no_more

CHUNK = 16 * 1024
HEAD_END = b"\r\n\r\n"
TEXT, CONTINUATION, FINAL = 1, 0, 0x80
NOTED = (b'["begin"', b'["commit"', b'["rollback"', b'["control"')


@dataclass
class Recording:
    """One connection: what zero-cache asked for, and what the server said.

    ``transactions`` are (tag, watermark) of begin, commit, rollback and control, in order, ``moments`` when each came
    (monotonic, in seconds); ``frames`` and ``size`` (bytes) count all text frames.
    """

    query: dict[str, list[str]] = field(default_factory=dict)
    transactions: list[tuple[str, str]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    frames: int = 0
    size: int = 0
    _buffer: bytearray = field(default_factory=bytearray)
    _head: bytes = b""
    _message: bytearray = field(default_factory=bytearray)
    _is_text: bool = False

    @property
    def last_watermark(self) -> str:
        """The ``lastWatermark`` that zero-cache gave; "" before its first sync."""
        return self.query.get("lastWatermark", [""])[0]

    @property
    def commits(self) -> list[str]:
        """The watermarks of the commits that passed."""
        return [watermark for tag, watermark in list(self.transactions) if tag == "commit"]

    def request(self, head: bytes) -> None:
        """Take the HTTP request of the WebSocket."""
        self.query = parse_qs(urlsplit(head.split(b" ")[1].decode()).query)

    def feed(self, data: bytes) -> None:
        """Take what the server sent: the HTTP answer, then WebSocket frames, cut anywhere."""
        self._buffer += data
        if not self._head:
            head, found, rest = bytes(self._buffer).partition(HEAD_END)
            if not found:
                return
            assert b"sec-websocket-extensions" not in head.lower(), "compressed frames cannot be read"
            self._head, self._buffer = head, bytearray(rest)
        while self._frame():
            pass

    def _frame(self) -> bool:
        """Take one frame out of the buffer (RFC 6455, 5.2); False where it is not all there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, start = buffer[1], 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return False
        opcode, final = buffer[0] & 0x0F, buffer[0] & FINAL
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        if opcode in (TEXT, CONTINUATION):
            self._message += payload
            if final:
                self._note(bytes(self._message))
                self._message.clear()
        return True

    def _note(self, message: bytes) -> None:
        self.frames += 1
        self.size += len(message)
        if message.startswith(NOTED):
            tag, _, *place = json.loads(message)
            watermarks = place[0] if place else {}
            self.moments.append(time.monotonic())
            self.transactions.append((tag, watermarks.get("commitWatermark") or watermarks.get("watermark", "")))


def check_watermarks(connections: Iterable[Recording]) -> None:
    """Fail unless all commits of each connection rise strictly from its ``lastWatermark`` on, each as it began."""
    for connection in connections:
        last, begun = connection.last_watermark, ""
        for tag, watermark in connection.transactions:
            if tag == "begin":
                assert not begun, f"{watermark} begins within {begun}"
                assert watermark > last, f"{watermark} begins after {last} was committed"
                begun = watermark
            elif tag == "commit":
                assert watermark == begun, f"{watermark} is committed, but {begun} was begun"
                last, begun = watermark, ""
            else:
                assert tag == "rollback", tag
                begun = ""


def check_finds_a_repeat(connections: Iterable[Recording]) -> None:
    """Fail unless ``check_watermarks`` finds the last transaction of the longest connection, were it sent again."""
    longest = max(connections, key=lambda connection: len(connection.commits))
    again = longest.commits[-1]
    # It may have ended within another.
    whole = longest.transactions[: longest.transactions.index(("commit", again)) + 1]
    repeated = replace(longest, transactions=[*whole, ("begin", again), ("commit", again)])
    try:
        check_watermarks([repeated])
    except AssertionError as error:
        assert "begins after" in str(error), error  # noqa: PT017 - what is checked is the check
    else:
        raise AssertionError(f"a second {again} was not found")


def check_resumes(connections: Iterable[Recording]) -> None:
    """Fail unless one replica's connections, in order, each go on from a commit of an earlier one.

    One that begins anew, without ``lastWatermark``, must begin at a later watermark than all before it.
    """
    committed: set[str] = set()
    for connection in connections:
        if connection.last_watermark:
            assert connection.last_watermark in committed, f"{connection.last_watermark} was never committed"
        else:
            for watermark in connection.commits[:1]:
                assert watermark > max(committed, default=""), f"{watermark} begins anew after {max(committed)}"
        committed.update(connection.commits)


def with_last_watermark(head: bytes, watermark: str) -> bytes:
    """Return an HTTP request with ``watermark`` in place of its ``lastWatermark``."""
    method, target, rest = head.split(b" ", 2)
    path, _, query = target.decode().partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    told = urlencode([(name, watermark if name == "lastWatermark" else value) for name, value in given])
    return b" ".join((method, f"{path}?{told}".encode(), rest))


class RecordingProxy:
    """Listens on ``port`` for the server at ``upstream`` (a port of loopback); use as a context manager.

    From the server it passes on ``rate`` bytes a second until ``release``, then all it gets.
    """

    def __init__(self, upstream: int, rate: float | None = None) -> None:
        self.port = free_port()
        self.connections: list[Recording] = []
        self._upstream = upstream
        self._rate = rate
        self._watermark = ""
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recording proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def stream_url(self) -> str:
        """What zero-cache wants as ``ZERO_UPSTREAM_DB``."""
        return f"ws://127.0.0.1:{self.port}/changes/v0/stream"

    def release(self) -> None:
        """Hold the server back no more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def cut(self) -> int:
        """Break every open connection, for both sides; return how many there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def rewrite(self, watermark: str) -> None:
        """Tell the server this ``lastWatermark``, once, in place of the next one; ``Recording`` has what was asked."""
        self._watermark = watermark

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)

    async def _stop(self) -> None:
        if self._server is not None:
            await listen_no_more(self._server)
        await self._cut()

    async def _cut(self) -> int:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next turn
        return len(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        recording = Recording()
        try:
            head = await reader.readuntil(HEAD_END)
            recording.request(head)
            if self._watermark and recording.last_watermark:
                head, self._watermark = with_last_watermark(head, self._watermark), ""
            self.connections.append(recording)
            await self._join(reader, writer, head, recording)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side is gone, or the test cuts it or is over; the other side is told below
        finally:
            writer.transport.abort()

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, recording: Recording
    ) -> None:
        # A small buffer and small segments (loopback's are of 64 KiB, and the kernel gives the sender room for many of
        # them), so that the server feels a slow reader after some 100 KB.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        sock.setblocking(False)
        try:
            await self._loop.sock_connect(sock, ("127.0.0.1", self._upstream))
            from_server, to_server = await asyncio.open_connection(sock=sock, limit=CHUNK)
        except BaseException:
            sock.close()
            raise
        to_server.write(head)
        ways = [
            asyncio.ensure_future(self._pass(reader, to_server)),
            asyncio.ensure_future(self._pass(from_server, writer, recording)),
        ]
        try:
            # Where one side has closed, the other is told at once.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First: what is awaited may be cancelled.
            to_server.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recording: Recording | None = None
    ) -> None:
        while chunk := await reader.read(CHUNK):
            if recording is not None:
                recording.feed(chunk)
                if self._rate is not None and not self._released.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._released.wait(), len(chunk) / self._rate)
            writer.write(chunk)
            await writer.drain()
