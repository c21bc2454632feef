"""API keys that are bound, that expire, and that are revoked while connections live."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import Any

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
    for path in ("/metrics", "/metadata/schemas"):
        assert (await asyncio.to_thread(status_of, f"{server.url}{path}?apiKey={free}"))[0] == 200
        status, _, body = await asyncio.to_thread(status_of, f"{server.url}{path}?apiKey={bound}")
        assert (status, body.split()[0]) == (401, "ZS128")


async def test_a_key_that_is_good_no_more_ends_its_connections_and_no_other(deployment: DeploymentFactory) -> None:
    """In each process; by an operator, by the clock, or by somebody at the database."""
    place = prepared(deployment)
    keys = made(place, "revoked", "deleted", "rebound", "expired", "good")
    servers = [place.server(), place.server("--no-watcher")]
    async with (
        streaming(servers[0], keys["good"], "app_good") as good,
        streaming(servers[0], keys["revoked"], "app_0") as first,
        streaming(servers[1], keys["revoked"], "app_1") as second,
        streaming(servers[0], keys["deleted"], "app_2") as deleted,
        streaming(servers[1], keys["rebound"], "app_3") as rebound,
        streaming(servers[1], keys["expired"], "app_4") as expired,
    ):
        await asyncio.to_thread(place.manage, "revokeapikey", "revoked")
        assert [await ending(first), await ending(second)] == [LOCKED_OUT] * 2
        sql(place, "DELETE FROM changesource_apikey WHERE name = 'deleted'")
        assert await ending(deleted) == LOCKED_OUT
        # To what it is used for: goes on.
        await asyncio.to_thread(place.manage, "changeapikey", "good", "--app-id", "app_good", "--expires", "9d")
        sql(place, "UPDATE changesource_apikey SET app_ids = 'app_x, app_y' WHERE name = 'rebound'")
        assert await ending(rebound) == LOCKED_OUT
        soon = datetime.now(UTC) + timedelta(seconds=3)
        sql(place, "UPDATE changesource_apikey SET expires = ? WHERE name = 'expired'", f"{soon:%F %T.%f}")
        assert await ending(expired) == LOCKED_OUT
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
    assert "app_id=app_2 shard=0 code=ZS126 why=\"The API key 'deleted' was deleted.\"" in logs[0]
    assert "Traceback" not in "".join(logs)
    rows = sql(place, "SELECT app_id, state, message FROM changesource_watermark WHERE kind = 'replica'")
    shown = {app_id: (state, message) for app_id, state, message in rows}
    for app_id, words in {"app_0": "is revoked", "app_2": "was deleted", "app_3": "bound", "app_4": "expired"}.items():
        assert shown[app_id][0] == "disconnected"
        assert words in shown[app_id][1]
    assert_silent("".join(logs) + str(shown), *keys.values())
