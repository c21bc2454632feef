"""Connections of a model replica to ``ReplicaSession``s, as zero-cache makes them, without a server between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from channels.db import database_sync_to_async

from changesource.mapping.compiled import CompiledMapping
from changesource.protocol.request import StreamRequest
from changesource.services.downstream import Send
from changesource.services.limits import Limits
from changesource.services.session import ReplicaSession
from changesource.services.subscriber import Subscriber
from changesource.services.turns import Turns
from changesource.sources.base import ChangeSource
from changesource.stream.grouping import Bounds
from tests.harness.model import ModelReplica
from tests.harness.waiting import DEADLINE, until

LIMITS = Limits(Bounds(rows=20, age=0.02), keepalive=30.0, turns=Turns(1000), catch_up=300.0)


def framewise(send: Callable[[str], Awaitable[None]]) -> Send:
    """Return what sends frames by ``send``, which takes one at a time."""

    async def send_frames(frames: Sequence[bytes]) -> None:
        for frame in frames:
            await send(frame.decode())

    return send_frames


class Replica:
    """One zero-cache: its replica, and what it tells when it connects."""

    def __init__(
        self,
        source: ChangeSource,
        subscriber: Subscriber,
        mapping: CompiledMapping,
        *,
        publications: tuple[str, ...] = (),
        app_id: str = "app",
        limits: Limits = LIMITS,
    ) -> None:
        self.source = source
        self.subscriber = subscriber
        self.mapping = mapping
        self.publications = publications
        self.app_id = app_id
        self.limits = limits
        self.model = ModelReplica()
        self.version = ""
        self.frames: list[str] = []
        self.on_commit: Callable[[str], None] = lambda watermark: None
        self.on_frame: Callable[[str], Awaitable[None]] | None = None
        # Who serves it, where it is not a session made here.
        self.server: Callable[[StreamRequest, Send], Awaitable[ReplicaSession]] | None = None

    def request(self) -> StreamRequest:
        """Return what the next connection asks for."""
        return StreamRequest(self.app_id, 0, self.publications, self.model.last_watermark, self.version)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Connect for as long as the context lasts; what was not committed by then never happened."""
        self.frames.clear()
        connection = Connection(self)
        await connection.open()
        try:
            yield connection
        finally:
            connection.task.cancel()
            await asyncio.gather(connection.task, return_exceptions=True)
            # A write that was cancelled goes on in its thread; the next one there comes after it.
            await database_sync_to_async(int)()
            self.model.disconnect()
        connection.check()

    async def sync(self) -> None:
        """Take the initial sync on a connection of its own."""
        async with self.connection() as connection:
            await connection.until(lambda: bool(self.model.commits))
        self.version = self.model.commits[0]


class Connection:
    """One connection. ``session`` serves it in ``task``, once it is open."""

    session: ReplicaSession
    task: asyncio.Task[None]

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.paused = False
        # Whether it acknowledges commits.
        self.stores = True

    async def open(self) -> None:
        """Have a session made, and start it."""
        replica, send = self.replica, framewise(self._send)
        if replica.server is None:
            self.session = ReplicaSession(
                replica.request(),
                replica.mapping,
                replica.source,
                replica.subscriber,
                replica.limits,
                send,
            )
        else:
            self.session = await replica.server(replica.request(), send)
        self.task = asyncio.create_task(self.session.run())

    async def _send(self, frame: str) -> None:
        await asyncio.sleep(0)
        replica = self.replica
        if replica.on_frame is not None:
            await replica.on_frame(frame)
        replica.frames.append(frame)
        watermark = replica.model.apply(frame)
        if watermark is not None:
            if self.stores:
                self.session.ack(watermark)
            replica.on_commit(watermark)
        # As with a socket, whose buffer takes a frame and then has no room.
        while self.paused:
            await asyncio.sleep(0.001)

    async def until(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Wait for a condition, or for the session's end, whose error is raised."""
        await until(lambda: self.task.done() or condition(), seconds)
        self.check()
        assert condition(), "the session ended before"

    def check(self) -> None:
        """Raise what ended the session, if something did."""
        if self.task.done() and not self.task.cancelled():
            self.task.result()
