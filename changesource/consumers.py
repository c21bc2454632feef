"""The WebSockets that zero-cache and the admin's live page connect to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from time import monotonic
from typing import Any

import orjson
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils import timezone

from changesource.backoff import Backoff
from changesource.conf import settings
from changesource.exceptions import LimitReached, ReplicasExhausted, RequestRefused, ViewerRefused, ZerosourceError
from changesource.framing import SEND_FRAMES
from changesource.metrics import BYTES, FRAMES
from changesource.occupancy import Release, occupancy
from changesource.protocol.request import StreamRequest, acked_watermark, app_id_of
from changesource.proxies import client_of
from changesource.refusals import refused
from changesource.services import access
from changesource.services.bookkeeping import read
from changesource.services.keys import check_app, keys
from changesource.services.live import LiveFeed
from changesource.services.runtime import runtime
from changesource.services.session import Guard, ReplicaSession
from changesource.store import watermarks
from changesource.stream.excerpt import Wanted

logger = logging.getLogger(__name__)
VIEWER_SECONDS = 60.0
# Of the range for private use: the server's WebSocket library sends none of the reserved codes but 1000.
CLOSE_ENDED = 4000
CLOSE_LOCKED_OUT = 4001
CLOSE_NO_VIEWER = 4003


@cache
def _warn_of_a_server_that_never_waits() -> None:
    logger.warning(
        "no flow control",
        extra={
            "why": "This server takes every frame at once, so what a slow reader has not taken piles up in memory, and"
            " one that reads nothing is not closed. `manage.py serve` has bounds for both."
        },
    )


class TaskConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package has no types
    """A connection that sends by a task of its own, so that no handler ever waits."""

    # The channel layer is read by one receiver a process (see ``services.subscriber``), not by each connection.
    channel_layer_alias = "none"
    task: asyncio.Task[None] | None = None
    release: Release | None = None

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Handle one message, as Channels does, but without its turn in the database's thread before each.

        A database that hangs would hold up handshakes and acks there.
        """
        await getattr(self, get_handler_name(message))(message)

    async def __call__(self, *args: Any) -> None:
        """Serve the connection; however it ends (a server that stops cancels this), the task is ended first."""
        try:
            await super().__call__(*args)
        finally:
            await self.end()

    async def end(self) -> None:
        """End the task and wait until it has freed what it held."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if self.release is not None:
            self.release()

    async def refuse(self, error: ZerosourceError, **fields: object) -> None:
        """Refuse the handshake, with the reason in the log: HTTP 403, under ``serve`` the error's own status."""
        refused("connection refused", error, client=client_of(self.scope), **fields)
        await self.end()
        status = {"status": error.status} if isinstance(error, LimitReached) else {}
        await self.base_send({"type": "websocket.close", **status})

    async def disconnect(self, code: int) -> None:
        """End the task."""
        await self.end()


class ChangeStreamConsumer(TaskConsumer):
    """Streams one replica's changes."""

    # Whether the server lets a sender wait while the reader is slow; ``serve`` says so.
    server_waits = False
    session: ReplicaSession | None = None

    async def connect(self) -> None:
        """Accept a request that can be served; refuse others."""
        chosen, query = settings(), self.scope["query_string"]
        try:
            key = await access.admit(self.scope, chosen)
            request = StreamRequest.parse(query)
            check_app(key, request.app_id)
            guard = None if key is None else partial(keys().guard, key, request.app_id)
            # A key of the environment may be that of many zero-caches.
            holder = f"app {request.app_id}" if key is None else key.hash
            self.release = occupancy.replica(holder, chosen)
            self.session = await runtime().session(request, self.send_frames)
            await self.check_known(request, chosen.max_replicas)
        except ZerosourceError as error:
            await self.refuse(error, app_id=app_id_of(query))
            return
        await self.accept()
        if not self.server_waits:
            _warn_of_a_server_that_never_waits()
        self.task = asyncio.create_task(self.serve(self.session, guard), name=f"replica-{request.app_id}")

    async def check_known(self, request: StreamRequest, most: int) -> None:
        """Raise ``ReplicasExhausted`` where this is a new replica, and there are as many as may be.

        A database that does not answer keeps nobody out.
        """
        if not await read(watermarks.admit, True, request.app_id, request.shard_num, most):
            raise ReplicasExhausted(
                f"The replica is new, and {most} are known, as many as MAX_REPLICAS allows, or a tenth of that of its"
                " app id."
            )

    async def serve(self, session: ReplicaSession, guard: Guard | None) -> None:
        """Run the session; close the socket when it ends by itself."""
        try:
            await session.run(guard)
        except asyncio.CancelledError:
            raise
        except BaseException:
            logger.exception("connection failed")
            # A zero-cache whose connection ends is back at once, and would meet the same.
            await Backoff("connection", first=1.0).wait()
            raise
        finally:
            await self.close(CLOSE_LOCKED_OUT if session.locked_out else CLOSE_ENDED)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send frames of UTF-8; waits while the reader is slow, where the server tells (``serve`` does)."""
        if self.server_waits:
            await self.base_send({"type": SEND_FRAMES, "frames": frames})
        else:
            for frame in frames:
                await self.base_send({"type": "websocket.send", "text": frame.decode()})
        FRAMES.inc(len(frames))
        BYTES.inc(sum(map(len, frames)))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take an ack; anything else is ignored."""
        if self.session is not None and text_data and (watermark := acked_watermark(text_data)):
            self.session.ack(watermark)


