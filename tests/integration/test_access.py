"""API keys on real servers: who gets a frame, who is refused at the handshake, and what the logs say of it."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import pytest
from pymongo.database import Database
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from devtools.node import PROJECT
from devtools.postgres import Postgres
from devtools.processes import ManagedProcess, ProcessError, free_port, port_answers, wait_until
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS
from tests.harness.deployment import Deployment, Server

ONE, TWO = "environment-key-1", "environment-key-2+="
FRAME_SECONDS = 20.0
KEY = re.compile(r"zs_[A-Za-z0-9_-]{43}")


async def attempt(url: str, *query: tuple[str, str], app_id: str | None = None, **options: Any) -> str | int:
    """Connect as a zero-cache does: the beginning of the first frame, or the status of the refusal.

    Without an ``app_id`` it is one that no other has.
    """
    app_id = f"a{time.monotonic_ns()}" if app_id is None else app_id
    parameters = [("appID", app_id), ("shardNum", "0"), *query]
    # A full queue would keep the server's answer to our closing from being read.
    options["max_queue"] = None
    try:
        async with asyncio.timeout(FRAME_SECONDS), connect(f"{url}?{urlencode(parameters)}", **options) as socket:
            frame = await socket.recv()
            return str(frame)[:8]
    except InvalidStatus as refusal:
        return refusal.response.status_code


def userinfo(url: str, text: str) -> str:
    """The URL with HTTP Basic in it."""
    return url.replace("://", f"://{text}@")


def status_of(url: str) -> tuple[int, str, str]:
    """What a GET answers: status, the header Upgrade, body."""
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status, "", answer.read().decode()
    except HTTPError as error:
        return error.code, error.headers.get("Upgrade", ""), error.read().decode()


def assert_silent(log: str, *keys: str) -> None:
    """No key is in the log, in any form that a client sent."""
    for key in keys:
        for form in (key, urlencode({"": key})[1:]):
            assert form not in log


def prepared(deployment: DeploymentFactory, **settings: str) -> Deployment:
    place = deployment(**{"DEBUG": "0", **settings})
    place.configure(mappings=MAPPINGS)
    return place


async def test_only_a_valid_key_gets_a_frame(deployment: DeploymentFactory) -> None:
    place = prepared(deployment, CHANGE_SOURCE_API_KEYS=f"{ONE}, {TWO}")
    kept = place.manage("createapikey", "kept").strip()
    revoked = place.manage("createapikey", "revoked").strip()
    place.manage("revokeapikey", "revoked")
    assert KEY.fullmatch(kept)
    server = place.server()
    url = server.stream_url
    for key in (ONE, TWO, kept):
        assert await attempt(url, ("apiKey", key)) == '["begin"', key
    assert await attempt(url, ("k", kept)) == '["begin"'
    assert await attempt(userinfo(url, f"anybody:{kept}")) == '["begin"'
    assert await attempt(userinfo(url, f"{kept}:")) == '["begin"'
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("apiKey", "")],
        [("k", "")],
        [("apiKey", "wrong")],
        [("apiKey", revoked)],
        [("apiKey", ONE + TWO)],
        [("apiKey", f"{ONE},{TWO}")],
        [("apiKey", f"{ONE}, {TWO}")],
        [("apiKey", ONE + kept)],
        [("apiKey", f"{ONE} ")],
        [("apiKey", kept[:-1])],
        [("apiKey", ONE), ("apiKey", TWO)],
        [("apiKey", ONE), ("k", kept)],
        [("apiKey", ""), ("apiKey", kept)],
        [("APIKEY", kept)],
    ]
    for query in wrong:
        assert await attempt(url, *query) == 403, query
    for text in (f"{kept}:wrong", ":wrong", f"u:{revoked}", f"u:{ONE}{TWO}"):
        assert await attempt(userinfo(url, text)) == 403, text
    bearer = {"additional_headers": {"Authorization": f"Bearer {kept}"}}
    assert await attempt(url, **bearer) == 403
    log = server.log_text()
    assert log.count("connection refused") == len(wrong) + 5
    for why in (
        "no API key in the request",
        "is empty",
        "key is wrong",
        "is revoked",
        "several API keys",
        "another Auth",
    ):
        assert why in log
    assert_silent(log, ONE, TWO, kept, revoked, kept[:-1])


async def test_a_revoked_key_is_refused_from_then_on_while_others_go_on(deployment: DeploymentFactory) -> None:
    place = prepared(deployment)
    old, new = (place.manage("createapikey", name).strip() for name in ("old", "new"))
    with pytest.raises(ProcessError, match="already"):
        place.manage("createapikey", "old")
    server = place.server()
    assert "shown this once" not in server.log_text()
    for key in (old, new):
        assert await attempt(server.stream_url, ("apiKey", key)) == '["begin"'
    await asyncio.to_thread(place.manage, "revokeapikey", "old")
    assert await attempt(server.stream_url, ("apiKey", old)) == 403
    assert await attempt(server.stream_url, ("apiKey", new)) == '["begin"'
    with pytest.raises(ProcessError, match="no key named 'none'"):
        place.manage("revokeapikey", "none")
    assert_silent(server.log_text(), old, new)


async def test_the_very_first_start_makes_a_key_and_no_later_one_does(deployment: DeploymentFactory) -> None:
    place = prepared(deployment)
    server = place.server()
    [key] = KEY.findall(server.log_text())
    assert await attempt(server.stream_url) == 403
    assert await attempt(server.stream_url, ("apiKey", key)) == '["begin"'
    server.stop()
    server = place.server(port=server.port)  # its log is appended to
    assert await attempt(server.stream_url, ("apiKey", key)) == '["begin"'
    await asyncio.to_thread(place.manage, "revokeapikey", "first")
    server.stop()
    for debug in ("0", "1"):
        server = place.server(port=server.port, DEBUG=debug)
        assert await attempt(server.stream_url, ("apiKey", key)) == 403
        assert await attempt(server.stream_url) == 403
        server.stop()
    assert KEY.findall(server.log_text()) == [key]


async def test_without_keys_and_with_debug_this_machine_alone_is_served(deployment: DeploymentFactory) -> None:
    place = prepared(deployment, DEBUG="1")
    refused = place.server("--host", "0.0.0.0", wait=False)  # noqa: S104
    assert refused.wait(60) == 78
    lines = refused.log_text().strip().splitlines()
    assert lines[-1].startswith("CommandError: ZS101 --host 0.0.0.0 is refused: no API key exists, and DEBUG is on.")
    server = place.server()
    assert await attempt(server.stream_url) == '["begin"'
    assert await attempt(server.stream_url, ("apiKey", "any")) == '["begin"'
    assert listening_addresses(server.port) == {"0100007F"}
    server.stop()
    server = place.server("--host", "0.0.0.0", CHANGE_SOURCE_API_KEYS=ONE)  # noqa: S104
    assert listening_addresses(server.port) == {"00000000"}
    assert await attempt(server.stream_url) == 403
    assert "zs_" not in server.log_text()


def listening_addresses(port: int) -> set[str]:
    """The local addresses, as the kernel writes them, of the sockets that listen on this port."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {fields[1].split(":")[0] for fields in sockets if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"}


