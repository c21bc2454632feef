"""Frames wait for the reader: a slow one costs the server bounded memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from pymongo.database import Database
from websockets.asyncio.client import connect

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS

ROWS = 200_000
BYTES_A_SECOND = 5_000_000
MIB = 1024 * 1024


def resident(pid: int) -> int:
    """Return a process's resident memory, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def test_a_slow_reader_costs_bounded_memory(
    deployment: DeploymentFactory, mongo: Database[Any], capsys: Any
) -> None:
    """200,000 rows to a reader at 5 MB/s: the server's resident memory grows by less than 64 MiB."""
    for start in range(0, ROWS, 10_000):
        mongo["items"].insert_many(
            [{"_id": f"item-{n:06}", "name": f"{n} {'x' * 250}", "count": n} for n in range(start, start + 10_000)]
        )
    place = deployment()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    url = f"{server.stream_url}?appID=slow&shardNum=0"
    # One quick row first, so that what a first connection costs is not counted.
    async with connect(f"{url}&publications=people", max_size=None, compression=None) as socket:
        while not str(await socket.recv()).startswith('["commit"'):
            pass
    idle, peak, received, frames = resident(server.pid), 0, 0, 0
    started = time.monotonic()
    async with connect(url, max_size=None, max_queue=2, compression=None, ping_interval=None) as socket:
        while True:
            frame = str(await socket.recv())
            received += len(frame)
            frames += 1
            peak = max(peak, resident(server.pid))
            if frame.startswith('["commit"'):
                break
            # The pace of the reader, not a wait for something.
            await asyncio.sleep(max(0.0, received / BYTES_A_SECOND - (time.monotonic() - started)))
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\nslow reader: {received / 1e6:.0f} MB in {frames} frames and {seconds:.0f} s, "
            f"resident {idle / MIB:.0f} MiB idle, {peak / MIB:.0f} MiB at most"
        )
    assert received > ROWS * 250
    assert seconds > received / BYTES_A_SECOND * 0.9
    assert peak - idle < 64 * MIB


async def test_a_reader_that_stops_is_disconnected_and_a_slow_one_is_not(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """What is large takes a slow reader longer than the time after which one that reads nothing is closed."""
    mongo["items"].insert_many([{"_id": f"item-{n}", "name": "x" * 4_000_000} for n in range(8)])
    place = deployment(READER_TIMEOUT_SECONDS="2", LOG_LEVEL="INFO")
    place.configure(mappings=MAPPINGS)
    server = place.server()
    url = f"{server.stream_url}?shardNum=0&appID="
    options: Any = {"max_size": None, "max_queue": 1, "compression": None, "ping_interval": None, "close_timeout": 1}

    async def read_slowly() -> int:
        """Read in small pieces, 3 MB/s, as a plain socket does; return how many bytes came within ten seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**16)
        key = "GET /changes/v0/stream?shardNum=0&appID=slow HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        key += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        writer.write(key.encode())
        began, received = time.monotonic(), 0
        while time.monotonic() - began < 10 and (part := await reader.read(2**16)):
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
        assert await slow > 15_000_000
    assert server.log_text().count("reader reads nothing any more") == 1