class LiveConsumer(TaskConsumer):
    """Shows changes to a page of the admin, see ``services.live``.

    The page asks for each message by one of its own, with the filter: ``{"table": "", "key": "", "paused": false}``.
    """

    feed: LiveFeed

    async def connect(self) -> None:
        """Accept who may look; refuse others."""
        chosen = settings()
        try:
            access.check_origin(
                self.scope["headers"],
                chosen.allowed_hosts,
                chosen.csrf_trusted_origins,
                secure=chosen.secure_cookies,  # the session, by which pages are known, is for https alone
            )
            # First: else any number of strangers would wait for the database, and whoever else asks it with them.
            self.release = occupancy.live_page(chosen)
            if not await self.is_viewer(otherwise=False):
                raise ViewerRefused()
        except ZerosourceError as error:
            await self.refuse(error)
            return
        noted = await read(watermarks.watcher_noted_at, None)
        age = timezone.now() - noted if noted else timedelta.max
        self.feed = LiveFeed(chosen.keepalive_seconds, silent_for=age.total_seconds())
        self.asked = asyncio.Event()
        await self.accept()
        self.task = asyncio.create_task(self.serve(), name="live-page")

    async def is_viewer(self, *, otherwise: bool) -> bool:
        """Whether the session may look; ``otherwise`` where the database does not say."""
        return await read(access.is_viewer, otherwise, self.scope["cookies"])

    async def serve(self) -> None:
        """Send messages while somebody asks who may; close the socket at the end."""
        code = CLOSE_ENDED
        try:
            with self.feed.attached(runtime().subscriber):
                await self.show()
            code = CLOSE_NO_VIEWER
        except Exception:
            logger.exception("live page failed")
            raise
        finally:
            await self.close(code)

    async def show(self) -> None:
        """Send a message for each that is asked for; end where the session may look no more, as seen each minute."""
        checked = monotonic()
        while True:
            # A page that asks for nothing takes a place all the same.
            with suppress(TimeoutError):
                async with asyncio.timeout(checked + VIEWER_SECONDS - monotonic()):
                    await self.asked.wait()
            if monotonic() - checked >= VIEWER_SECONDS:
                checked = monotonic()
                if not await self.is_viewer(otherwise=True):
                    return
            if self.asked.is_set():
                self.asked.clear()
                await self.send((await self.feed.message()).decode())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take what the page asks for; anything else is ignored."""
        try:
            asked = orjson.loads(text_data or "")
            table, key, paused = asked["table"], asked["key"], asked["paused"]
        except (ValueError, TypeError, KeyError):
            return
        if isinstance(table, str) and isinstance(key, str) and isinstance(paused, bool):
            self.feed.wanted, self.feed.paused = Wanted(table, key), paused
            self.asked.set()


class UnknownPathConsumer(TaskConsumer):
    """Refuses what asks for another path than the change stream's."""

    async def connect(self) -> None:
        """Refuse (HTTP 403)."""
        await self.refuse(RequestRefused("No stream is at this path; it is /changes/v0/stream."))
