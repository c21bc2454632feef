"""The WebSocket that zero-cache connects to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer

from changesource.backoff import Backoff
from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.framing import SEND_FRAMES
from changesource.protocol.request import StreamRequest, acked_watermark
from changesource.services import access
from changesource.services.runtime import runtime
from changesource.services.session import ReplicaSession

logger = logging.getLogger(__name__)
# Of the range for private use: the server's WebSocket library sends none of the reserved codes but 1000.
CLOSE_ENDED = 4000


@cache
def _warn_of_a_server_that_never_waits() -> None:
    logger.warning(
        "no flow control",
        extra={
            "why": "This server takes every frame at once, so what a slow reader has not taken piles up in memory, and"
            " one that reads nothing is not closed. `manage.py serve` has bounds for both."
        },
    )


class ChangeStreamConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package has no types
    """Streams one replica's changes. All sending is done by a task of its own, so that no handler ever waits."""

    # The channel layer is read by one receiver a process (see ``services.subscriber``), not by each connection.
    channel_layer_alias = "none"

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Handle one message, as Channels does, but without its turn in the database's thread before each.

        A database that hangs would hold up handshakes and acks there.
        """
        await getattr(self, get_handler_name(message))(message)

    # Whether the server lets a sender wait while the reader is slow; ``serve`` says so.
    server_waits = False
    session: ReplicaSession | None = None
    task: asyncio.Task[None] | None = None

    async def __call__(self, *args: Any) -> None:
        """Serve the connection; however it ends (a server that stops cancels this), the session is ended first."""
        try:
            await super().__call__(*args)
        finally:
            await self.end()

    async def end(self) -> None:
        """End the session and wait until it has freed what it held."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def connect(self) -> None:
        """Accept a request that can be served; refuse (HTTP 403) with the reason in the log."""
        try:
            await access.admit(self.scope, settings())
            request = StreamRequest.parse(self.scope["query_string"])
            self.session = await runtime().session(request, self.send_frames)
        except ZerosourceError as error:
            logger.warning("connection refused", extra={"code": error.code, "why": str(error)})
            await self.close()
            return
        await self.accept()
        if not self.server_waits:
            _warn_of_a_server_that_never_waits()
        self.task = asyncio.create_task(self.serve(self.session), name=f"replica-{request.app_id}")

    async def serve(self, session: ReplicaSession) -> None:
        """Run the session; close the socket when it ends by itself."""
        try:
            await session.run()
        except asyncio.CancelledError:
            raise
        except BaseException:
            logger.exception("connection failed")
            # A zero-cache whose connection ends is back at once, and would meet the same.
            await Backoff("connection", first=1.0).wait()
            raise
        finally:
            await self.close(CLOSE_ENDED)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send frames of UTF-8; waits while the reader is slow, where the server tells (``serve`` does)."""
        if self.server_waits:
            await self.base_send({"type": SEND_FRAMES, "frames": frames})
            return
        for frame in frames:
            await self.base_send({"type": "websocket.send", "text": frame.decode()})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take an ack; anything else is ignored."""
        if self.session is not None and text_data and (watermark := acked_watermark(text_data)):
            self.session.ack(watermark)

    async def disconnect(self, code: int) -> None:
        """End the session."""
        await self.end()


class UnknownPathConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package has no types
    """Refuses what asks for another path than the change stream's."""

    channel_layer_alias = "none"

    async def connect(self) -> None:
        """Refuse (HTTP 403)."""
        logger.warning("connection refused", extra={"why": "The path is not /changes/v0/stream."})
        await self.close()
