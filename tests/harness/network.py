"""The network between processes, which may fail: TCP proxies that cut, hold and slow what passes through them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

from devtools.processes import PROC, free_port

CHUNK = 64 * 1024
DELAY_SECONDS = 0.1
# Of the loop, within which a connection that was accepted gets its task.
TURNS = 5
# Closed with this, a connection is reset: the other side is told at once, and that it was no ordinary end.
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What a link does to its connections."""

    PASS = "pass"
    DROP = "drop"  # resets all, and refuses new ones
    DELAY = "delay"  # holds each chunk for a while
    HALF_OPEN = "half-open"  # loses all that is sent, and closes nothing
    CUT = "cut in mid-frame"  # passes a part of the next chunk of each, and resets it


async def listen_no_more(server: asyncio.Server) -> None:
    """Close a server, but first let in what was just accepted: between the two, asyncio would lose it, still open."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()


class Connection:
    """One connection through a link."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.sides = [client]
        self.lost = False
        self.ended = asyncio.Event()

    def reset(self) -> None:
        """Break it, for both sides."""
        self.ended.set()
        for side in self.sides:
            sock: socket.socket | None = side.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            side.transport.abort()


class Link:
    """Listens on ``port`` for one of ``upstreams`` (ports of loopback): for the next one that accepts.

    With ``listens`` off it only takes what a ``Fork`` gives it. ``affected`` counts the connections, and attempts at
    one, that a fault has met.
    """

    def __init__(self, name: str, upstreams: Sequence[int], listens: bool = True) -> None:
        self.name = name
        self.port = free_port() if listens else 0
        self.mode = Mode.PASS
        self.affected = 0
        self._upstreams = list(upstreams)
        self._met: set[Connection] = set()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connected(self) -> bool:
        """Whether any connection is open through it."""
        return bool(self._connections)

    async def start(self) -> None:
        """Listen."""
        if self.port:
            self._server = await asyncio.start_server(self.accept, "127.0.0.1", self.port, limit=CHUNK)

    async def stop(self) -> None:
        """Listen no more, and break every connection."""
        if self._server is not None:
            await listen_no_more(self._server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next turn

    async def strike(self, mode: Mode) -> None:
        """Do this to all connections from now on."""
        self.mode, self._met = mode, set()
        if mode is Mode.DROP:
            if self._server is not None:
                await listen_no_more(self._server)
            for connection in list(self._connections):
                self._meet(connection)
                connection.reset()

    async def heal(self) -> None:
        """Pass everything on again; what was lost is lost, so connections that it happened to are broken."""
        was, self.mode = self.mode, Mode.PASS
        for connection in list(self._connections):
            if connection.lost:
                connection.reset()
        if was is Mode.DROP:
            await self.start()

    def _meet(self, connection: Connection) -> None:
        if connection not in self._met:
            self._met.add(connection)
            self.affected += 1

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until one side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = Connection(writer)
        self._connections.add(connection)
        try:
            if self.mode is Mode.DROP:
                self._meet(connection)  # where another listens
            elif self.mode is Mode.HALF_OPEN:
                self._meet(connection)
                connection.lost = True
                await connection.ended.wait()
            else:
                await self._join(reader, connection)
        except (OSError, asyncio.CancelledError):
            pass  # one side is gone, or all is over; the other side is told below
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def _join(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        answers, upstream = await self._connect()
        connection.sides.append(upstream)
        (client, _) = connection.sides
        ways = [
            asyncio.ensure_future(self._pass(reader, upstream, connection)),
            asyncio.ensure_future(self._pass(answers, client, connection)),
        ]
        try:
            # Where one side has closed, the other is told at once.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.reset()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in self._upstreams:
            self._upstreams.append(self._upstreams.pop(0))
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._upstreams[0], limit=CHUNK)
        raise ConnectionRefusedError(self.name)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        while chunk := await _read(reader):
            if self.mode is not Mode.PASS:
                self._meet(connection)
            if self.mode is Mode.HALF_OPEN or connection.lost:
                connection.lost = True
                continue
            if self.mode is Mode.CUT:
                writer.write(chunk[: len(chunk) // 2])
                return
            if self.mode is Mode.DELAY:
                await asyncio.sleep(DELAY_SECONDS)
            writer.write(chunk)
            await writer.drain()
        if self.mode is Mode.HALF_OPEN or connection.lost:
            # Nor does the other side hear of an end.
            connection.lost = True
            await connection.ended.wait()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what comes next; nothing at the end, whatever it was."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


class Fork:
    """Listens on ``port`` for several links: ``choose`` says which, by the port that a connection comes from."""

    def __init__(self, choose: Callable[[int], Link]) -> None:
        self.port = free_port()
        self._choose = choose
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            await listen_no_more(self._server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._choose(writer.get_extra_info("peername")[1]).accept(reader, writer)


class Network:
    """Links, in a thread of their own; use as a context manager."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._forks: list[Fork] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def link(self, name: str, *upstreams: int, listens: bool = True) -> Link:
        """Add a link to one of these ports of loopback, and return it."""
        link = self.links[name] = Link(name, upstreams, listens)
        self._do(link.start())
        return link

    def fork(self, choose: Callable[[int], Link]) -> Fork:
        """Add a ``Fork`` for links that do not listen, and return it."""
        fork = Fork(choose)
        self._forks.append(fork)
        self._do(fork.start())
        return fork

    def strike(self, link: Link, mode: Mode) -> None:
        """See ``Link.strike``."""
        self._do(link.strike(mode))

    def heal(self, link: Link) -> None:
        """See ``Link.heal``."""
        self._do(link.heal())

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for one in (*self._forks, *self.links.values()):
            self._do(one.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, act: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result(10)


def owns_connection(pid: int, port: int) -> bool:
    """Whether a process has a TCP connection of IPv4 that comes from this port."""
    inodes = {
        fields[9]
        for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]
        if (fields := line.split())[1].endswith(f":{port:04X}")
    }
    with suppress(OSError):  # it may end just now
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]") in inodes:
                    return True
    return False
