"""Fixtures that start real services, wait until they answer, and end them whatever happens.

A service that cannot start fails the run; nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser
from pymongo import MongoClient
from pymongo.database import Database

from devtools.postgres import Postgres
from devtools.redis import RedisServer
from devtools.secantusdb import SecantusDB
from devtools.zerocache import ZeroCache
from devtools.zeroclient import QueryArguments, QueryServer, ZeroClient
from tests.harness.browser import Desk, chromium
from tests.harness.deployment import Deployment
from tests.harness.privileges import Guarded

Document = dict[str, Any]
# What is slow on purpose; anything else has the limit of pyproject.toml.
SLOW_TEST_SECONDS = 3600
# SecantusDB may leave a command unanswered for ever; a thread that waits for it would outlive its test.
UNANSWERED_MS = 120_000


def pytest_configure() -> None:
    """A run that is told to end still ends its services; how long an example takes fails none, on a busy machine."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    settings.register_profile("zerosource", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("zerosource")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that take longest, so that two workers end together; give slow tests the time that they take."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_TEST_SECONDS), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many snippets of the documentation were run, and which were left out; see ``tests/snippets``."""
    counts: Counter[str] = Counter()
    left_out = []
    for report in [one for reports in terminalreporter.stats.values() for one in reports]:
        for name, value in report.user_properties if getattr(report, "when", "") == "call" else ():
            if name == "snippets":
                counts[value.rpartition(": ")[0]] += int(value.rpartition(": ")[2])
            elif name == "left out":
                left_out.append(value)
    if counts or left_out:
        terminalreporter.section("snippets of the documentation")
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        terminalreporter.write_line(f"{counts.total()} run: {kinds}")
        for one in left_out:
            terminalreporter.write_line(f"left out: {one}")


@dataclass(frozen=True)
class MongoServer:
    """The MongoDB of the run: SecantusDB, or the replica set at ``TEST_MONGODB_URI``."""

    uri: str
    client: MongoClient[Document]
    is_secantusdb: bool


class DeploymentFactory(Protocol):
    """See the fixture ``deployment``."""

    def __call__(
        self, database: str = "sqlite", redis: bool = False, migrate: bool = True, **settings: str
    ) -> Deployment: ...


class ZeroCacheFactory(Protocol):
    """See the fixture ``zero_cache``."""

    def __call__(self, upstream: str, *, supervised: bool = True, **options: Any) -> ZeroCache: ...


@contextmanager
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """Start a SecantusDB, unless ``TEST_MONGODB_URI`` names a MongoDB."""
    with ExitStack() as stack:
        uri = os.environ.get("TEST_MONGODB_URI", "")
        is_secantusdb = not uri
        if is_secantusdb:
            server = SecantusDB(tmp_path_factory.mktemp("mongodb"))
            server.start()
            stack.callback(server.stop)
            uri = server.uri
        client: MongoClient[Document] = MongoClient(uri, socketTimeoutMS=UNANSWERED_MS)
        stack.callback(client.close)
        client.admin.command("ping")
        yield MongoServer(uri, client, is_secantusdb)


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A MongoDB: SecantusDB, unless ``TEST_MONGODB_URI`` names another; ``mongo`` is a database of one's own in it.

    One a module, since SecantusDB opens change streams the more slowly the more its oplog holds.
    """
    with mongo_server(tmp_path_factory) as server:
        yield server


@pytest.fixture
def mongo(mongodb: MongoServer) -> Iterator[Database[Document]]:
    """A database with a name that was never used before; dropped after the test."""
    database = mongodb.client[f"test_{uuid.uuid4().hex[:12]}"]
    yield database
    # SecantusDB takes a second for every 2,000 documents that it drops; its storage goes with the run.
    if not mongodb.is_secantusdb:
        mongodb.client.drop_database(database.name)


