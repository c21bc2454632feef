"""``/healthz`` and ``/readyz``, answered before Django: probes name any host, and must not wait for threads."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from changesource.conf import settings
from changesource.exceptions import ConnectionsExhausted, ZerosourceError
from changesource.occupancy import occupancy
from changesource.refusals import refused
from changesource.services.runtime import runtime
from changesource.services.turns import Turns

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[..., Awaitable[None]]


class HealthPages:
    """An ASGI application that answers the two pages, and leaves all else to another: a few requests at once.

    ``/healthz``: this process is alive; it asks nothing of MongoDB or the database, so an outage there restarts nobody.
    ``/readyz``: mappings are published, and MongoDB answers and can be watched; else 503, with the codes of what is
    wrong.
    """

    def __init__(self, app: App) -> None:
        """``app`` answers all other requests, as many at once as MAX_REQUESTS says."""
        self._app = app
        self._turns = Turns(settings().max_requests)

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
            await self._in_turn(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the request answered when it is its turn, which ends when the answer begins: its reader may be slow.

        Too many who wait are refused: they would take all places, and keep replicas out.
        """
        if self._turns.waiting >= occupancy.most_pages(settings()):
            client = (scope.get("client") or [""])[0]
            error = ConnectionsExhausted(
                "Half of the places that replicas leave are taken by pages that are waited for."
            )
            refused("connection refused", error, client=client)
            await _answer(send, 503, {"code": error.code})
            return
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._turns.one())

            async def sends(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    await turn.aclose()
                await send(message)

            await self._app(scope, receive, sends)


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
