"""Members of a replica set that the embedded MongoDB has not: proxies on its wire protocol, which change what it says.

A ``Member`` passes everything on, but may change the answer to ``hello`` (of which drivers take what a server is) and
the commands that it is sent.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bson import CodecOptions, decode, encode
from bson.binary import UuidRepresentation
from pymongo.uri_parser import parse_uri

from devtools.processes import free_port

Document = dict[str, Any]
HEADER = struct.Struct("<iiii")
OP_REPLY, OP_MSG = 1, 2013
# Where the (first) document begins: after the header and an OP_MSG's flags and kind, or an OP_REPLY's four fields.
DOCUMENT_AT = {OP_MSG: 16 + 5, OP_REPLY: 16 + 20}
OPTIONS: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


def _unseen(document: Document) -> None:
    pass


def _unchanged(document: Document) -> Document:
    return document


class Member:
    """Listens on ``port`` for the MongoDB at ``upstream`` (a port of loopback).

    ``hello`` is given each description that the server sends of itself, ``command`` each command that it is sent; what
    they return goes on in its place.
    """

    def __init__(
        self,
        upstream: int,
        hello: Callable[[Document], Document] = _unchanged,
        command: Callable[[Document], Document] = _unchanged,
        instead: tuple[bytes, bytes] = (b"", b""),
        seen: Callable[[Document], None] = _unseen,
        reply: Callable[[Document], Document] | None = None,
    ) -> None:
        """``instead`` is (bytes, others of the same number): what the server sends of the first goes on as the second.

        So it sends what it would not store. ``seen`` is told each command that the server is sent;
        what ``reply`` makes of an answer with a cursor goes on in its place.
        """
        assert len(instead[0]) == len(instead[1])
        self.instead = instead
        self.seen = seen
        self.reply = reply
        self.port = free_port()
        self.hello = hello
        self.command = command
        self._upstream = upstream

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until one side closes it."""
        ways: list[asyncio.Future[None]] = []
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
            ways = [
                asyncio.ensure_future(_pass(reader, upstream, self._is_read, self.command)),
                asyncio.ensure_future(_pass(answers, writer, self._is_changed, self._answer, self.instead)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the server is not there: neither is this
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for side in (writer, upstream):
                if side is not None:
                    side.transport.abort()

    def _is_changed(self, answer: Document) -> bool:
        return "maxWireVersion" in answer or (self.reply is not None and "cursor" in answer)

    def _answer(self, answer: Document) -> Document:
        return self.hello(answer) if self.reply is None or "maxWireVersion" in answer else self.reply(answer)

    def _is_read(self, command: Document) -> bool:
        self.seen(command)
        return "find" in command


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    wanted: Callable[[Document], bool],
    change: Callable[[Document], Document],
    instead: tuple[bytes, bytes] = (b"", b""),
) -> None:
    """Pass on messages, and those whose document is wanted with what ``change`` makes of it."""
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            header = await reader.readexactly(HEADER.size)
            length, request, response, code = HEADER.unpack(header)
            body = header + await reader.readexactly(length - HEADER.size)
            start = DOCUMENT_AT.get(code)
            if start is not None and length < 1_000_000 and start + 4 <= length:
                (size,) = struct.unpack_from("<i", body, start)
                document = decode(body[start : start + size], OPTIONS)
                if document and wanted(document):
                    changed = encode(change(document), codec_options=OPTIONS)
                    rest = body[HEADER.size : start] + changed + body[start + size :]
                    body = HEADER.pack(HEADER.size + len(rest), request, response, code) + rest
            writer.write(body.replace(*instead) if instead[0] else body)
            await writer.drain()


@contextmanager
def running(*members: Member) -> Iterator[None]:
    """Run these members in a thread of their own."""
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    def accepting(member: Member) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = loop.create_task(member.accept(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return accept

    async def start() -> list[asyncio.Server]:
        return [await asyncio.start_server(accepting(member), "127.0.0.1", member.port) for member in members]

    async def stop(servers: list[asyncio.Server]) -> None:
        for server in servers:
            server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next turn

    thread = threading.Thread(target=loop.run_forever, name="members", daemon=True)
    thread.start()
    servers = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stop(servers), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class LaggingPair:
    """One MongoDB shown as a replica set of two, of which the secondary lags behind.

    The secondary answers a ``find`` that does not wait for a time by what it has: the database ``stale``. One with
    read concern majority that names a time (``afterClusterTime``) waits until it has that, and gets what there is.
    ``waited`` holds those times; ``stale_reads`` counts the others.
    """

    def __init__(self, uri: str, database: str, stale: str) -> None:
        host, port = parse_uri(uri)["nodelist"][0]
        assert host == "127.0.0.1", "the proxies stand before a server of this machine"
        self._database, self._stale = database, stale
        self.primary = Member(port, lambda hello: self._described(hello, self.primary, primary=True))
        self.secondary = Member(port, lambda hello: self._described(hello, self.secondary, primary=False), self._read)
        self.waited: list[Any] = []
        self.stale_reads = 0

    @property
    def uri(self) -> str:
        """Both members, reading from the secondary."""
        return (
            f"mongodb://127.0.0.1:{self.primary.port},127.0.0.1:{self.secondary.port}/"
            "?readPreference=secondary&readConcernLevel=local&w=1&retryWrites=false&heartbeatFrequencyMS=500"
        )

    def _described(self, hello: Document, member: Member, *, primary: bool) -> Document:
        names = [f"127.0.0.1:{member.port}" for member in (self.primary, self.secondary)]
        changed = {**hello, "hosts": names, "primary": names[0], "me": f"127.0.0.1:{member.port}"}
        changed |= {"secondary": not primary}
        # An answer to the older command says ``ismaster``.
        changed |= {name: primary for name in ("isWritablePrimary", "ismaster") if name in hello}
        return changed

    def _read(self, command: Document) -> Document:
        if command["$db"] != self._database:
            return command
        concern = command.get("readConcern", {})
        if concern.get("level") == "majority" and "afterClusterTime" in concern:
            self.waited.append(concern["afterClusterTime"])
            return command
        self.stale_reads += 1
        return {**command, "$db": self._stale}
