"""API keys that are bound, that expire, and that are revoked while connections live."""

from __future__ import annotations

import asyncio
import base64
import functools
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo.database import Database
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.conftest import DeploymentFactory
from tests.harness.deployment import Deployment, Server
from tests.harness.reader import Reader
from tests.integration.test_access import assert_silent, attempt, prepared, status_of, userinfo

LOCKED_OUT = 4001
# Two, and what a busy machine adds.
SECONDS = 6.0


MAKE = "from changesource.store.api_keys import create; print(*[create(name) for name in {names}])"


def made(place: Deployment, *names: str) -> dict[str, str]:
    """New keys by these names; by one process, since each takes a second to start."""
    return dict(zip(names, place.manage("shell", "-v0", "-c", MAKE.format(names=names)).split(), strict=True))


def sql(place: Deployment, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run SQL, as somebody at the database would."""
    path = place.environment["DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        return database.execute(statement, values).fetchall()


@asynccontextmanager
async def streaming(server: Server, key: str, app_id: str) -> AsyncIterator[ClientConnection]:
    """A replica of this app id that has synced, and streams."""
    reader = Reader(f"{server.stream_url}?apiKey={key}", app_id)
    await reader.sync()
    async with reader.connection() as socket:
        await anext(reader.frames(socket))
        yield socket


async def ending(socket: ClientConnection) -> int:
    """The code with which the server closes, whatever it sends before."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 0


async def test_a_key_is_good_for_its_app_ids_alone(deployment: DeploymentFactory) -> None:
    place = prepared(deployment)
    bound = place.manage("createapikey", "bound", "--app-id", "one", "--app-id", "two").strip()
    free = made(place, "free")["free"]
    server = place.server()
    key = ("apiKey", bound)
    for app_id in ("one", "two"):
        assert await attempt(server.stream_url, key, app_id=app_id) == '["begin"', app_id
    for app_id in ("three", "on", "one2", "One", "one,two", ""):
        assert await attempt(server.stream_url, key, app_id=app_id) == 403, app_id
    assert await attempt(userinfo(server.stream_url, f"zero:{bound}"), app_id="three") == 403
    # The first of two app ids is not what is checked while the other one is served.
    assert await attempt(server.stream_url, key, ("appID", "three"), app_id="one") == 403
    log = server.log_text()
    assert "app_id=three code=ZS128" in log
    assert "The API key 'bound' is bound to app ids, and not good for that of this connection." in log
    assert_silent(log, bound, free)
    # Pages show what is not that app's alone.
    for path in ("/metrics", "/metadata/schemas", "/metadata/tables", "/metadata/status", "/metadata/openapi.json"):
        assert (await asyncio.to_thread(status_of, f"{server.url}{path}?apiKey={free}"))[0] == 200
        status, _, body = await asyncio.to_thread(status_of, f"{server.url}{path}?apiKey={bound}")
        assert (status, body.split()[0]) == (401, "ZS128")


async def test_a_key_that_is_good_no_more_ends_its_connections_and_no_other(deployment: DeploymentFactory) -> None:
    """In each process; by an operator, by the clock, or by somebody at the database."""
    place = prepared(deployment)
    keys = made(place, "revoked", "deleted", "rebound", "expired", "good")
    servers = [place.server(), place.server("--no-watcher")]
    wanted = [(0, "good"), (0, "revoked"), (1, "revoked"), (0, "deleted"), (1, "rebound"), (1, "expired")]
    async with AsyncExitStack() as stack:
        streams = [streaming(servers[at], keys[name], f"app_{n}") for n, (at, name) in enumerate(wanted)]
        entering = (stack.enter_async_context(stream) for stream in streams)
        good, first, second, deleted, rebound, expired = await asyncio.gather(*entering)
        change = "UPDATE changesource_apikey SET {} WHERE name = ?"
        sql(place, change.format("revoked = created"), "revoked")
        assert [await ending(first), await ending(second)] == [LOCKED_OUT] * 2
        sql(place, "DELETE FROM changesource_apikey WHERE name = ?", "deleted")
        # To what it is used for: goes on.
        sql(place, change.format("app_ids = 'app_0', expires = '2999-01-31'"), "good")
        sql(place, change.format("app_ids = 'app_x, app_y'"), "rebound")
        soon = datetime.now(UTC) + timedelta(seconds=1)
        sql(place, change.format(f"expires = '{soon:%F %T.%f}'"), "expired")
        assert [await ending(deleted), await ending(rebound), await ending(expired)] == [LOCKED_OUT] * 3
        assert datetime.now(UTC) >= soon
        # It still gets heartbeats.
        async with asyncio.timeout(SECONDS):
            await good.recv()
            await good.recv()
    for name, words in {
        "revoked": "ZS126 The API key 'revoked' is revoked.",
        "deleted": "ZS122 The API key is wrong.",
        "rebound": "ZS128 The API key 'rebound' is bound",
        "expired": "ZS127 The API key 'expired' expired at",
    }.items():
        for server in servers:
            assert await attempt(server.stream_url, ("apiKey", keys[name])) == 403, name
            assert words in server.log_text().replace("\\", "")
    logs = [server.log_text() for server in servers]
    assert [log.count("connection locked out") for log in logs] == [2, 3]
    assert "app_id=app_3 shard=0 code=ZS126 why=\"The API key 'deleted' was deleted.\"" in logs[0]
    assert "Traceback" not in "".join(logs)
    rows = sql(place, "SELECT app_id, state, message FROM changesource_watermark WHERE kind = 'replica'")
    shown = {app_id: (state, message) for app_id, state, message in rows}
    for app_id, words in {"app_1": "is revoked", "app_3": "was deleted", "app_4": "bound", "app_5": "expired"}.items():
        assert shown[app_id][0] == "disconnected"
        assert words in shown[app_id][1]
    assert_silent("".join(logs) + str(shown), *keys.values())


async def test_a_revoked_key_ends_a_snapshot_and_a_reader_that_reads_nothing(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """Whatever the connection is doing: copying for somebody slow, or waiting for zero-cache to close it."""
    mongo["items"].insert_many([{"_id": str(number), "name": "x" * 5000} for number in range(10_000)])
    place = prepared(deployment)
    key = made(place, "one")["one"]
    server = place.server()
    copying = Reader(f"{server.stream_url}?apiKey={key}", "copying", receive_buffer=4096)
    synced = Reader(f"{server.stream_url}?apiKey={key}", "synced")
    async with copying.connection() as slow, synced.connection() as waiting:
        async for frame in synced.frames(waiting):
            if frame.startswith('["commit"'):
                break
        assert str(await slow.recv()).startswith('["begin"')
        revoked = time.monotonic()
        await asyncio.to_thread(sql, place, "UPDATE changesource_apikey SET revoked = created")
        assert await ending(waiting) == LOCKED_OUT
        # Nothing of it is read until the server has let go of it.
        wait = functools.partial(server.wait_until, lambda: connections(server) == 0, "the socket's end", SECONDS)
        await asyncio.to_thread(wait)
        assert time.monotonic() - revoked < SECONDS
        frames = [frame async for frame in rest(slow)]
    assert not any(frame.startswith('["commit"') for frame in frames)
    assert server.log_text().count("connection locked out") == 2
    assert "Traceback" not in server.log_text()


def connections(server: Server) -> int:
    """How many sockets the server has with clients."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[1].endswith(f":{server.port:04X}") and fields[3] == "01" for fields in map(str.split, lines))


async def rest(socket: ClientConnection) -> AsyncIterator[str]:
    """What is left to be read."""
    async with asyncio.timeout(SECONDS):
        with suppress(ConnectionClosed):
            while True:
                yield str(await socket.recv())


async def test_the_last_use_is_shown(deployment: DeploymentFactory) -> None:
    place = prepared(deployment)
    keys = made(place, "stream", "page", "never")
    server = place.server()

    def used() -> dict[str, bool]:
        return {name: at is not None for name, at in sql(place, "SELECT name, last_used FROM changesource_apikey")}

    assert await attempt(server.stream_url, ("apiKey", keys["never"][:-1])) == 403
    assert used() == {"stream": False, "page": False, "never": False}
    assert await attempt(server.stream_url, ("apiKey", keys["stream"])) == '["begin"'
    assert (await asyncio.to_thread(status_of, f"{server.url}/metrics?apiKey={keys['page']}"))[0] == 200
    wait = functools.partial(server.wait_until, lambda: used()["stream"] and used()["page"], "the uses", 10)
    await asyncio.to_thread(wait)
    assert not used()["never"]


def everything_in(path: str) -> str:
    """All that the tables of an SQLite file hold, as text, and the bytes of its files."""
    with closing(sqlite3.connect(path, timeout=20)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}  # noqa: S608
    files = Path(path).parent.glob(f"{Path(path).name}*")
    return str(rows) + "".join(file.read_bytes().decode("latin1") for file in files)


async def test_a_stolen_database_and_a_stolen_log_have_no_key(deployment: DeploymentFactory) -> None:
    """After each way to present one: right, revoked, expired, of another app, and wrong ones that are nearly right."""
    place = prepared(deployment, LOG_LEVEL="DEBUG")
    keys = made(place, "good", "revoked", "expired", "bound")
    sql(place, "UPDATE changesource_apikey SET revoked = created WHERE name = 'revoked'")
    sql(place, "UPDATE changesource_apikey SET expires = created WHERE name = 'expired'")
    sql(place, "UPDATE changesource_apikey SET app_ids = 'other' WHERE name = 'bound'")
    server = place.server()
    url = server.stream_url
    wrong = [f"zs_{'w' * 43}", "a-wrong-key-of-no-form", keys["good"][:-1], keys["good"].upper()]
    sent = [*keys.values(), *wrong]
    for key in sent:
        expected = '["begin"' if key == keys["good"] else 403
        for form in ("apiKey", "k"):
            assert await attempt(url, (form, key)) == expected
            assert (await asyncio.to_thread(status_of, f"{server.url}/metrics?{form}={key}"))[0] in (200, 401)
        for text in (f"zero:{key}", f"{key}:"):
            assert await attempt(userinfo(url, text)) == expected
    for key in keys.values():
        await asyncio.to_thread(status_of, f"{server.url}/metadata/schemas/{key}?k={key}")
        assert await attempt(url + f"/{key}") == 403
    for row in sql(place, "SELECT hash, prefix, name FROM changesource_apikey"):
        for stolen in row:
            assert await attempt(url, ("apiKey", stolen)) == 403
    log = server.log_text()
    for code in ("ZS122", "ZS126", "ZS127", "ZS128"):
        assert f"code={code}" in log
    kept = everything_in(place.environment["DATABASE_URL"].removeprefix("sqlite:///"))
    assert keys["good"][:9] in kept
    for key in sent:
        encoded = [base64.b64encode(text.encode()).decode().rstrip("=") for text in (f"zero:{key}", f"{key}:", key)]
        for form in (key, key[3:], key[9:], *encoded):
            assert form not in kept
            assert form not in log
