"""No secret of a deployment shows anywhere: a real server with passwords everywhere, whose services fail in turn."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from redis import Redis

from devtools.node import PROJECT
from devtools.postgres import Postgres
from devtools.processes import free_port
from devtools.redis import RedisServer
from tests.conftest import DeploymentFactory
from tests.harness.browser import ADMIN
from tests.harness.deployment import MANAGE, Deployment
from tests.harness.privileges import Guarded
from tests.harness.visitor import Visitor

SCHEMA = {"note": {"columns": {"id": {"type": "string"}, "text": {"type": "string"}}, "primaryKey": ["id"]}}
SECRETS = {
    name: f"{name}-S3cret/p@ss w&rd"
    for name in ("mongodb", "redis", "postgres", "schema", "token", "api-key", "signing", "former")
}


def forms(secret: str) -> set[str]:
    """How a secret may be written."""
    written = (quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1])
    return {secret, *written}


def login(secret: str) -> str:
    """User and password as a URL has them."""
    return f"somebody:{quote(SECRETS[secret], safe='')}@"


class Shown:
    """All that anybody was shown, and where."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, where: str, text: str) -> None:
        """Keep it."""
        self.texts.append((where, text))

    def check(self) -> None:
        """Fail where a secret is in it."""
        encoded = {base64.b64encode(f"somebody:{secret}".encode()).decode() for secret in SECRETS.values()}
        wanted = encoded.union(*(forms(secret) for secret in SECRETS.values()), ["S3cret"])
        for where, text in self.texts:
            for secret in wanted:
                at = text.find(secret)
                assert at < 0, (where, text[max(0, at - 300) : at + 60])


def glance(visitor: Visitor) -> dict[str, int]:
    """Open what tells of the services; return the status of each page."""
    table = "/admin/changesource/tablemapping/1/change/"
    pages = ("/admin/", "/admin/overview/", table, "/readyz", "/healthz", "/metrics", "/nothing")
    for parameter in ("apiKey", "k"):
        visitor.get(f"/changes/v0/stream?{parameter}={quote(SECRETS['api-key'])}")
    return {page: visitor.get(page)[0] for page in pages}


class Schemas(BaseHTTPRequestHandler):
    """Gives the schema to whoever has password and token; what it answers else is ``answers``."""

    answers: list[int] = []  # noqa: RUF012 -- set by the test
    asked: list[bool] = []  # noqa: RUF012 -- as above

    def do_GET(self) -> None:
        wanted = base64.b64encode(f"somebody:{SECRETS['schema']}".encode()).decode()
        right = self.headers["Authorization"] == f"Basic {wanted}" and quote(SECRETS["token"], safe="") in self.path
        self.asked.append(right)
        status = self.answers.pop() if self.answers else 200 if right else 401
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:1{self.path}")
        self.end_headers()
        self.wfile.write(json.dumps(SCHEMA if status == 200 else self.path).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def schema_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Schemas)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{login('schema')}127.0.0.1:{server.server_port}/schema?token={quote(SECRETS['token'], safe='')}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    with contextlib.closing(Redis(host="127.0.0.1", port=server.port)) as client:
        client.config_set("requirepass", SECRETS["redis"])
    yield server
    server.kill()


