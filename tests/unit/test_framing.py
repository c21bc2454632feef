"""Frames made by hand are those that a WebSocket library reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from changesource.framing import PIECE_BYTES, pieces


def read(data: bytes) -> list[Frame]:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    found: list[Frame] = []
    while True:
        parsing = Frame.parse(reader.read_exact, mask=False)
        try:
            while True:
                next(parsing)
        except StopIteration as done:
            found.append(done.value)
        except EOFError:
            return found


@pytest.mark.parametrize(
    "sizes", [[0], [1, 125, 126, 127], [65535, 65536, 65537], [300_000, 5, 300_000], [100] * 20_000]
)
def test_each_message_is_one_whole_frame_of_text(sizes: Sequence[int]) -> None:
    frames = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]
    made = list(pieces(frames))
    found = read(b"".join(made))
    assert [frame.data for frame in found] == frames
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in found)
    # A piece ends with the frame that makes it large.
    assert all(len(piece) - max(sizes) <= PIECE_BYTES + 10 * len(sizes) for piece in made)


def test_nothing_makes_nothing() -> None:
    assert list(pieces([])) == []
