"""The ``Runtime`` of a process, on the test's MongoDB and the test's Django database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from channels.db import database_sync_to_async
from channels.layers import channel_layers

from changesource.conf import settings
from changesource.mapping.formats import read_specification
from changesource.services.configuration import import_specification
from changesource.services.runtime import Runtime


async def published(mappings: object) -> None:
    """Import these mappings and publish them."""
    await database_sync_to_async(import_specification)(read_specification(mappings), "test")


@asynccontextmanager
async def running(uri: str, database: str, keepalive: float = 1.0) -> AsyncIterator[Runtime]:
    """A runtime with a channel layer in memory of its own."""
    channel_layers.backends.clear()
    made = Runtime(replace(settings(), mongodb_uri=uri, mongodb_database=database, keepalive_seconds=keepalive))
    try:
        yield made
    finally:
        await made.close()
        channel_layers.backends.clear()