@pytest.fixture
def secantusdb(tmp_path: Path) -> Iterator[Callable[..., SecantusDB]]:
    """Starts SecantusDBs of the test's own, which it may kill, stop and start: ``secantusdb(oplog_entries=1000)``."""
    with ExitStack() as stack:

        def start(**options: Any) -> SecantusDB:
            server = SecantusDB(tmp_path / f"secantusdb-{uuid.uuid4().hex[:6]}", **options)
            stack.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A MongoDB that enforces privileges: a SecantusDB, or the one at ``TEST_MONGODB_URI``."""
    uri, server = os.environ.get("TEST_MONGODB_URI", ""), None
    try:
        if not uri:
            server = SecantusDB(tmp_path_factory.mktemp("guarded"))
            server.start()
            with MongoClient[Document](server.uri) as client:
                client.admin.command("createUser", "root", pwd="secret", roles=["root"])
            server.stop()
            server.options = ("--auth",)
            server.start()
            uri = server.uri.replace("mongodb://", "mongodb://root:secret@") + "&authSource=admin"
        with MongoClient[Document](uri) as client:
            made = Guarded(uri, client)
            yield made
            if server is None:
                made.forget()
    finally:
        if server is not None:
            server.kill()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL for the whole run."""
    server = Postgres(tmp_path_factory.mktemp("postgres") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[Callable[[], str]]:
    """Makes new PostgreSQL databases and returns their URLs; dropped after the test."""
    names: list[str] = []

    def create() -> str:
        names.append(f"test_{uuid.uuid4().hex[:12]}")
        return postgres.create_database(names[-1])

    yield create
    for name in names:
        postgres.drop_database(name)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the whole run."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with every migration applied, to be copied."""
    directory = tmp_path_factory.mktemp("migrated")
    path = directory / "migrated.sqlite3"
    Deployment(directory, {"DATABASE_URL": f"sqlite:///{path}"}).manage("migrate", "--verbosity", "0")
    return path


@pytest.fixture
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, mongodb: MongoServer, mongo: Database[Document]
) -> Iterator[DeploymentFactory]:
    """Makes deployments on the test's MongoDB database; ``server()`` and ``watcher()`` of each start processes.

    ``database`` is "sqlite" or "postgres", migrated unless ``migrate`` is False; ``redis`` adds a channel layer
    between processes; ``settings`` are environment variables, such as ``KEEPALIVE_SECONDS="5"``.
    """
    with ExitStack() as stack:

        def create(database: str = "sqlite", redis: bool = False, migrate: bool = True, **settings: str) -> Deployment:
            directory = tmp_path / f"deployment-{uuid.uuid4().hex[:6]}"
            directory.mkdir()
            own = {"MONGODB_URI": mongodb.uri, "MONGODB_DATABASE": mongo.name}
            if redis:
                own["REDIS_URL"] = request.getfixturevalue("redis").url
            if database == "postgres":
                own["DATABASE_URL"] = request.getfixturevalue("postgres_database")()
            else:
                path = directory / "zerosource.sqlite3"
                own["DATABASE_URL"] = f"sqlite:///{path}"
                if migrate:
                    shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
            made = Deployment(directory, {**own, **settings})
            stack.callback(made.close)
            if migrate and database == "postgres":
                made.manage("migrate", "--verbosity", "0")
            return made

        yield create


@pytest.fixture
def zero_cache(tmp_path: Path, postgres_database: Callable[[], str]) -> Iterator[ZeroCacheFactory]:
    """Starts zero-caches, without waiting until they are ready.

    ``zero_cache(server.stream_url, app_id="one", publications=["p"], query_url=..., settings={...})``
    """
    with ExitStack() as stack:

        def start(upstream: str, *, supervised: bool = True, **options: Any) -> ZeroCache:
            directory = tmp_path / f"zero-cache-{uuid.uuid4().hex[:6]}"
            cache = ZeroCache(directory, upstream, postgres_database(), **options)
            stack.callback(cache.replica.close)
            stack.callback(cache.kill)
            cache.start(supervised)
            return cache

        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; ``desk`` opens pages in it."""
    with chromium() as started:
        yield started


@pytest.fixture
def desk(browser: Browser) -> Iterator[Desk]:
    """Opens pages of the admin: ``desk.page(deployment(**ADMIN).server())``; see ``tests.harness.browser``."""
    opened = Desk(browser)
    yield opened
    opened.close()


@pytest.fixture
def query_server(tmp_path: Path) -> Iterator[Callable[[dict[str, object]], QueryServer]]:
    """Starts query endpoints: ``query_server(schema_in(file)).url`` is a zero-cache's ``query_url``."""
    with ExitStack() as stack:

        def start(schema: dict[str, object]) -> QueryServer:
            server = QueryServer(tmp_path, schema)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture
def zero_client(tmp_path: Path) -> Iterator[Callable[..., ZeroClient]]:
    """Starts Zero clients: ``zero_client(cache.url, schema, ["message"])``; see ``ZeroClient`` for the views."""
    with ExitStack() as stack:

        def start(
            cache_url: str, schema: dict[str, object], views: dict[str, QueryArguments] | list[str]
        ) -> ZeroClient:
            client = ZeroClient(tmp_path, cache_url, schema, views)
            stack.callback(client.stop)
            client.start()
            return client

        yield start
