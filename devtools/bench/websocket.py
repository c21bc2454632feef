"""WebSocket frames by hand (RFC 6455), for what must be quicker than what it measures."""

from __future__ import annotations

import base64
import hashlib
import os
import struct

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
FINAL = 0x80
MASKED = 0x80
HEAD_END = b"\r\n\r\n"
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NO_MASK = bytes(4)  # masking with zeros changes nothing


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a frame as a server sends it."""
    return bytes((FINAL | opcode,)) + _length(len(payload), 0) + payload


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a frame as a client sends it."""
    return bytes((FINAL | opcode,)) + _length(len(payload), MASKED) + _NO_MASK + payload


def _length(length: int, mask: int) -> bytes:
    if length < 126:
        return bytes((mask | length,))
    if length < 65536:
        return struct.pack(">BH", mask | 126, length)
    return struct.pack(">BQ", mask | 127, length)


def take_client_frame(buffer: bytearray) -> tuple[int, bytes] | None:
    """Take one whole frame of a client out of the buffer: (opcode, payload); None where it is not all there."""
    if len(buffer) < 2:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length >= 126:
        start += 2 if length == 126 else 8
        length = int.from_bytes(buffer[2:start], "big")
    end = start + 4 + length
    if len(buffer) < end:
        return None
    mask = bytes(buffer[start : start + 4]) * (length // 4 + 1)
    payload = bytes(buffer[start + 4 : end])
    plain = int.from_bytes(payload, "big") ^ int.from_bytes(mask[:length], "big")
    opcode = buffer[0] & 0x0F
    del buffer[:end]
    return opcode, plain.to_bytes(length, "big")


def request(host: str, port: int, target: str) -> bytes:
    """Return the HTTP request that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    return "\r\n".join(lines).encode() + HEAD_END


def accept(head: bytes) -> bytes:
    """Return the HTTP answer to a request that opens a WebSocket; no extension is taken."""
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    key = next(value for name, value in fields.items() if name.lower() == b"sec-websocket-key")
    digest = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest())  # noqa: S324 - as the protocol has it
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + digest]) + HEAD_END
