"""What the recording proxy notes of a connection, and that its check of watermarks finds what it is there for."""

from __future__ import annotations

import json

import pytest
from websockets.frames import Frame, Opcode

from tests.harness.proxy import HEAD_END, Recording, check_watermarks

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
