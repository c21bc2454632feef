"""Faults that pass: the replica goes on, exact, and nobody is reset.

What MongoDB answers with an error is in ``test_change_stream_errors``.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from channels_redis.core import RedisChannelLayer
from pymongo import MongoClient
from pymongo.database import Database

from devtools.postgres import Postgres
from devtools.processes import ProcessError
from devtools.redis import RedisServer
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, expected, fill, last_write
from tests.harness.deployment import Server
from tests.harness.reader import Reader
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
SMALL = 64 * 1024  # bytes; less than an empty database has


class Own:
    """A SecantusDB of the test's own."""

    def __init__(self, server: SecantusDB) -> None:
        self.server = server
        self.client: MongoClient[dict[str, Any]] = MongoClient(server.uri)
        self.database = self.client["own"]
        fill(self.database, 60, others=10)
        self.whole = Whole(server.uri, self.database, snapshot_batch=20)

    def crash(self) -> None:
        """Kill it as it is, between two writes, and start it again."""
        name = f"before-{uuid.uuid4()}"
        self.database["items"].insert_one({"_id": name, "name": "x"})
        self.server.kill()
        self.server.start()
        self.database["items"].update_one({"_id": name}, {"$set": {"name": "after"}})


@pytest.fixture
async def own(secantusdb: Callable[..., SecantusDB]) -> AsyncIterator[Own]:
    made = await asyncio.to_thread(lambda: Own(secantusdb()))
    yield made
    await made.whole.close()
    made.client.close()


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_mongodb_is_killed_and_started_again_while_streaming(own: Own, watched: bool) -> None:
    replica = own.whole.replica()
    await replica.sync()
    watcher = own.whole.watched() if watched else None
    if watcher:
        await watcher.__aenter__()
    async with replica.connection() as connection:
        await own.whole.settle(connection)
        for _ in range(2):
            await asyncio.to_thread(own.crash)
            await own.whole.settle(connection)
    if watcher:
        await watcher.__aexit__(None, None, None)


async def test_mongodb_is_killed_and_started_again_during_the_snapshot(own: Own) -> None:
    replica = own.whole.replica()

    async def on_frame(frame: str) -> None:
        if '"backfill"' in frame:
            replica.on_frame = None
            await asyncio.to_thread(own.crash)

    replica.on_frame = on_frame
    await replica.sync()
    await own.whole.compare(replica)
    async with replica.connection() as connection:
        await own.whole.settle(connection)


async def test_mongodb_hangs_with_its_connections_open(own: Own, caplog: pytest.LogCaptureFixture) -> None:
    """A read may take as long as it likes, so nothing cuts it off but the driver's monitor, which finds no answer."""
    uri = own.server.uri.replace("serverSelectionTimeoutMS=30000", "serverSelectionTimeoutMS=1000")
    whole = Whole(f"{uri}&connectTimeoutMS=1000", own.database)
    assert whole.source.client.options.pool_options.socket_timeout is None
    replica = whole.replica()
    await replica.sync()
    async with replica.connection() as connection:
        await whole.settle(connection)
        own.server.pause()
        try:
            await connection.until(lambda: "replica waits for MongoDB" in caplog.text, 15)
        finally:
            own.server.resume()
        await whole.settle(connection)
    await whole.close()


async def test_the_channel_layer_is_killed_and_started_again(
    mongodb: MongoServer, mongo: Database[Any], tmp_path: Path
) -> None:
    """Without Redis, changes are read from MongoDB; with it, they come over the layer again."""
    fill(mongo, 20, others=10)
    redis = RedisServer(tmp_path / "redis")
    await asyncio.to_thread(redis.start)
    layer = RedisChannelLayer(hosts=[redis.url])
    whole = Whole(mongodb.uri, mongo, layer=layer)
    replica = whole.replica()
    try:
        await replica.sync()
        async with whole.watched(), replica.connection() as connection:
            await whole.settle(connection)
            await connection.until(lambda: connection.session.tallies.sent > 0)
            await asyncio.to_thread(redis.kill)
            for _ in range(3):
                await whole.settle(connection)
            await asyncio.to_thread(redis.start)
            sent = connection.session.tallies.sent
            await connection.until(lambda: connection.session.tallies.sent > sent, 30)
            await whole.settle(connection)
    finally:
        await whole.close()
        await layer.close_pools()
        await asyncio.to_thread(redis.kill)


