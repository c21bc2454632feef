"""``/healthz`` and ``/readyz``, answered before Django: probes name any host, and must not wait for threads."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from changesource.exceptions import ZerosourceError
from changesource.services.runtime import runtime

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[..., Awaitable[None]]


class HealthPages:
    """An ASGI application that answers the two pages, and leaves all else to another.

    ``/healthz``: this process is alive; it asks nothing of MongoDB or the database, so an outage there restarts nobody.
    ``/readyz``: mappings are published, and MongoDB answers and can be watched; else 503, with the codes of what is
    wrong.
    """

    def __init__(self, app: App) -> None:
        """``app`` answers all other requests."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        if scope["path"] == "/healthz":
            await _answer(send, 200, {"status": "ok"})
        elif scope["path"] == "/readyz":
            problem = await _problem()
            if problem is None:
                await _answer(send, 200, {"status": "ready"})
            else:
                # The code alone: what failed may name hosts.
                await _answer(send, 503, {"status": "unready", "code": problem.code})
        else:
            await self._app(scope, receive, send)


async def _problem() -> ZerosourceError | None:
    try:
        await runtime().check_ready()
    except ZerosourceError as error:
        return error
    return None


async def _answer(send: Send, status: int, content: dict[str, str]) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode() + b"\n"})