async def test_a_foreign_or_null_origin_is_refused_whatever_its_key(deployment: DeploymentFactory) -> None:
    place = prepared(deployment, DEBUG="1", CHANGE_SOURCE_API_KEYS=ONE)
    server = place.server()
    key = ("apiKey", ONE)
    here = f"http://127.0.0.1:{server.port}"
    for origin in ("null", "http://evil.example", f"http://localhost:{server.port}", "http://127.0.0.1"):
        assert await attempt(server.stream_url, key, origin=origin) == 403, origin
    # A name of another site that points here.
    evil = server.stream_url.replace("127.0.0.1", "evil.example")
    pointed = {"host": "127.0.0.1", "port": server.port}
    assert await attempt(evil, key, origin=f"http://evil.example:{server.port}", **pointed) == 403
    assert server.log_text().count("ZS123") >= 5
    assert await attempt(evil, key, **pointed) == '["begin"'
    assert await attempt(server.stream_url, key, origin=here) == '["begin"'
    assert await attempt(server.stream_url, origin=here) == 403
    assert_silent(server.log_text(), ONE)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Any:
    """A PostgreSQL that the test may stop."""
    server = Postgres(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()


async def test_while_the_database_is_away_the_keys_of_the_environment_are_good(
    deployment: DeploymentFactory, own_postgres: Postgres
) -> None:
    own_postgres.create_database("zerosource")
    place = prepared(deployment, DATABASE_URL=own_postgres.url("zerosource"), CHANGE_SOURCE_API_KEYS=ONE)
    kept = place.manage("createapikey", "kept").strip()
    server = place.server()
    key, from_environment = ("apiKey", kept), ("apiKey", ONE)
    assert await attempt(server.stream_url, key) == '["begin"'
    own_postgres.stop()
    assert await attempt(server.stream_url, key) == 403
    server.wait_until(lambda: "ZS124" in server.log_text(), "why, in the log")
    assert await attempt(server.stream_url, from_environment) == '["begin"'
    assert server.answers()
    own_postgres.start()
    assert await attempt(server.stream_url, key) == '["begin"'
    assert_silent(server.log_text(), ONE, kept)


def pages(server_url: str, key: str) -> None:
    """Open pages with a key in their address."""
    query = f"?apiKey={key}&k={key}"
    status, upgrade, body = status_of(f"{server_url}/changes/v0/stream{query}")
    assert (status, upgrade) == (426, "websocket")
    assert body.count("\n") == 1
    assert "ZERO_UPSTREAM_DB" in body
    for path in ("/nothing", "/changes/v0/stream/", "/admin", "/healthz"):
        status_of(f"{server_url}{path}{query}")
    # A question mark that is missing, or encoded, and a key that is the path.
    for slip in ("&apiKey={}", ";apiKey={}", "%3FapiKey={}", "%3FapiKey%3D{}", "/{}", "/admin/{}", "&k={}"):
        status_of(f"{server_url}/changes/v0/stream{slip.format(quote(key))}")
        status_of(f"{server_url}/admin/{slip.format(quote(key))}")
    assert "not found" in status_of(f"{server_url}/nothing{query}")[2].lower()


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_serve_logs_no_key(deployment: DeploymentFactory, log_format: str) -> None:
    place = prepared(deployment, DEBUG="1", LOG_LEVEL="DEBUG", LOG_FORMAT=log_format, CHANGE_SOURCE_API_KEYS=ONE)
    server: Server = place.server()
    await asyncio.to_thread(pages, server.url, ONE)
    assert await attempt(server.stream_url, ("apiKey", ONE)) == '["begin"'
    for slip in ("/", f"/{ONE}", f"&apiKey={ONE}", f"%3FapiKey%3D{ONE}"):
        assert await attempt(server.stream_url + slip, ("apiKey", ONE)) == 403, slip  # no such WebSocket
    assert await attempt(server.stream_url, ("apiKey", ONE), ("appID", "x-y")) == 403
    assert_silent(server.log_text(), ONE)
    assert "no flow control" not in server.log_text()


@pytest.mark.parametrize("verbosity", ["1", "2"])
async def test_plain_daphne_logs_no_key_and_says_once_what_it_cannot_promise(
    deployment: DeploymentFactory, tmp_path: Path, verbosity: str, ending: Callable[[ManagedProcess], ManagedProcess]
) -> None:
    place = prepared(deployment, LOG_LEVEL="DEBUG", CHANGE_SOURCE_API_KEYS=ONE)
    place.manage("reloadmappings")
    port = free_port()
    arguments = ["-m", "daphne", "-v", verbosity, "-p", str(port), "zerosource_project.asgi:application"]
    log = tmp_path / "daphne.log"
    daphne = ending(ManagedProcess([sys.executable, *arguments], log, place.environment, cwd=PROJECT))
    wait_until(lambda: port_answers("127.0.0.1", port), "daphne", 60, detail=daphne.log_tail)
    url = f"ws://127.0.0.1:{port}/changes/v0/stream"
    await asyncio.to_thread(pages, f"http://127.0.0.1:{port}", ONE)
    for _ in range(2):
        assert await attempt(url, ("apiKey", ONE)) == '["begin"'
    assert await attempt(url, ("apiKey", TWO)) == 403
    for slip in ("/", f"/{ONE}", f"&apiKey={ONE}", f"%3FapiKey%3D{ONE}"):
        assert await attempt(url + slip, ("apiKey", ONE)) == 403, slip
    for line in ("WSCONNECTING", '"GET /changes/v0/stream" 426'):
        daphne.wait_until(lambda line=line: line in daphne.log_text(), line)
    assert_silent(daphne.log_text(), ONE, TWO)
    assert daphne.log_text().count("no flow control") == 1


@pytest.fixture
def ending() -> Any:
    """Ends the processes that it was given, when the test is over."""
    started: list[ManagedProcess] = []

    def later(process: ManagedProcess) -> ManagedProcess:
        started.append(process)
        return process

    yield later
    for process in started:
        process.kill()


async def test_metrics_are_for_those_with_a_key(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Documents that do not fit are counted, by table and effect."""
    server = prepared(deployment, CHANGE_SOURCE_API_KEYS=ONE).server()
    await asyncio.to_thread(server.wait_until, lambda: "watching" in server.log_text(), "watching", 20)
    mongo["items"].insert_many([{"_id": "bad", "name": []}, {"_id": "half", "name": "n", "count": "many"}])
    metrics = f"{server.url}/metrics"
    for query, words in (("", "ZS122 There is no API key"), ("?apiKey=wrong", "ZS122 The API key is wrong")):
        status, _, body = await asyncio.to_thread(status_of, metrics + query)
        assert (status, body.startswith(words)) == (401, True), body
    line = re.compile(r'^zerosource_row_errors_total\{effect="(\w+)",table="item"\} [1-9]', re.M)
    found: set[str] = set()
    async with asyncio.timeout(FRAME_SECONDS):
        while found != {"left_out", "nulled"}:
            status, _, body = await asyncio.to_thread(status_of, f"{metrics}?apiKey={ONE}")
            assert status == 200
            found = set(line.findall(body))
    assert_silent(server.log_text(), ONE)
