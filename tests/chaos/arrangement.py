"""What takes part in the chaos run: the split form with all it stands on, and a network between that may fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from pymongo import MongoClient
from pymongo.database import Database

from changesource.protocol.watermark import Watermark
from devtools.postgres import Postgres
from devtools.processes import wait_until
from devtools.redis import RedisServer
from devtools.secantusdb import URI_OPTIONS, SecantusDB
from devtools.zerocache import ZeroCache
from tests.chaos.follower import Follower
from tests.chaos.writing import MAPPINGS
from tests.harness.app import fill
from tests.harness.deployment import Deployment, Running, Server
from tests.harness.network import Link, Network, owns_connection
from tests.harness.proxy import RecordingProxy
from tests.harness.replicas import open_cursors

Document = dict[str, Any]
KEY = "chaos-key"
ITEMS = 2_000
# It looks through all that its oplog holds before a stream begins somewhere, some 20,000 entries a second.
OPLOG_ENTRIES = 30_000
# Directly, since what the server says of its replica set would lead drivers around the link. A connection that is half
# open is noticed within seconds, or a short fault would be over before it is.
LINKED = f"{URI_OPTIONS}&directConnection=true&connectTimeoutMS=2000"
SERVERS = WATCHERS = 2
SERVERS_TO_MONGODB, WATCHERS_TO_MONGODB = "servers to MongoDB", "watchers to MongoDB"
TO_REDIS, TO_POSTGRES = "processes to Redis", "processes to PostgreSQL"


class Arrangement:
    """Every process of the run, started once ``start`` returns; ``close`` ends all of them.

    ``recorders`` are by replica: what zero-cache, and a reader that believes nothing, got on the wire.
    """

    def __init__(self, directory: Path) -> None:
        """``directory`` holds all data and logs."""
        self._stack = ExitStack()
        self.mongodb = SecantusDB(directory / "secantusdb", oplog_entries=OPLOG_ENTRIES, test_commands=False)
        self.redis = RedisServer(directory / "redis")
        self.postgres = Postgres(directory / "postgres")
        # Never struck: zero-cache waits for half a minute for one that was, and would be away for most of the run.
        self._postgres_of_zero_cache = Postgres(directory / "postgres-of-zero-cache")
        self.network = Network()
        self.place: Deployment
        self.servers: list[Server] = []
        self.watchers: list[Running] = []
        self.recorders: dict[str, RecordingProxy] = {}
        self.cache: ZeroCache
        self.follower: Follower
        self.client: MongoClient[Document] = MongoClient(self.mongodb.uri)
        self._directory = directory
        self._leader = 0

    @property
    def database(self) -> Database[Document]:
        """What is watched."""
        return self.client["chaos"]

    def start(self) -> None:
        """Start everything, and wait until the replicas have their initial sync."""
        for service, end in (
            (self.mongodb, self.mongodb.kill),
            (self.redis, self.redis.kill),
            (self.postgres, self.postgres.kill),
            (self._postgres_of_zero_cache, self._postgres_of_zero_cache.kill),
        ):
            self._stack.callback(end)
            service.start()
        self._stack.callback(self.client.close)
        fill(self.database, ITEMS)
        self._stack.enter_context(self.network)
        self._start_zerosource()
        self._start_replicas()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _start_zerosource(self) -> None:
        redis = self.network.link(TO_REDIS, self.redis.port)
        postgres = self.network.link(TO_POSTGRES, self.postgres.port)
        for name in (SERVERS_TO_MONGODB, WATCHERS_TO_MONGODB):
            self.network.link(name, self.mongodb.port, listens=False)
        # One port, since all must have one MONGODB_URI, by which they find each other on the channel layer.
        mongodb = self.network.fork(self._link_to_mongodb)
        own = self.postgres.create_database("zerosource")
        self.place = Deployment(
            self._directory,
            {
                "MONGODB_URI": f"mongodb://127.0.0.1:{mongodb.port}/?{LINKED}",
                "MONGODB_DATABASE": self.database.name,
                "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
                "DATABASE_URL": own.replace(f":{self.postgres.port}/", f":{postgres.port}/"),
                # Of the environment, since those that the database keeps are away with it.
                "CHANGE_SOURCE_API_KEYS": KEY,
            },
        )
        self._stack.callback(self.place.close)
        self.place.configure(mappings=MAPPINGS)
        self.place.manage("migrate", "--verbosity", "0")
        self.servers = [self.place.server("--no-watcher") for _ in range(SERVERS)]
        self.watchers = [self.place.watcher() for _ in range(WATCHERS)]

    def _start_replicas(self) -> None:
        for name in ("zero-cache", "reader"):
            # Where one server is away the link leads to the other, as a load balancer does.
            link = self.network.link(f"{name} to server", *(server.port for server in self.servers))
            self.recorders[name] = self._stack.enter_context(RecordingProxy(link.port))
        urls = {name: f"{recorder.stream_url}?apiKey={KEY}" for name, recorder in self.recorders.items()}
        database = self._postgres_of_zero_cache.create_database("zero_cache")
        self.cache = ZeroCache(self._directory / "zero-cache", urls["zero-cache"], database)
        self._stack.callback(self.cache.replica.close)
        self._stack.callback(self.cache.kill)
        self.cache.start()
        self.follower = Follower(urls["reader"])
        self._stack.callback(self.follower.stop)
        self.follower.start()
        self.cache.wait_ready()
        wait_until(lambda: self.follower.synced, "the reader's initial sync", 60, detail=lambda: self.follower.trouble)
        wait_until(lambda: open_cursors(self.client) == 1, "one change stream for both replicas", 60)

    def _link_to_mongodb(self, port: int) -> Link:
        watches = any(owns_connection(watcher.pid, port) for watcher in self.watchers)
        return self.network.links[WATCHERS_TO_MONGODB if watches else SERVERS_TO_MONGODB]

    # What may be struck.

    def leader(self) -> int:
        """Return which watcher leads, or did when that was last known."""
        try:
            with psycopg.connect(self.postgres.url("zerosource"), connect_timeout=2) as connection:
                found = connection.execute("SELECT holder FROM changesource_lease").fetchone()
        except psycopg.Error:
            found = None  # it is away just now
        holders = [f"/{watcher.pid}/" in str(found) for watcher in self.watchers]
        self._leader = holders.index(True) if any(holders) else self._leader
        return self._leader

    def lag(self) -> float:
        """Return how many seconds the slowest replica is behind, by its last commit on the wire."""
        last = [
            Watermark.parse(max(commit for one in recorder.connections for commit in one.commits[-1:])).cluster_time
            for recorder in self.recorders.values()
        ]
        return time.time() - (min(last) >> 32)

    def start_watcher(self, number: int) -> None:
        """Start a watcher in the place of one that ended."""
        self.watchers[number] = self.place.watcher()

    def start_server(self, number: int) -> None:
        """Start a server in the place of one that ended, without waiting for it."""
        port = self.servers[number].port
        self.servers[number] = self.place.server("--no-watcher", port=port, wait=False)

    def logs(self) -> dict[str, str]:
        """Return what all our processes wrote, over all their starts, by log."""
        return {path.name: path.read_text(errors="replace") for path in sorted(self._directory.glob("*.log"))}


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal these processes, some of which may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
