"""What a real zero-cache logs of its API key, by each way to give it: what docs/security.md says of it."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from devtools.processes import free_port
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.deployment import Server
from tests.integration.test_access import prepared, userinfo
from tests.integration.test_key_bounds import made, sql

pytestmark = pytest.mark.slow

HEAD_END = b"\r\n\r\n"


@contextmanager
def running(serving: Callable[[], Coroutine[Any, Any, AbstractAsyncContextManager[Any]]]) -> Iterator[None]:
    """Have what ``serving`` returns serve in a thread, until the end."""
    started: Future[Callable[[], object]] = Future()

    async def main() -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with await serving():
            started.set_result(lambda: loop.call_soon_threadsafe(ending.set))
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="serving", daemon=True)
    thread.start()
    end = started.result(10)
    try:
        yield
    finally:
        end()
        thread.join(10)


@contextmanager
def adding_header(server: Server, key: str) -> Iterator[str]:
    """The stream's URL at a proxy that adds the key to each request, as one beside a zero-cache would."""
    port = free_port()
    header = b"\r\nAuthorization: Basic " + base64.b64encode(f"zero:{key}".encode())

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # as when it ends
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(HEAD_END)
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", server.port)
        upstream.write(head.removesuffix(HEAD_END) + header + HEAD_END)
        await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))

    with running(lambda: asyncio.start_server(relay, "127.0.0.1", port)):
        yield f"ws://127.0.0.1:{port}/changes/v0/stream"


@pytest.mark.parametrize(
    ("form", "level", "lines"),
    [("query", "info", 3), ("basic", "info", 3), ("query", "warn", 0), ("basic", "warn", 0), ("proxy", "info", 0)],
)
def test_what_it_logs_of_its_key(
    deployment: DeploymentFactory, zero_cache: ZeroCacheFactory, form: str, level: str, lines: int
) -> None:
    """It syncs, streams, and is locked out."""
    place = prepared(deployment)
    key = made(place, "zero")["zero"]
    server = place.server()
    with adding_header(server, key) as proxied:
        urls = {"query": f"{server.stream_url}?apiKey={key}", "basic": userinfo(server.stream_url, f"zero:{key}")}
        cache = zero_cache(urls.get(form, proxied), settings={"ZERO_LOG_LEVEL": level})
        cache.wait_ready()
        server.wait_until(lambda: "replica resumes" in server.log_text(), "its stream", 30)
        place.manage("revokeapikey", "zero")
        server.wait_until(lambda: server.log_text().count("connection refused") >= 2, "its refusal", 30)
        if form == "proxy":
            # Let in again, it goes on where it was.
            sql(place, "UPDATE changesource_apikey SET revoked = NULL")
            server.wait_until(lambda: server.log_text().count("replica resumes") == 2, "its stream again", 30)
            assert "reset" not in server.log_text()
        assert cache.exits == []
        cache.stop()
    assert server.log_text().count("connection locked out") == 1
    assert len([line for line in cache.log_text().splitlines() if key in line]) == lines
    assert key not in server.log_text()


def test_a_sync_that_is_cut_is_told_with_the_key_at_any_level(zero_cache: ZeroCacheFactory) -> None:
    port = free_port()

    async def cut(socket: ServerConnection) -> None:
        await socket.close(4001)

    key = "zs_" + "k" * 43

    async def serving() -> AbstractAsyncContextManager[Any]:
        return await serve(cut, "127.0.0.1", port)

    with running(serving):
        url = f"ws://zero:{key}@127.0.0.1:{port}/changes/v0/stream"
        cache = zero_cache(url, supervised=True, settings={"ZERO_LOG_LEVEL": "error"})
        cache.wait_exit()
        cache.stop()
    assert f"change source {url} closed before initial-sync completed" in cache.log_text()
