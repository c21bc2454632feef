"""Asks a server for a change stream, as a zero-cache would by the address that a page gives it."""

from __future__ import annotations

import asyncio
import ssl

from websockets.asyncio.client import connect

PATIENCE = 30


def any_certificate() -> ssl.SSLContext:
    """TLS that looks at no certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_stream(url: str, app_id: str) -> None:
    """Fails where no initial sync begins at ``url``; raises ``WebSocketException`` where nobody is let in."""
    asyncio.run(_begin(url, app_id))


async def _begin(url: str, app_id: str) -> None:
    context = any_certificate() if url.startswith("wss") else None
    whole = f"{url}{'&' if '?' in url else '?'}appID={app_id}&shardNum=0"
    async with connect(whole, ssl=context, max_size=None, open_timeout=PATIENCE) as socket:
        frame = await asyncio.wait_for(socket.recv(), PATIENCE)
        assert frame.startswith('["begin"'), frame
