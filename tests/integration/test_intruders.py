"""Strangers with the server's address, and with a key of it: each is refused or slowed down, and harms nobody.

A well-behaved replica follows meanwhile, and gets every change.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database
from websockets.exceptions import ConnectionClosed

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS
from tests.harness.deployment import Deployment, Server
from tests.harness.intruder import Intruder, answer, answers, frame, handshake
from tests.harness.reader import Reader
from tests.harness.viewers import sessions

KEY = "environment-key-of-a-good-length"
STREAM = f"/changes/v0/stream?apiKey={KEY}&shardNum=0&appID="
KIB = 1024
ESTABLISHED = ("01", "08")  # also where the other side has closed its half
SMALL = {
    "DEBUG": "0",
    "CHANGE_SOURCE_API_KEYS": KEY,
    "REQUEST_SECONDS": "2",
    "MAX_MESSAGE_BYTES": str(4 * KIB),
    "MAX_MESSAGES_PER_SECOND": "50",
    "MAX_HEADERS": "20",
    "MAX_HEADER_BYTES": str(8 * KIB),
    "MAX_REQUEST_BYTES": str(64 * KIB),
}


class Scene:
    """A server, and a replica that follows it; ``sees`` asks for one more change of it, and times it."""

    def __init__(self, place: Deployment, server: Server, reader: Reader, mongo: Database[Any]) -> None:
        self.place = place
        self.server = server
        self.port = server.port
        self.reader = reader
        self._mongo = mongo
        self._number = 0
        self._intruders: list[Intruder] = []

    async def intruder(self, receive_buffer: int = 0) -> Intruder:
        """Another connection, closed at the end."""
        self._intruders.append(await Intruder.connect(self.port, receive_buffer))
        return self._intruders[-1]

    async def close(self) -> None:
        """Close all connections of intruders."""
        for intruder in self._intruders:
            await intruder.close()

    async def sees(self, seconds: float = 10.0) -> None:
        """The replica gets a change that is made now within ``seconds``."""
        self._number += 1
        name = f"n-{self._number}"
        await asyncio.to_thread(self._mongo["items"].insert_one, {"_id": name, "name": name})
        async with asyncio.timeout(seconds):
            while (name,) not in self.reader.model.rows("item"):
                await asyncio.sleep(0.02)

    async def logged(self, *words: str) -> None:
        """Wait until all these words are in the log."""
        async with asyncio.timeout(10):
            while not all(word in self.server.log_text() for word in words):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def scene(deployment: DeploymentFactory, mongo: Database[Any], **settings: str) -> AsyncIterator[Scene]:
    """Serve with small limits, with a replica that follows to the end; no traceback and no key is logged."""
    place = deployment(**{**SMALL, **settings})
    place.configure(mappings=MAPPINGS)
    server = place.server()
    reader = Reader(f"{server.stream_url}?apiKey={KEY}", "well_behaved")
    await reader.sync()
    following = asyncio.create_task(reader.follow(lambda: False))
    found = Scene(place, server, reader, mongo)
    try:
        await found.sees()
        yield found
        await found.sees()
        assert not following.done()
    finally:
        await found.close()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    log = server.log_text()
    assert "Traceback" not in log, log
    assert KEY not in log
    # The replica had one connection for its sync, and one since then.
    assert log.count("replica resumes") == 1, log


def connections(port: int) -> list[str]:
    """The connections to this port that its server has not closed, as the kernel lists them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[2] for line in lines if line[1].endswith(f":{port:04X}") and line[3] in ESTABLISHED]


def descriptors(server: Server) -> int:
    """How many files and sockets the server has open."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    """A request that is closed when it is answered."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


SPELLINGS = [
    "/changes%2Fv0%2fstream",
    "/changes/v0/../v0/stream",
    "/changes/./v0/stream",
    "/changes/v0/%2e%2e/v0/stream",
    "//changes/v0/stream",
    "/changes//v0/stream",
    "/changes\\v0\\stream",
    "/changes/v0/stream;a=b",
    "/changes/v0/stream%00",
    "/changes%252fv0/stream",
    "/%63hanges/v0/stream",
    "/changes/v%30/strea%6D",
    "/%61dmin/live/changes",
    "/metadata/%7Eschemas",
    "http://127.0.0.1/changes/v0/stream",
    "ws://evil.example/changes/v0/stream",
    "*",
    "changes/v0/stream",
]


