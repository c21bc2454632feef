"""How what stands in for others listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def listen(connection: Callable[[], asyncio.Protocol], port: int) -> None:
    """Serve each connection by a new ``connection`` on loopback, until cancelled; print a line once it listens."""
    listening = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", port)
    print("ready", flush=True)
    async with listening:
        await listening.serve_forever()
