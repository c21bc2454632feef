"""Daphne that waits for the socket: a frame is taken from the application only once the reader has room for it.

Plain Daphne hands every frame to Twisted at once, so a snapshot for a slow reader piles up in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from changesource.conf import settings
from changesource.framing import SEND_FRAMES, pieces
from changesource.incoming import bound, left

logger = logging.getLogger(__name__)
LOOKS = 4  # at what is left to be sent, in the time after which a reader counts as gone


@implementer(IPushProducer)
class Drain:
    """Told by a Twisted transport when its buffer is full and when it has room again."""

    def __init__(self) -> None:
        """Start with room."""
        self._room = asyncio.Event()
        self._room.set()

    async def wait(self, left: Callable[[], int], seconds: float) -> bool:
        """Wait until there is room, or the connection is gone; False where nothing was read for ``seconds``.

        ``left`` gives how many bytes wait to be sent: a large frame may take a slow reader longer than that.
        """
        before, since = -1, monotonic()
        while not self._room.is_set():
            try:
                async with asyncio.timeout(seconds / LOOKS):
                    await self._room.wait()
            except TimeoutError:
                now = left()
                if now != before:
                    before, since = now, monotonic()
                elif monotonic() - since >= seconds:
                    return False
        return True

    def pauseProducing(self) -> None:
        """The buffer is full (64 KiB)."""
        self._room.clear()

    def resumeProducing(self) -> None:
        """There is room."""
        self._room.set()

    def stopProducing(self) -> None:
        """The connection is lost; nobody needs to wait any more."""
        self._room.set()


class FlowControlServer(Server):  # type: ignore[misc]  # the package has no types
    """Daphne whose ``websocket.send`` waits while the reader is slow.

    ``failure`` is why it could not listen, empty while all is well.
    """

    failure = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Takes what Daphne takes. The connections have the bounds of the settings."""
        super().__init__(*args, ready_callable=lambda: bound(self, settings()), **options)

    async def handle_reply(self, protocol: WebSocketProtocol, message: dict[str, Any]) -> None:
        """Pass a message on; of WebSocket frames, no more than the transport has room for."""
        if message["type"] == SEND_FRAMES:
            await self._send_frames(protocol, message["frames"])
        else:
            await super().handle_reply(protocol, message)
            if message["type"] == "websocket.send":
                await self._wait(protocol)

    async def _send_frames(self, protocol: WebSocketProtocol, frames: Sequence[bytes]) -> None:
        for data in pieces(frames):
            if protocol not in self.connections or self.connections[protocol].get("disconnected"):
                return
            if protocol.state == protocol.STATE_CONNECTING:
                raise ValueError("Frames were sent over a connection that was not accepted.")
            if protocol.state != protocol.STATE_OPEN:
                return
            protocol.transport.write(data)
            await self._wait(protocol)

    async def _wait(self, protocol: WebSocketProtocol) -> None:
        transport, seconds = protocol.transport, settings().reader_timeout_seconds
        if not await self._drain(protocol).wait(lambda: left(transport), seconds) and transport is not None:
            logger.warning("reader reads nothing any more, closing", extra={"seconds": seconds})
            transport.abortConnection()

    def _drain(self, protocol: object) -> Drain:
        details = self.connections.get(protocol, {})
        drain = details.get("drain")
        if drain is None:
            drain = details["drain"] = Drain()
            transport = getattr(protocol, "transport", None)
            if transport is not None and not details.get("disconnected"):
                # The HTTP side registered itself before the connection became a WebSocket.
                transport.unregisterProducer()
                transport.registerProducer(drain, True)
        found: Drain = drain
        return found

    def protocol_disconnected(self, protocol: object) -> None:
        """Note the end of a connection, and free whoever waits for its buffer."""
        super().protocol_disconnected(protocol)
        if drain := self.connections[protocol].get("drain"):
            drain.stopProducing()

    def kill_all_applications(self) -> Any:
        """End what serves connections; Daphne forgets that some have nothing that does, and would end none."""
        for protocol, details in list(self.connections.items()):
            if "application_instance" not in details:
                del self.connections[protocol]
        return super().kill_all_applications()

    def listen_error(self, failure: object) -> None:
        """Keep why the port could not be had, and stop."""
        self.failure = getattr(failure, "getErrorMessage", lambda: str(failure))()
        self.stop()
