"""WebSocket frames for many messages at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# What an application sends ``flow_control``: {"type": SEND_FRAMES, "frames": [the UTF-8 of a text frame, ...]}.
SEND_FRAMES = "zerosource.frames"
PIECE_BYTES = 64 * 1024
# The head of a frame (RFC 6455, section 5.2) that a server sends, with no mask.
FINAL_TEXT, TWO_BYTES_FOLLOW, EIGHT_BYTES_FOLLOW = b"\x81", b"\x7e", b"\x7f"
SHORT, MIDDLING = 126, 1 << 16


def pieces(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Give what goes on the wire for text frames of UTF-8, in pieces of some 64 KiB or of one frame.

    The library would do more for each frame than making it took. Nothing is compressed: Daphne does not negotiate it.
    """
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        length = len(frame)
        if length < SHORT:
            head = FINAL_TEXT + length.to_bytes(1, "big")
        elif length < MIDDLING:
            head = FINAL_TEXT + TWO_BYTES_FOLLOW + length.to_bytes(2, "big")
        else:
            head = FINAL_TEXT + EIGHT_BYTES_FOLLOW + length.to_bytes(8, "big")
        piece += (head, frame)
        size += length
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)
