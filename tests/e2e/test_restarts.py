"""Every process that there is goes away and comes back, in any order and together, while writers never stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from devtools.postgres import Postgres
from devtools.processes import wait_until
from devtools.redis import RedisServer
from devtools.secantusdb import SecantusDB
from devtools.zerocache import ZeroCache
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import MAPPINGS, PIPELINES, Writers, fill
from tests.harness.deployment import Deployment, Running, Server
from tests.harness.replicas import settle

ITEMS = 1_000
WRITES = 150
KEY = "restart-key"
NAMES = ["MongoDB", "Redis", "the database", "the watcher", "the server", "zero-cache"]


class Services:
    """All that takes part. ``down`` ends one of ``NAMES`` (as a crash, but for PostgreSQL), ``up`` brings it back."""

    def __init__(self, mongodb: SecantusDB, redis: RedisServer, postgres: Postgres) -> None:
        self.mongodb, self.redis, self.postgres = mongodb, redis, postgres
        self.place: Deployment
        self.cache: ZeroCache
        self.server: Server
        self.watcher: Running
        self.away: set[str] = set()

    def down(self, name: str) -> None:
        self.away.add(name)
        match name:
            case "MongoDB":
                self.mongodb.kill()
            case "Redis":
                self.redis.kill()
            case "the database":
                self.postgres.stop()
            case "the watcher":
                self.watcher.kill()
            case "the server":
                self.server.kill()
            case "zero-cache":
                self.cache.kill()

    def up(self, name: str) -> None:
        match name:
            case "MongoDB":
                self.mongodb.start()
            case "Redis":
                self.redis.start()
            case "the database":
                self.postgres.start()
            case "the watcher":
                self.watcher = self.place.watcher()
            case "the server":
                self.server = self.place.server("--no-watcher", port=self.server.port, wait=False)
            case "zero-cache":
                self.cache.start()
        self.away.discard(name)

    def logs(self) -> str:
        """What all our processes wrote, over all their starts."""
        return "\n".join(path.read_text() for path in self.place.directory.glob("*.log"))


@pytest.fixture
def services(tmp_path: Path, secantusdb: Callable[..., SecantusDB]) -> Iterator[Services]:
    """The three databases, of the test's own."""
    redis, postgres = RedisServer(tmp_path / "redis"), Postgres(tmp_path / "postgres")
    with ExitStack() as stack:
        stack.callback(redis.kill)
        stack.callback(postgres.stop)
        redis.start()
        postgres.start()
        yield Services(secantusdb(), redis, postgres)


@pytest.fixture
def own(services: Services) -> Iterator[Database[Any]]:
    with MongoClient[Any](services.mongodb.uri) as client:
        fill(client["own"], ITEMS)
        yield client["own"]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_everything_goes_away_and_comes_back(
    services: Services,
    own: Database[Any],
    deployment: DeploymentFactory,
    zero_cache: ZeroCacheFactory,
    seed: int,
) -> None:
    """Each once, in an order of chance in which several are away together: the replica ends exact, nobody is reset."""
    services.place = deployment(
        migrate=False,
        MONGODB_URI=services.mongodb.uri,
        MONGODB_DATABASE=own.name,
        REDIS_URL=services.redis.url,
        DATABASE_URL=services.postgres.create_database("zerosource"),
        # Of the environment, since those that the database keeps are away with it.
        CHANGE_SOURCE_API_KEYS=KEY,
    )
    services.place.configure(mappings=MAPPINGS)
    services.server = services.place.server("--no-watcher")
    services.watcher = services.place.watcher()
    services.cache = zero_cache(f"{services.server.stream_url}?apiKey={KEY}")
    services.cache.wait_ready()
    together = 0
    with Writers(services.mongodb.uri, own.name, threads=2, items=ITEMS, pause=0.02, patient=True) as writers:
        for name in order_of_chance(seed):
            (services.up if name in services.away else services.down)(name)
            together = max(together, len(services.away))
            written = writers.total
            if "MongoDB" not in services.away:
                wait_until(lambda written=written: writers.total > written + WRITES, f"{WRITES} writes", 60)  # type: ignore[misc]
    assert not services.away
    assert together >= 2
    assert writers.total > WRITES * len(NAMES)
    services.cache.wait_ready()
    settle(services.cache, own, list(PIPELINES))
    assert services.cache.exits == []
    logs = services.logs()
    assert "replica must be reset" not in logs
    assert "Traceback" not in logs, logs[logs.index("Traceback") - 500 :][:3000]
    assert KEY not in logs


def order_of_chance(seed: int) -> list[str]:
    """Each name twice: at the first it goes, at the second it comes back."""
    names = NAMES * 2
    random.Random(seed).shuffle(names)
    return names