@pytest.fixture
def locked_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """It wants the password of everybody who comes from now on."""
    server = Postgres(tmp_path / "postgres")
    server.start()
    server.create_database("zerosource")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE somebody SUPERUSER LOGIN PASSWORD '{SECRETS['postgres']}'")
        (server.directory / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.kill()


def failing_commands(place: Deployment, ways: dict[str, tuple[dict[str, str], tuple[str, ...]]], shown: Shown) -> None:
    """Run commands under settings that are wrong, two at a time; each must fail, and what it writes is kept."""
    left = list(ways.items())
    while left:
        running: list[tuple[str, subprocess.Popen[str]]] = []
        for name, (settings, command) in [left.pop() for _ in range(min(2, len(left)))]:
            environment = {**place.environment, **settings}
            started = subprocess.Popen(
                [*MANAGE, *command],
                env=environment,
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            running.append((name, started))
        try:
            for name, process in running:
                output, _ = process.communicate(timeout=60)
                assert process.returncode or "WARNING" in output, (name, output)
                shown.add(name, output)
        finally:
            for _, process in running:
                process.kill()
                process.communicate()


def test_no_secret_is_shown(
    deployment: DeploymentFactory,
    guarded: Guarded,
    locked_redis: RedisServer,
    locked_postgres: Postgres,
    schema_url: str,
) -> None:
    shown = Shown()
    host = guarded.uri.partition("@")[2].partition("/")[0]
    mongodb = (
        f"mongodb://{login('mongodb')}{host}/secretive?authSource=admin&retryWrites=false&serverSelectionTimeoutMS=1000"
    )
    guarded.client.admin.command("createUser", "somebody", pwd=SECRETS["mongodb"], roles=["root"])
    guarded.client["secretive"]["note"].insert_one({"_id": "one", "text": "a note"})
    postgres = f"postgresql://{login('postgres')}127.0.0.1:{locked_postgres.port}/zerosource"
    place = deployment(
        **ADMIN,
        migrate=False,
        MONGODB_URI=mongodb,
        MONGODB_DATABASE="secretive",
        REDIS_URL=f"redis://:{quote(SECRETS['redis'], safe='')}@127.0.0.1:{locked_redis.port}/0",
        DATABASE_URL=postgres,
        SECRET_KEY=SECRETS["signing"],
        SECRET_KEY_FALLBACKS=SECRETS["former"],
        CHANGE_SOURCE_API_KEYS=SECRETS["api-key"],
        SCHEMA_URL=schema_url,
        LOG_LEVEL="DEBUG",
    )
    server = place.server()
    assert Schemas.asked[-1], "The schema was not asked for with its password."
    watcher = place.watcher()
    visitor = Visitor(server, shown.add)
    visitor.log_in()
    server.wait_until(lambda: visitor.get("/readyz")[0] == 200, "readiness")
    seen = visitor.walk()
    assert {"/admin/changesource/tablemapping/1/change/", "/admin/live/", "/admin/auth/user/1/change/"} <= seen
    assert set(glance(visitor).values()) == {200, 404}, server.log_tail(40)
    key = base64.b64encode(f"any:{SECRETS['api-key']}".encode()).decode()
    status, text = Visitor(server, shown.add).get("/metrics", Authorization=f"Basic {key}")
    assert status == 200, text
    for pid in server.pids() | watcher.pids():
        shown.add(f"command line of {pid}", (Path("/proc") / str(pid) / "cmdline").read_bytes().decode())

    # Redis takes the password no more, then is gone.
    with contextlib.closing(Redis(host="127.0.0.1", port=locked_redis.port, password=SECRETS["redis"])) as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
    glance(visitor)
    locked_redis.stop()
    glance(visitor)
    server.wait_until(lambda: "layer" in server.log_text(), "a word on the channel layer")

    # The same of MongoDB, whose open connections stay: commands open new ones.
    guarded.client.admin.command("updateUser", "somebody", pwd="another")
    gone = free_port()
    other = f"postgresql://{login('mongodb')}127.0.0.1:{locked_postgres.port}/zerosource"
    check, reload = ("check", "--tag", "changesource"), ("reloadmappings",)
    away = {
        "MONGODB_URI": mongodb.replace(host, f"127.0.0.1:{gone}"),
        "DATABASE_URL": other.replace(str(locked_postgres.port), str(gone)),
        "SCHEMA_URL": re.sub(r":\d+/", f":{gone}/", schema_url),
    }
    unwritten = {
        "MONGODB_URI": mongodb.replace("%40", "@"),
        "DATABASE_URL": f"{postgres}?connect_timeout={quote(SECRETS['postgres'])}",
    }
    ways = {
        "MongoDB refuses": ({}, check),
        "MongoDB is away": ({"MONGODB_URI": away["MONGODB_URI"]}, check),
        "MongoDB's URI is wrong": ({"MONGODB_URI": unwritten["MONGODB_URI"]}, check),
        "MongoDB's SRV record is missing": ({"MONGODB_URI": f"mongodb+srv://{login('mongodb')}a.b.invalid/x"}, check),
        "PostgreSQL refuses": ({"DATABASE_URL": other}, ("listapikeys",)),
        "PostgreSQL is away": ({"DATABASE_URL": away["DATABASE_URL"]}, ("listapikeys",)),
        "PostgreSQL's URL is wrong": ({"DATABASE_URL": unwritten["DATABASE_URL"]}, reload),
        "the schema refuses": ({"SCHEMA_URL": schema_url.replace("schema-S3cret", "schema-S3cret-no")}, reload),
        "the schema is away": ({"SCHEMA_URL": away["SCHEMA_URL"]}, reload),
    }
    failing_commands(place, ways, shown)
    for status in (302, 500):
        Schemas.answers.append(status)
        failing_commands(place, {f"the schema's {status}": ({}, reload)}, shown)

    # The database refuses, then is gone; pages fail.
    locked_postgres.stop()
    assert glance(visitor)["/admin/"] == 500
    server.stop()
    watcher.stop()
    shown.add("log of serve", server.log_text())
    shown.add("log of runwatcher", watcher.log_text())
    for word in ("login", "watching", "Traceback"):
        assert word in server.log_text() + watcher.log_text(), word
    assert len(shown.texts) > 80
    shown.check()


def test_a_planted_secret_is_found() -> None:
    encoded = base64.b64encode(f"somebody:{SECRETS['schema']}".encode()).decode()
    for form in (SECRETS["mongodb"], quote(SECRETS["token"], safe=""), encoded, "S3cret"):
        shown = Shown()
        shown.add("somewhere", f"before {form} after")
        with pytest.raises(AssertionError, match="somewhere"):
            shown.check()
