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