async def test_requests_that_nobody_means_well(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Other spellings of a path, headers without end or in pairs, bodies, foreign Origins: each has its status."""
    query = STREAM.partition("?")[2]
    async with scene(deployment, mongo) as here:

        async def gets(expected: int, data: bytes, why: str = "") -> None:
            assert await answer(here.port, data) == expected, (why, data[:200])

        for target in SPELLINGS:
            await gets(400, handshake(f"{target}?{query}a"), "a WebSocket")
            await gets(400, get(target.replace("changes/v0/stream", "healthz")), "a page")
        for target in (
            "/changes/v0/stream/",
            "/",
            "/changes/v0/other",
            "/admin/live/changes/",
            "/changes/v0/streams",
        ):
            await gets(403, handshake(f"{target}?{query}a"), "another path")
        for target in ("/static/%2e%2e/manage.py", "/static/..%5c..%5cmanage.py", "/static/../../manage.py"):
            await gets(400, get(target))
        await gets(404, get("/static/.../manage.py"))
        await gets(404, get("/static/changesource/"))

        for many in (f"/healthz?{'a' * 9000}", f"/{'a' * 20_000}"):
            await gets(431, get(many), "a long line")
        await gets(431, get("/healthz", *(f"X-{n}: {'a' * 800}" for n in range(15))), "large headers")
        await gets(431, get("/healthz", *(f"X-{n}: a" for n in range(30))), "many headers")
        await gets(431, handshake(f"{STREAM}a", *(f"X-{n}: a" for n in range(30))), "many headers")
        await gets(200, get("/healthz", *(f"X-{n}: a" for n in range(15))), "what is allowed")

        two_lengths = ("Content-Length: 5", "Content-Length: 6")
        await gets(400, get("/admin/login/", *two_lengths, method="POST") + b"abcdef")
        both = ("Content-Length: 5", "Transfer-Encoding: chunked")
        await gets(400, get("/admin/login/", *both, method="POST") + b"0\r\n\r\n")
        await gets(400, get("/admin/login/", *reversed(both), method="POST") + b"0\r\n\r\n")
        for length in ("-1", "+5", "0x5", "5, 5", "5 5"):
            await gets(400, get("/admin/login/", f"Content-Length: {length}", method="POST") + b"abcde")
        await gets(400, get("/admin/login/", "Transfer-Encoding: chunked, identity", method="POST"))
        await gets(400, get("/admin/login/", "Transfer-Encoding: chunked", method="POST") + b"z\r\n")
        await gets(400, get("/admin/login/", "Host: evil.example"), "two Hosts")
        for _ in range(150):
            await gets(400, get("/admin/login/").replace(b"127.0.0.1", b"evil.example"), "another Host")
        assert here.server.log_text().count("django.security.DisallowedHost") == 100
        await gets(400, handshake(f"{STREAM}a", "Host: evil.example"), "two Hosts")
        await gets(400, handshake(f"{STREAM}a", "Bad Header: a"))
        await gets(400, get("/healthz", "Daphne-Root-Path: /evil"))
        await gets(400, handshake(f"{STREAM}a", "Sec-WebSocket-Protocol: \u00e9"))
        await gets(400, handshake(f"{STREAM}a", "Sec-WebSocket-Version: 99"))
        await gets(400, handshake(f"{STREAM}a").replace(b"Sec-WebSocket-Key", b"X"))
        await gets(403, handshake(f"{STREAM}a", "Origin: http://evil.example"), "a foreign Origin")
        await gets(403, handshake(f"{STREAM}a", "Origin: null"), "an Origin of no site")

        for method in ("POST", "PUT"):
            await gets(413, get("/admin/login/", f"Content-Length: {2**40}", method=method), "a large body")
        chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
        await gets(413, get("/admin/login/", "Transfer-Encoding: chunked", method="POST") + chunk * 5, "no end of it")
        await gets(413, handshake(f"{STREAM}a", "Content-Length: 3") + b"abc", "a WebSocket with a body")
        await gets(413, handshake(f"{STREAM}a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n", "the same")
        # A second request in the first one's body, or right behind it, is not answered.
        assert await answers(here.port, get("/healthz", "Content-Length: 0") + get("/healthz")) == [200]
        pipelined = get("/healthz").replace(b"Connection: close\r\n", b"")
        assert await answers(here.port, pipelined * 100) == [200]
        await here.logged("code=ZS138", "code=ZS139", "code=ZS123", "code=ZS120", "client=127.0.0.1")


async def test_those_who_take_their_time(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """A header or a body by the byte, none at all, an answer that nobody reads: all are closed in time."""
    async with scene(deployment, mongo) as here:
        began = time.monotonic()

        async def lasts(first: bytes, drip: bytes, receive_buffer: int = 0) -> tuple[float, bytes]:
            """Send ``first``, then ``drip`` ten times a second; the seconds until it is closed, and what was sent."""
            intruder = await here.intruder(receive_buffer)
            await intruder.send(first)
            closing = asyncio.create_task(intruder.closed())
            while not closing.done():
                if drip:
                    await intruder.send(drip)
                await asyncio.wait([closing], timeout=0.1)
            await intruder.close()
            return time.monotonic() - began, closing.result()

        post = b"POST /admin/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n"
        chunked = b"POST /admin/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        kinds = {
            "nothing": lasts(b"", b""),
            "a request line": lasts(b"GET /", b"a"),
            "headers": lasts(b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
            "a handshake": lasts(handshake(f"{STREAM}slow")[:-2] + b"X-Slow: ", b"a"),
            "a body": lasts(post, b"a"),
            "chunks": lasts(chunked, b"1\r\na\r\n"),
            "a body that stops": lasts(post + b"abc", b""),
        }
        results = dict(zip(kinds, await asyncio.gather(*kinds.values()), strict=True))
        for name, (seconds, received) in results.items():
            assert 1.5 < seconds < 8, (name, seconds)
            assert received.startswith(b"HTTP/1.1 408 "), (name, received[:100])
        await here.logged("code=ZS137")
        assert here.server.log_text().count("code=ZS137") == len(kinds)


async def test_forms_hold_nobody_up(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """A body of many small parts is not parsed beside the replicas, and one of no said length takes no file."""
    async with scene(deployment, mongo, MAX_REQUEST_BYTES=str(4 * KIB * KIB)) as here:
        for kind, part in (
            ("multipart/form-data; boundary=b", b"--b\r\n\r\n"),
            ("application/x-www-form-urlencoded", b"&"),
        ):
            body = part * (4 * KIB * KIB // len(part))
            head = get("/admin/login/", f"Content-Type: {kind}", f"Content-Length: {len(body)}", method="POST")
            intruder = await here.intruder()
            await intruder.send(head + body[:-1])
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await intruder.send(body[-1:])
            assert await answer(here.port, get("/healthz")) == 200
            assert time.monotonic() - began < 1, kind
            assert await intruder.status() == 403
        chunked = get("/admin/login/", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n"
        before = descriptors(here.server)
        for _ in range(50):
            await (await here.intruder()).send(chunked)
        await asyncio.sleep(0.5)
        assert descriptors(here.server) - before < 60


async def test_frames_that_nobody_means_well(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """With a key: large messages, in one frame or in many, broken ones, and more of them than anybody reads."""
    async with scene(deployment, mongo) as here:

        async def opened(name: str, receive_buffer: int = 0) -> Intruder:
            intruder = await here.intruder(receive_buffer)
            await intruder.send(handshake(STREAM + name, "Sec-WebSocket-Extensions: permessage-deflate"))
            head = await intruder.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"permessage-deflate" not in head
            return intruder

        huge = bytes([0x81, 0x80 | 127]) + (2**62).to_bytes(8, "big") + bytes(4)
        for name, data, code in (
            ("large", frame(b"a" * (4 * KIB + 1)), 1009),
            ("said_to_be_huge", huge, 1009),
            ("fragments", frame(b"a" * KIB, final=False) + frame(b"a" * KIB, 0, final=False) * 4, 1009),
            ("unmasked", frame(b"a", masked=False), 1002),
            ("compressed", frame(b"a", reserved=4), 1002),
            ("reserved", frame(b"a", 3), 1002),
            ("no_text", frame(b"\xff\xfe"), 1007),
            ("long_ping", frame(b"a" * 126, 9), 1002),
        ):
            intruder = await opened(name)
            await intruder.send(data)
            assert await intruder.closing_code() == code, name
            await intruder.close()
        await here.logged("code=ZS135", "MAX_MESSAGE_BYTES")
        # What is allowed, and means nothing, harms nobody.
        intruder = await opened("allowed")
        for data in (
            b"",
            b"[]",
            b'["status"]',
            b'["status",{},{"watermark":"' + b"f" * 4000 + b'"}]',
            b"{}",
            b"[" * 4000,
        ):
            await intruder.send(frame(data) + frame(data, 2))
        await intruder.send(frame(b"", 8))
        assert await intruder.closing_code() in (1000, 0)

        floods = {
            "acks": frame(b'["status",{},{"watermark":"x"}]'),
            "empty": frame(b""),
            "pings": frame(b"a" * 125, 9),
            "pongs": frame(b"a" * 125, 10),
            "pieces": frame(b"", 0, final=False),
        }
        intruders, before = [], here.server.log_text().count("code=ZS136")
        for name, data in floods.items():
            intruder = await opened(name, 4 * KIB)
            if name == "pieces":
                await intruder.send(frame(b"", final=False))
            # More than the kernel takes for a server that does not read it; none of these reads anything.
            intruder.writer.write(data * (16 * KIB * KIB // len(data)))
            intruders.append(intruder)
        for _ in range(5):
            await here.sees(3)
        await here.logged("connection slowed down", "code=ZS136")
        for intruder in intruders:
            assert intruder.sending > 0, "it was all taken"
            await intruder.close()
        assert here.server.log_text().count("code=ZS136") - before == len(floods)


async def test_more_of_them_than_there_is_room_for(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Those who send nothing go first; a key, live pages and replicas have bounds of their own."""
    limits = {
        "MAX_CONNECTIONS": "20",
        "MAX_CONNECTIONS_PER_KEY": "3",
        "MAX_REPLICAS": "5",
        "REQUEST_SECONDS": "60",
    }
    async with scene(deployment, mongo, **limits) as here:
        silent = [await here.intruder() for _ in range(60)]
        for intruder in silent:
            await intruder.send(b"GET / HTT")
        # Nobody else is kept out.
        for _ in range(3):
            assert await answer(here.port, get("/healthz")) == 200
        await here.sees(3)
        assert (await silent[0].closed()).startswith(b"HTTP/1.1 503 ")
        await here.logged("code=ZS131")
        for intruder in silent:
            await intruder.close()

        async def opens(app_id: str) -> tuple[int, Intruder]:
            intruder = await here.intruder()
            await intruder.send(handshake(STREAM + app_id))
            return await intruder.status(), intruder

        held = [await opens("greedy") for _ in range(5)]
        assert [status for status, _ in held] == [101, 101, 101, 429, 429]
        await here.logged("code=ZS132")
        assert (await opens("well_behaved"))[0] == 101, "a known replica with another app id"
        others = [await opens(f"new_{n}") for n in range(5)]
        assert [status for status, _ in others] == [101, 101, 101, 429, 429]
        await here.logged("code=ZS134")
        # A place that is given back may be taken again, by one who is known.
        for _, intruder in held:
            await intruder.close()
        async with asyncio.timeout(10):
            while (await opens("greedy"))[0] != 101:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("kept", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_server_ends_in_order_whoever_is_connected(
    deployment: DeploymentFactory, mongo: Database[Any], kept: bool
) -> None:
    """Half a request, or none, keeps nothing from being ended: what became of a replica is noted."""
    place = deployment(**SMALL)
    place.configure(mappings=MAPPINGS)
    server = place.server()
    reader = Reader(f"{server.stream_url}?apiKey={KEY}", "well_behaved")
    await reader.sync()
    following = asyncio.create_task(reader.follow(lambda: False))
    async with asyncio.timeout(20):
        while "replica resumes" not in server.log_text():
            await asyncio.sleep(0.1)
    intruder = await Intruder.connect(server.port)
    await intruder.send(get("/healthz").replace(b"close", b"keep-alive") if kept else b"GET / HTT")
    if kept:
        assert await intruder.status() == 200
    assert await asyncio.to_thread(server.stop) == 0
    with pytest.raises(ConnectionClosed):
        await following
    await intruder.close()
    assert "Traceback" not in server.log_text()
    with sqlite3.connect(place.environment["DATABASE_URL"].removeprefix("sqlite:///")) as database:
        assert database.execute("SELECT state FROM changesource_watermark WHERE app_id <> ''").fetchall() == [
            ("disconnected",)
        ]


@pytest.mark.slow
async def test_pages_take_turns_and_nobody_waits_for_those_who_read_none(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """As many slow readers as there are turns hold up no page, and are closed in the end."""
    limits = {"MAX_REQUESTS": "2", "REQUEST_SECONDS": "1"}
    async with scene(deployment, mongo, **limits) as here:
        slow = [await here.intruder(KIB) for _ in range(6)]
        for intruder in slow:
            await intruder.send(get("/static/unfold/css/styles.css").replace(b"close", b"keep-alive"))
        assert await answer(here.port, get("/admin/login/")) == 200
        many = [answer(here.port, get("/admin/login/")) for _ in range(20)]
        assert await asyncio.gather(*many) == [200] * 20
        async with asyncio.timeout(20):
            while len(connections(here.port)) > 1:
                await asyncio.sleep(0.1)


async def test_a_request_for_a_websocket_is_the_last(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """What is sent before it is answered is no second one."""
    async with scene(deployment, mongo) as here:
        wrong = handshake(f"/changes/v0/stream?appID=a&shardNum=0&apiKey={'x' * 20}")
        statuses = set()
        for attempt in range(60):
            intruder = await here.intruder()
            await intruder.send(wrong)
            await asyncio.sleep(attempt % 6 / 2000)
            await intruder.send(handshake("/changes/v0/stream", "Daphne-Root-Path: /evil"))
            statuses.add(await intruder.status())
        assert statuses == {0, 403}
        await here.logged("before the request for a WebSocket was answered")


@pytest.mark.slow
async def test_strangers_keep_no_replica_out(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """More than there are places for ask for pages, or try keys, again and again; a replica is let in."""
    login = get("/admin/login/").replace(b"close", b"keep-alive")
    key = handshake(f"/changes/v0/stream?appID=a&shardNum=0&apiKey={'x' * 20}")
    async with scene(deployment, mongo, MAX_CONNECTIONS="100") as here:

        async def again_and_again(data: bytes, enough: asyncio.Event) -> None:
            while not enough.is_set():
                await answer(here.port, data)

        for data in (login, key):
            enough = asyncio.Event()
            crowd = [asyncio.create_task(again_and_again(data, enough)) for _ in range(150)]
            await asyncio.sleep(2)
            tries = 0
            while await answer(here.port, handshake(f"{STREAM}well_behaved_too")) != 101 and tries < 5:
                tries += 1
            enough.set()
            await asyncio.gather(*crowd)
            assert tries < 5


async def test_live_pages_have_a_bound_and_all_refusals_are_counted(
    deployment: DeploymentFactory, mongo: Database[Any]
) -> None:
    """A page more than that is refused; the metrics tell how many of what were."""
    async with scene(deployment, mongo, MAX_LIVE_PAGES="2") as here:
        cookie = f"Cookie: sessionid={(await asyncio.to_thread(sessions, here.place))['viewer']}"
        origin = "Origin: http://127.0.0.1"
        pages = [await here.intruder() for _ in range(3)]
        for page in pages:
            await page.send(handshake("/admin/live/changes", cookie, origin))
        assert [await page.status() for page in pages] == [101, 101, 429]
        await pages[0].close()
        async with asyncio.timeout(10):
            while True:
                page = await here.intruder()
                await page.send(handshake("/admin/live/changes", cookie, origin))
                if await page.status() == 101:
                    break
        assert await answer(here.port, get("/../x")) == 400
        basic = base64.b64encode(f":{KEY}".encode()).decode()
        metrics = await here.intruder()
        await metrics.send(get("/metrics", f"Authorization: Basic {basic}"))
        text = (await metrics.closed()).decode()
        assert 'zerosource_refusals_total{code="ZS133"} ' in text
        assert 'zerosource_refusals_total{code="ZS139"} 1.0' in text
        assert 'zerosource_refusals_total{code="ZS132"} 0.0' in text
        assert 'zerosource_connections{kind="live_page"} 2.0' in text
        assert 'zerosource_connections{kind="replica"} 1.0' in text


async def test_bodies_of_all_together_have_a_bound(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Each is allowed, but not so many that are never whole."""
    async with scene(deployment, mongo, REQUEST_SECONDS="60") as here:
        size = 64 * KIB
        body = get("/admin/login/", f"Content-Length: {size}", method="POST") + b"a" * (size - 1)
        crowd = [await here.intruder() for _ in range(20)]
        for intruder in crowd:
            await intruder.send(body)
        refused = [asyncio.create_task(intruder.closed()) for intruder in crowd]
        await here.logged("Bodies of requests are too many")
        done, _ = await asyncio.wait(refused, timeout=1)
        assert 4 <= len(done) < 20
        assert {task.result()[:13] for task in done} == {b"HTTP/1.1 503 "}
        await here.close()
        await asyncio.gather(*refused)
        # What they held is free again.
        whole = get("/admin/login/", f"Content-Length: {size}", method="POST") + b"a" * size
        assert await answer(here.port, whole) == 403, "no CSRF token"
