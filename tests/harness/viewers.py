"""Who looks at the live page: sessions in a deployment's database, and the page's connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.harness.deployment import Deployment, Server

# Name: (staff, permissions).
VIEWERS: dict[str, tuple[bool, list[str]]] = {
    "viewer": (True, ["view_tablemapping", "view_watermark"]),
    "half": (True, ["view_watermark"]),
    "staff": (True, []),
    "guest": (False, ["view_tablemapping", "view_watermark"]),
}
SESSIONS = """
import json, sys
from django.contrib.auth.models import Permission, User
from django.test import Client
keys = {}
for name, (staff, permissions) in json.loads(%r).items():
    user = User.objects.create_user(name, is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    keys[name] = client.cookies["sessionid"].value
print(json.dumps(keys))
"""


def sessions(place: Deployment) -> dict[str, str]:
    """Make the users of ``VIEWERS``, log each in, and return the keys of their sessions."""
    keys: dict[str, str] = json.loads(place.manage("shell", "--no-imports", "-c", SESSIONS % json.dumps(VIEWERS)))
    return keys


class Viewer:
    """An open page: ``lines`` are those that it was sent, ``told`` is the last message."""

    def __init__(self, socket: ClientConnection) -> None:
        self.lines: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        self._socket = socket

    @property
    def changes(self) -> list[dict[str, Any]]:
        """The changes among the lines."""
        return [line["change"] for line in self.lines if "change" in line]

    async def ask(self, table: str = "", key: str = "", *, paused: bool = False) -> None:
        """Ask for a message."""
        await self._socket.send(json.dumps({"table": table, "key": key, "paused": paused}))

    async def read(self) -> None:
        """Take a message."""
        self.told = json.loads(await self._socket.recv())
        self.lines += self.told["lines"]

    async def next(self, table: str = "", key: str = "") -> None:
        """Ask for a message and take it."""
        await self.ask(table, key)
        await self.read()


@asynccontextmanager
async def looking(server: Server, session: str = "", origin: str | None = None) -> AsyncIterator[Viewer]:
    """Open the page's connection; ``origin`` is the server's own unless given, none where empty."""
    headers = {"Cookie": f"sessionid={session}"} if session else {}
    if origin is None:
        origin = server.url
    if origin:
        headers["Origin"] = origin
    url = f"ws://127.0.0.1:{server.port}/admin/live/changes"
    async with connect(url, additional_headers=headers, compression=None, close_timeout=1) as socket:
        yield Viewer(socket)