async def through_a_server(
    deployment: DeploymentFactory, mongo: Database[Any], fault: Callable[[Path, Server], Any], **settings: str
) -> Server:
    """Stream from a real server while ``fault`` holds; it gets the deployment's folder and returns what ends it."""
    fill(mongo, 10, others=5)
    place = deployment(**settings)
    place.configure(mappings=MAPPINGS)
    server = place.server()
    reader = Reader(server.stream_url)

    async def arrives(frames: AsyncIterator[str]) -> None:
        key = await asyncio.to_thread(last_write, mongo, "item")
        async for frame in frames:
            if frame.startswith('["commit"') and key in reader.model.rows("item"):
                return

    await reader.sync()
    async with reader.connection() as socket:
        frames = reader.frames(socket)
        await arrives(frames)
        end = await asyncio.to_thread(fault, place.directory, server)
        for _ in range(3):
            await arrives(frames)
        await asyncio.to_thread(end)
        await arrives(frames)
    async with reader.connection() as socket:
        await arrives(reader.frames(socket))
    assert reader.model.rows("item") == await asyncio.to_thread(expected, mongo, "item")
    assert reader.model.reset is None
    return server


async def test_the_disk_is_full(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """SQLite can write nothing more: connected replicas get their changes, and operators see them again later."""

    def fill_up(_: Path, server: Server) -> Any:
        # What a full disk is to SQLite: no file of the process may grow, but for its log, which is small.
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
        server.wait_until(lambda: "database write failed" in server.log_text(), "the disk's being full")
        return lambda: resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)

    server = await through_a_server(deployment, mongo, fill_up)
    assert "Traceback" not in server.log_text()


async def test_the_database_is_lost_and_an_old_one_is_restored(
    deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path
) -> None:
    """A replica goes on by its own watermark, since the mappings are those of a file."""
    fill(mongo, 10, others=5)
    place = deployment(migrate=False)
    place.configure(mappings=MAPPINGS)
    database, kept = place.directory / "zerosource.sqlite3", tmp_path / "kept.sqlite3"
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url)
    await asyncio.to_thread(server.stop)
    shutil.copy(database, kept)
    for prepare in (lambda: None, database.unlink, lambda: shutil.copy(kept, database)):
        prepare()
        server = await asyncio.to_thread(lambda port=server.port: place.server(port=port))  # type: ignore[misc]
        if not reader.replica_version:
            await reader.sync()
        key = await asyncio.to_thread(last_write, mongo, "item")
        await reader.follow(lambda key=key: key in reader.model.rows("item"))  # type: ignore[misc]
        await asyncio.to_thread(server.stop)
    assert reader.model.rows("item") == await asyncio.to_thread(expected, mongo, "item")
    assert reader.model.reset is None


