"""One transaction of more than V8's longest string: zero-cache must bear it, and the catch-up after a restart too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from changesource.protocol.messages import TableFrames, create_tables
from changesource.protocol.request import StreamRequest
from changesource.protocol.tables import mapped_table
from changesource.services.downstream import Downstream
from devtools.processes import free_port, wait_until
from tests.conftest import ZeroCacheFactory
from tests.harness.link import framewise

ROWS = 2_100
BODY = "x" * 300_000
BEGAN = 1_790_000_000 << 32
TABLE = mapped_table("big", [("id", "string", False), ("body", "string", False)], ("id",))
FRAMES = TableFrames(TABLE)


@contextmanager
def source(relief: bytes) -> Iterator[str]:
    """Serve an empty table, then one transaction of 630 MB; give the address."""
    port = free_port()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop: list[asyncio.Event] = []

    async def stream(socket: ServerConnection) -> None:
        request = StreamRequest.parse(socket.request.path.partition("?")[2].encode() if socket.request else b"")
        after = BEGAN + 1 if request.last_watermark.startswith("c") and request.last_watermark != first else BEGAN
        downstream = Downstream(framewise(socket.send), 1, {"big"}, BEGAN, relief)
        if not request.last_watermark:
            await downstream.begin(BEGAN)
            await downstream.frames(create_tables([TABLE], request.app_id, request.shard_num))
            await downstream.commit()
        elif after == BEGAN:
            await downstream.begin(BEGAN + 1)
            for number in range(ROWS):
                await downstream.frames([FRAMES.insert({"id": str(number), "body": BODY})])
            await downstream.commit()
        await socket.wait_closed()

    async def serve_one(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await stream(socket)

    first = str(Downstream(lambda frame: asyncio.sleep(0), 1, set(), BEGAN).committed)

    async def run() -> None:
        stop.append(asyncio.Event())
        async with serve(serve_one, "127.0.0.1", port, max_size=None, compression=None):
            ready.set()
            await stop[0].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"ws://127.0.0.1:{port}/"
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join(timeout=20)
        loop.close()


@pytest.mark.slow
def test_a_transaction_of_630_mb(zero_cache: ZeroCacheFactory) -> None:
    """2,100 rows of 300 KB in one transaction arrive, once, and survive a restart that drops the replica."""
    with source(FRAMES.relief) as url:
        cache: Any = zero_cache(url, app_id="huge")

        def arrived() -> bool:
            return cache.ready() and "big" in cache.replica.tables() and cache.replica.count("big") == ROWS

        wait_until(arrived, "all rows", 240, interval=1.0, detail=cache.log_tail)
        assert cache.exits == []
        cache.kill()
        cache.start(supervised=True)
        wait_until(arrived, "all rows after a restart", 120, interval=1.0, detail=cache.log_tail)
        assert cache.exits == []
