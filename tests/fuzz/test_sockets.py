"""Raw bytes to a running server's port: it refuses them, logs no traceback, and goes on serving a replica."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import DeploymentFactory
from tests.fuzz.drawing import mutated_bytes
from tests.fuzz.wire import ACKS, HEADER_VALUES, QUERIES
from tests.harness.app import WITHOUT_HISTORY, fill, last_write
from tests.harness.deployment import Server
from tests.harness.reader import Reader

QUICK, FULL = 80, 1500
PATHS = (
    "/changes/v0/stream",
    "/admin/live/changes",
    "/",
    "/admin/",
    "/metrics",
    "/metadata/schemas",
    "/metadata/status",
    "/%00",
    "/..%2f..%2fetc",
)
VERBS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"\0", b"get")


def _head(chance: random.Random, *, upgrade: bool) -> bytes:
    """The head of a request, mostly of a WebSocket's."""
    path = chance.choice(PATHS).encode() + b"?" + chance.choice(QUERIES)
    lines = [chance.choice(VERBS[:1] if upgrade else VERBS) + b" " + path + b" HTTP/1.1", b"Host: localhost"]
    if upgrade:
        key = base64.b64encode(chance.randbytes(16))
        lines += [
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + key,
        ]
    for name in (b"Authorization", b"Origin", b"Cookie", b"Content-Length", b"Transfer-Encoding", b"Range"):
        if chance.random() < 0.2:
            lines.append(name + b": " + chance.choice((*HEADER_VALUES, b"99999999999", b"-1", b"chunked", b"bytes=0-")))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _frame(chance: random.Random) -> bytes:
    """A WebSocket frame as a client masks it, or one that breaks the rules."""
    payload = chance.choice(ACKS[:3]).encode() if chance.random() < 0.5 else chance.randbytes(chance.randrange(200))
    mask = chance.randbytes(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    length = len(payload)
    first = bytes([chance.choice((0x81, 0x81, 0x82, 0x80, 0x01, 0x88, 0x89, 0x8A, 0x83, 0xF1))])
    if chance.random() < 0.1:
        return first + b"\xff" + struct.pack(">Q", chance.choice((2**63, 2**62, 2**31))) + mask
    sized = bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack(">H", length)
    whole = first + sized + mask + masked
    return mutated_bytes(whole, chance) if chance.random() < 0.3 else whole


def payloads(count: int) -> Iterator[bytes]:
    """What is sent on each connection."""
    for number in range(count):
        chance = random.Random(number)
        match number % 4:
            case 0:
                yield mutated_bytes(_head(chance, upgrade=chance.random() < 0.5), chance)
            case 1:
                yield _head(chance, upgrade=False) + chance.randbytes(50)
            case 2:
                good = b"GET /changes/v0/stream?appID=fuzz&shardNum=0 HTTP/1.1\r\n"
                yield (
                    good
                    + _head(chance, upgrade=True).partition(b"\r\n")[2]
                    + b"".join(_frame(chance) for _ in range(5))
                )
            case _:
                yield chance.randbytes(chance.randrange(1, 400))


def send(port: int, payload: bytes) -> bytes:
    """Send it on a connection of its own, which half of the time is cut; return the first of what is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, suppress(OSError):
        connection.sendall(payload)
        if len(payload) % 2:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.05)
        return connection.recv(4096)
    return b""


def attack(port: int, count: int) -> int:
    """Send so many payloads, none of which may break the server; return how many were sent."""
    sent = 0
    for payload in payloads(count):
        answer = send(port, payload)
        assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502")), payload[:200]
        sent += 1
    return sent


def hold_log(log: str) -> None:
    """The server's log has no traceback."""
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


def _served(deployment: DeploymentFactory, mongo: Database[Any]) -> Server:
    fill(mongo, 5, others=5)
    place = deployment(POST_IMAGES="off")
    place.configure(mappings=WITHOUT_HISTORY)
    return place.server()


async def _check(deployment: DeploymentFactory, mongo: Database[Any], count: int) -> None:
    server = await asyncio.to_thread(_served, deployment, mongo)
    reader = Reader(server.stream_url)
    await reader.sync()
    assert await asyncio.to_thread(attack, server.port, count) == count
    key = await asyncio.to_thread(last_write, mongo, "note")
    async with asyncio.timeout(30):
        await reader.follow(lambda: key in reader.model.rows("note"))
    assert server.answers()
    hold_log(server.log_text())


async def test_some(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    await _check(deployment, mongo, QUICK)


@pytest.mark.slow
async def test_many(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    await _check(deployment, mongo, FULL)


def test_a_planted_fault_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def fail() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(100)
                        connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")

        threading.Thread(target=fail, daemon=True).start()
        with pytest.raises(AssertionError):
            attack(listening.getsockname()[1], 20)
        listening.shutdown(socket.SHUT_RDWR)
    with pytest.raises(AssertionError, match="KeyError"):
        hold_log("watching\nTraceback (most recent call last):\nKeyError")


async def test_a_host_that_is_none(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    server = await asyncio.to_thread(_served, deployment, mongo)
    for host in (b"local\xff", b"elsewhere.example", b"a b", b"[::1"):
        await asyncio.to_thread(send, server.port, b"GET /admin/ HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    server.wait_until(lambda: "DisallowedHost" in server.log_text(), "the refusals", 10)
    hold_log(server.log_text())


def test_a_cookie_that_no_database_can_keep(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """Python's own cookies may hold U+0000, written as an octal escape; PostgreSQL refuses to look for it."""
    server = deployment(database="postgres").server()
    for path in ("/metrics", "/admin/", "/admin/login/", "/admin/live/changes"):
        head = f'GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid="\\000aaaaaaaaaaaa"\r\n'
        if path.endswith("changes"):
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            head += f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(f"{head}\r\n".encode())
            answer = connection.recv(100)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 302", b"HTTP/1.1 401", b"HTTP/1.1 403")), (path, answer)
    hold_log(server.log_text())
