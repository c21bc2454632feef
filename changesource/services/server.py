"""What ``serve`` runs: Daphne with flow control, and the watcher beside it, in one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from changesource.conf import Settings
from changesource.consumers import ChangeStreamConsumer
from changesource.flow_control import FlowControlServer
from changesource.incoming import check_descriptors
from changesource.services.runtime import runtime

logger = logging.getLogger(__name__)
NEVER = 10**9


class ServingFailed(Exception):
    """The server could not serve, or had to stop."""


def serve(chosen: Settings, host: str, *, watch: bool, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``ServingFailed`` where the port is taken or the watcher failed."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it; daphne.server chose which

    from zerosource_project.asgi import application  # noqa: PLC0415 - needs Django to be set up

    ChangeStreamConsumer.server_waits = True
    check_descriptors(chosen)
    server = FlowControlServer(
        application,
        endpoints=[f"tcp:port={chosen.port}:interface={host}"],
        websocket_timeout=-1,  # a replica stays for as long as it likes
        # No pings of ours: one waits behind the data that a slow reader has not taken, and so would its answer.
        # zero-cache pings, and TCP keepalive finds a peer that is gone.
        ping_interval=NEVER,
        websocket_handshake_timeout=chosen.request_seconds,
        websocket_max_message_size=chosen.max_frame_bytes,
        websocket_max_frame_size=chosen.max_frame_bytes,
        server_name="zerosource",
        verbosity=1,
    )
    background = _Background(server, watch=watch, ready=ready)
    reactor.callWhenRunning(background.start)
    reactor.addSystemEventTrigger("before", "shutdown", background.stop)
    server.run()
    if server.failure:
        raise ServingFailed(server.failure.rstrip("."))
    if background.failed:
        raise ServingFailed("the watcher failed; the log says why")


class _Background:
    """The watcher's task, from the reactor's start to its end."""

    def __init__(self, server: FlowControlServer, *, watch: bool, ready: Callable[[], None]) -> None:
        self._server = server
        self._watch = watch
        self._ready = ready
        self._task: asyncio.Task[None] | None = None
        self.failed = False

    def start(self) -> None:
        if self._server.failure:
            return
        self._ready()
        if self._watch:
            self._task = asyncio.get_event_loop().create_task(runtime_watch(), name="watcher-of-serve")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            logger.critical("watcher failed, stopping", exc_info=error)
            self.failed = True
            self._server.stop()

    def stop(self) -> object:
        """End the watcher before the reactor ends; Twisted waits for what this returns."""
        from twisted.internet import defer  # noqa: PLC0415 - see serve

        return defer.Deferred.fromFuture(asyncio.ensure_future(self._stop()))

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def runtime_watch() -> None:
    """Watch in this process."""
    await runtime().watch()