async def test_the_database_is_locked(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Somebody holds SQLite's write lock: connected replicas get their changes."""

    def lock(folder: Path, _: Server) -> Any:
        connection = sqlite3.connect(folder / "zerosource.sqlite3", isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return connection.close

    await through_a_server(deployment, mongo, lock)


async def test_the_database_is_away(deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path) -> None:
    """PostgreSQL is stopped: connected replicas get their changes."""
    own = Postgres(tmp_path / "postgres")
    await asyncio.to_thread(own.start)
    try:

        def stop(*_: object) -> Any:
            own.stop()
            return own.start

        url = await asyncio.to_thread(own.create_database, "zerosource")
        await through_a_server(deployment, mongo, stop, DATABASE_URL=url)
    finally:
        await asyncio.to_thread(own.stop)


@pytest.mark.slow
async def test_the_database_hangs(deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path) -> None:
    """It takes connections and never answers: a replica that comes back is served all the same, and a new one too."""
    fill(mongo, 10, others=5)
    own = Postgres(tmp_path / "postgres")
    await asyncio.to_thread(own.start)
    try:
        url = await asyncio.to_thread(own.create_database, "zerosource")
        place = deployment(migrate=False, DATABASE_URL=url, CHANGE_SOURCE_API_KEYS="of-the-environment")
        place.configure(mappings=MAPPINGS)
        server = place.server()
        readers = [Reader(f"{server.stream_url}?apiKey=of-the-environment", name) for name in ("old", "new")]
        await readers[0].sync()
        await readers[0].follow(lambda: len(readers[0].model.commits) > 1)
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE changesource_watermark IN ACCESS EXCLUSIVE MODE")
            await readers[1].sync()
            for reader in readers:
                key = await asyncio.to_thread(last_write, mongo, "item")
                await reader.follow(lambda reader=reader, key=key: key in reader.model.rows("item"))  # type: ignore[misc]
    finally:
        await asyncio.to_thread(own.stop)
    rows = await asyncio.to_thread(expected, mongo, "item")
    assert readers[1].model.rows("item") == rows


def test_a_start_while_the_database_is_away(
    deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path
) -> None:
    """``serve`` and ``runwatcher`` wait for it; a command says in one line what is wrong."""
    fill(mongo, 10, others=5)
    own = Postgres(tmp_path / "postgres")
    own.start()
    try:
        place = deployment(migrate=False, DATABASE_URL=own.create_database("zerosource"))
        place.configure(mappings=MAPPINGS)
        own.stop()
        with pytest.raises(
            ProcessError, match=r"ended with 75: .*CommandError: ZS103 The database did not answer: .* DATABASE_URL"
        ) as it:
            place.manage("createapikey", "one")
        assert "Traceback" not in str(it.value)
        server, watcher = place.server("--no-watcher", wait=False), place.watcher()
        for process in (server, watcher):
            process.wait_until(lambda process=process: "waiting" in process.log_text(), "the wait")  # type: ignore[misc]
        own.start()
        nowhere = deployment(migrate=False, DATABASE_URL=own.url("nowhere"))
        with pytest.raises(ProcessError, match=r'ended with 78: .*ZS104 .*database "nowhere" does not exist'):
            nowhere.manage("createapikey", "one")
        server.wait_until(server.answers, "/healthz")
        watcher.wait_until(lambda: "Watching." in watcher.log_text(), "the watcher")
        assert "Traceback" not in server.log_text() + watcher.log_text()
    finally:
        own.stop()


def test_the_database_goes_away_during_a_start(
    deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path
) -> None:
    """While the mappings are fetched, after it has answered at first: ``runwatcher`` waits for it again."""
    fill(mongo, 10, others=5)
    own = Postgres(tmp_path / "postgres")
    own.start()

    class Mappings(BaseHTTPRequestHandler):
        """Says the mappings, and at the first time stops the database before."""

        asked = 0

        def do_GET(self) -> None:
            """Answer."""
            if not Mappings.asked:
                own.stop()
            Mappings.asked += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(MAPPINGS).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ExitStack() as stack:
        stack.callback(own.stop)
        http = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Mappings))
        threading.Thread(target=http.serve_forever, daemon=True).start()
        stack.callback(http.shutdown)
        place = deployment(
            migrate=False,
            DATABASE_URL=own.create_database("zerosource"),
            TABLE_MAPPINGS_URL=f"http://127.0.0.1:{http.server_port}/",
            RELOAD_SECONDS="0",
        )
        watcher = place.watcher()
        watcher.wait_until(lambda: "the database does not answer, waiting" in watcher.log_text(), "the wait")
        assert Mappings.asked == 1
        own.start()
        watcher.wait_until(lambda: "Watching." in watcher.log_text(), "the watcher")
        assert Mappings.asked == 2
