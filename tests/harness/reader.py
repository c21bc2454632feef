"""Reads a change stream as zero-cache does, into a model replica: same query, same acks, same reconnects."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect

from tests.harness.model import ModelReplica

TIMEOUT = 120.0


class Reader:
    """One replica. ``sync`` first, then ``follow`` as often as wished; each is a connection of its own."""

    def __init__(
        self,
        stream_url: str,
        app_id: str = "reader",
        publications: tuple[str, ...] = (),
        model: ModelReplica | None = None,
        receive_buffer: int = 0,
    ) -> None:
        """``stream_url`` is the server's WebSocket address; without a ``model`` a new one is made.

        ``receive_buffer`` bounds what the kernel takes for a reader that pauses, in bytes; 0 leaves it to the kernel.
        """
        self.stream_url = stream_url
        self.app_id = app_id
        self.publications = publications
        self.model = ModelReplica() if model is None else model
        self._receive_buffer = receive_buffer
        self.replica_version = ""

    @property
    def last_watermark(self) -> str:
        """The last commit; empty before the first."""
        return self.model.commits[-1] if self.model.commits else ""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[ClientConnection]:
        """Connect with the parameters that zero-cache would send now."""
        query = [("appID", self.app_id), ("shardNum", "0")]
        query += [("publications", name) for name in self.publications]
        if self.last_watermark:
            query += [("lastWatermark", self.last_watermark), ("replicaVersion", self.replica_version)]
        separator = "&" if "?" in self.stream_url else "?"
        url = f"{self.stream_url}{separator}{urlencode(query)}"
        # Small buffers, so that a reader that pauses is felt by the server soon; who leaves does not read to the end.
        options: dict[str, Any] = {"max_queue": 4, "compression": None, "ping_interval": None, "close_timeout": 1}
        if self._receive_buffer:
            options["sock"] = await self._small_socket()
        try:
            async with connect(url, max_size=None, open_timeout=TIMEOUT, **options) as connected:
                yield connected
        finally:
            self.model.disconnect()

    async def _small_socket(self) -> socket.socket:
        """Return a connected socket; its buffer can be made small only before it connects."""
        address = urlsplit(self.stream_url)
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        await asyncio.get_running_loop().sock_connect(made, (address.hostname, address.port))
        return made

    async def frames(self, socket: ClientConnection) -> AsyncIterator[str]:
        """Give each frame after it was applied to the model; commits are acked."""
        while True:
            async with asyncio.timeout(TIMEOUT):
                frame = await socket.recv()
            assert isinstance(frame, str)
            self.model.apply(frame)
            if frame.startswith('["commit"'):
                await socket.send(json.dumps(["status", {"tag": "commit"}, {"watermark": self.last_watermark}]))
            yield frame

    async def sync(self, pause: Callable[[int], object] | None = None) -> None:
        """Take the initial sync. ``pause`` is called with the number of each frame; an awaitable is awaited."""
        async with self.connection() as socket:
            number = 0
            async for frame in self.frames(socket):
                number += 1
                if pause is not None and asyncio.iscoroutine(waiting := pause(number)):
                    await waiting
                if frame.startswith('["commit"'):
                    break
        self.replica_version = self.last_watermark

    async def follow(self, until: Callable[[], bool]) -> None:
        """Stream on one connection until ``until`` holds after a commit."""
        if until():
            return
        async with self.connection() as socket:
            async for frame in self.frames(socket):
                if frame.startswith('["commit"') and until():
                    return


@contextmanager
def following(reader: Reader, *, synced: bool = False) -> Iterator[None]:
    """Have a replica sync, unless it has ``synced``, and follow, in a thread of its own.

    What ends it early is raised at the end.
    """
    loop = asyncio.new_event_loop()

    async def follow() -> None:
        if not synced:
            await reader.sync()
        await reader.follow(lambda: False)

    task = loop.create_task(follow())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, name=f"reader {reader.app_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()
    if not task.cancelled():
        task.result()
