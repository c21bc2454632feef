"""A reader that is slow is waited for, and one that is gone is not. What it costs: see ``test_memory``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pymongo.database import Database
from websockets.asyncio.client import connect

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS


async def test_a_reader_that_stops_is_disconnected_and_a_slow_one_is_not(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """What is large takes a slow reader longer than the time after which one that reads nothing is closed."""
    mongo["items"].insert_many([{"_id": f"item-{n}", "name": "x" * 4_000_000} for n in range(8)])
    place = deployment(READER_TIMEOUT_SECONDS="1", LOG_LEVEL="INFO")
    place.configure(mappings=MAPPINGS)
    server = place.server()
    url = f"{server.stream_url}?shardNum=0&appID="
    options: Any = {"max_size": None, "max_queue": 1, "compression": None, "ping_interval": None, "close_timeout": 1}

    async def read_slowly() -> int:
        """Read in small pieces, 3 MB/s, as a plain socket does; return how many bytes came within five seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**16)
        key = "GET /changes/v0/stream?shardNum=0&appID=slow HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        key += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        writer.write(key.encode())
        began, received = time.monotonic(), 0
        while time.monotonic() - began < 5 and (part := await reader.read(2**16)):
            received += len(part)
            # The pace of the reader, not a wait for something.
            await asyncio.sleep(0.02)
        writer.close()
        return received

    async with connect(f"{url}gone", **options) as gone:
        assert str(await gone.recv()).startswith('["begin"')
        slow = asyncio.create_task(read_slowly())
        async with asyncio.timeout(30):
            while "reader reads nothing any more" not in server.log_text():
                await asyncio.sleep(0.1)
        assert await slow > 7_500_000
    assert server.log_text().count("reader reads nothing any more") == 1
