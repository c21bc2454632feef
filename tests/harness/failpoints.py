"""Commands that MongoDB refuses, or connections that it drops, on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

APP_NAME = "zerosource"


def fail_next(client: MongoClient[dict[str, Any]], command: str, *, code: int) -> None:
    """Fail our own next ``command``, once."""
    data = {"failCommands": [command], "appName": APP_NAME, "errorCode": code}
    client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})


@contextmanager
def failing(
    client: MongoClient[dict[str, Any]], commands: Sequence[str], mode: object, *, code: int = 0
) -> Iterator[None]:
    """Fail our own ``commands`` within the block; ``mode`` is "alwaysOn" or ``{"times": N}``.

    Without a ``code`` the connection is dropped instead.
    """
    how: dict[str, object] = {"errorCode": code} if code else {"closeConnection": True}
    data = {"failCommands": list(commands), "appName": APP_NAME, **how}
    client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
