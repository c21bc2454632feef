"""What the recording proxy notes of a connection and does to it; its check of watermarks finds what it is there for."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.frames import Frame, Opcode

from tests.harness.proxy import (
    HEAD_END,
    Recording,
    RecordingProxy,
    check_finds_a_repeat,
    check_resumes,
    check_watermarks,
)

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket" + HEAD_END


def transaction(watermark: str, rows: int = 1) -> list[str]:
    """Return the frames of one transaction."""
    row = json.dumps(["data", {"tag": "insert", "new": {"id": "x" * 200}}])
    begin = json.dumps(["begin", {"tag": "begin"}, {"commitWatermark": watermark}], separators=(",", ":"))
    commit = json.dumps(["commit", {"tag": "commit"}, {"watermark": watermark}], separators=(",", ":"))
    return [begin, *[row] * rows, commit]


def recorded(frames: list[str], last_watermark: str = "", step: int = 7) -> Recording:
    """Return what is recorded of these frames, which arrive ``step`` bytes at a time."""
    recording = Recording()
    recording.request(f"GET /changes/v0/stream?appID=a&lastWatermark={last_watermark} HTTP/1.1\r\n".encode())
    wire = ANSWER + b"".join(Frame(Opcode.TEXT, frame.encode()).serialize(mask=False) for frame in frames)
    for start in range(0, len(wire), step):
        recording.feed(wire[start : start + step])
    return recording


def test_frames_of_every_length_are_read() -> None:
    """Lengths of one, three and nine bytes; a ping between; a message in two frames."""
    long = json.dumps(["data", {"tag": "insert", "new": {"id": "x" * 70_000}}])
    recording = recorded([*transaction("00", rows=2), long], step=1000)
    assert recording.commits == ["00"]
    assert recording.frames == 5
    recording.feed(Frame(Opcode.PING, b"?").serialize(mask=False))
    first, second = transaction("01")[0].encode(), b""
    second = first[10:]
    recording.feed(Frame(Opcode.TEXT, first[:10], fin=False).serialize(mask=False))
    recording.feed(Frame(Opcode.CONT, second).serialize(mask=False))
    assert recording.transactions[-1] == ("begin", "01")
    assert recording.frames == 6


def test_rising_watermarks_pass() -> None:
    """A rolled back one may come again."""
    frames = transaction("01") + transaction("02")[:-1] + ['["rollback",{"tag":"rollback"}]'] + transaction("02")
    check_watermarks([recorded(frames, "00"), recorded(transaction("03"), "02")])


@pytest.mark.parametrize(
    ("frames", "last"),
    [
        (transaction("01") + transaction("01"), ""),
        (transaction("02") + transaction("01"), ""),
        (transaction("01"), "01"),
        (transaction("01"), "02"),
        (transaction("01")[:-1] + transaction("02"), ""),
        (transaction("01")[:-1] + transaction("02")[-1:], ""),
    ],
)
def test_a_watermark_that_does_not_rise_is_found(frames: list[str], last: str) -> None:
    """Repeated, lower, at or before ``lastWatermark``, within another, or not as it began."""
    with pytest.raises(AssertionError):
        check_watermarks([recorded(frames, last)])


def test_the_check_is_shown_to_find_a_repeat() -> None:
    """Also where the connection ended within a transaction."""
    check_finds_a_repeat([recorded(transaction("01")), recorded(transaction("02") + transaction("03")[:-1], "01")])


def test_connections_that_go_on_from_a_commit_pass() -> None:
    """Of any earlier connection; one that begins anew does so later than all before."""
    first, second = recorded(transaction("01")), recorded(transaction("02") + transaction("03"), "01")
    check_resumes([first, second, recorded([], "02"), recorded(transaction("04")), recorded([], "04")])


@pytest.mark.parametrize(
    "later",
    [
        recorded(transaction("05"), "04"),
        recorded(transaction("05"), "00"),
        recorded(transaction("03")),
        recorded(transaction("02")),
    ],
    ids=["never sent", "from before", "anew with one that was there", "anew with an earlier one"],
)
def test_a_connection_that_goes_on_from_elsewhere_is_found(later: Recording) -> None:
    with pytest.raises(AssertionError):
        check_resumes([recorded(transaction("01")), recorded(transaction("03"), "01"), later])


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    """A server that listens, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


@pytest.fixture
def proxy(upstream: socket.socket) -> Iterator[RecordingProxy]:
    """A proxy before it."""
    with RecordingProxy(upstream.getsockname()[1]) as running:
        yield running


@contextmanager
def request(proxy: RecordingProxy, target: str) -> Iterator[socket.socket]:
    """Connect and send the head of a request."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: here".encode() + HEAD_END)
        yield client


def head_of(server: socket.socket) -> str:
    """Read the head of a request."""
    head = b""
    while HEAD_END not in head:
        head += server.recv(1000)
    return head.decode()


def ended(side: socket.socket) -> bool:
    """Wait until the other side says no more; in time, and with nothing before."""
    with suppress(ConnectionResetError):
        return side.recv(1) == b""
    return True


def test_cut_ends_every_connection_on_both_sides(proxy: RecordingProxy, upstream: socket.socket) -> None:
    """Those that come afterwards are none of its business."""
    with request(proxy, "/?appID=a") as one, upstream.accept()[0] as server_of_one:
        assert "appID=a" in head_of(server_of_one)
        with request(proxy, "/?appID=b") as other, upstream.accept()[0] as server_of_other:
            assert "appID=b" in head_of(server_of_other)
            assert proxy.cut() == 2
            assert all(ended(side) for side in (one, server_of_one, other, server_of_other))
    assert proxy.cut() == 0
    with request(proxy, "/?appID=c") as later, upstream.accept()[0] as server:
        assert "appID=c" in head_of(server)
        server.sendall(ANSWER)
        assert later.recv(1) == ANSWER[:1]


@pytest.mark.parametrize("watermark", ["garbage", "z" * 20_000, "a&b=c d?é#"], ids=["short", "long", "hostile"])
def test_one_watermark_is_rewritten(proxy: RecordingProxy, upstream: socket.socket, watermark: str) -> None:
    """That of the next request that has one; all else in it, and what is recorded, stays as it was."""
    first, later = "/v0/stream?appID=a", "/v0/stream?appID=a&publications=p&publications=q&lastWatermark=01&empty="
    proxy.rewrite(watermark)
    received = []
    for target in (first, later, later):
        with request(proxy, target), upstream.accept()[0] as server:
            received.append(head_of(server))
    assert received[0].startswith(f"GET {first} HTTP/1.1\r\n")
    assert received[2].startswith(f"GET {later} HTTP/1.1\r\n")
    told = Recording()
    told.request(received[1].encode())
    assert told.query == {"appID": ["a"], "publications": ["p", "q"], "lastWatermark": [watermark]}
    assert received[1].endswith("&empty= HTTP/1.1\r\nHost: here\r\n\r\n")
    assert [recording.last_watermark for recording in proxy.connections] == ["", "01", "01"]


def test_a_server_that_is_away_ends_the_connection(proxy: RecordingProxy, upstream: socket.socket) -> None:
    """At once, and nothing is left open."""
    upstream.close()
    with request(proxy, "/?appID=a") as client:
        assert ended(client)
    assert [recording.query for recording in proxy.connections] == [{"appID": ["a"]}]
