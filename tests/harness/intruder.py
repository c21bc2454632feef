"""A stranger with a socket: sends raw bytes to a server, and says what became of the connection."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

SECONDS = 20.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{{more}}\r\n"
)


def handshake(target: str = "/changes/v0/stream?appID=intruder&shardNum=0", *headers: str) -> bytes:
    """The request for a WebSocket, with more headers."""
    return HANDSHAKE.format(target=target, more="".join(f"{line}\r\n" for line in headers)).encode()


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """A WebSocket frame as a client sends it."""
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload  # a mask of zeros changes nothing


@dataclass
class Intruder:
    """One connection. ``status`` is what a request is answered with, 0 where the connection is closed instead."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int, receive_buffer: int = 0) -> Intruder:
        """Open a connection to loopback; ``receive_buffer`` bounds what the kernel takes for a reader that pauses."""
        made = socket.socket()
        made.setblocking(False)
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=made, limit=max(receive_buffer, 2**16)))

    @property
    def sending(self) -> int:
        """How many bytes wait here to be sent."""
        return self.writer.transport.get_write_buffer_size()

    async def send(self, data: bytes) -> None:
        """Send bytes; a connection that is closed by now is no error."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def status(self) -> int:
        """The status of the answer."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(SECONDS):
                head = await self.reader.readuntil(b"\r\n\r\n")
                return int(head.split(b" ", 2)[1])
        return 0

    async def closing_code(self) -> int:
        """Read what comes, up to the frame that closes, and return its code; 0 where there is none."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(SECONDS):
                while True:
                    head, length = await self.reader.readexactly(2)
                    if length >= 126:
                        length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
                    payload = await self.reader.readexactly(length)
                    if head & 0x0F == 8:
                        return int.from_bytes(payload[:2], "big")
        return 0

    async def closed(self) -> bytes:
        """Wait until the server has closed the connection; return all that it sent."""
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                while part := await self.reader.read(2**16):
                    received += part
        return received

    async def close(self) -> None:
        """Close it, whatever waits to be sent."""
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def answer(port: int, data: bytes) -> int:
    """Send a request over a connection of its own; the answer's status, 0 where the connection is closed."""
    intruder = await Intruder.connect(port)
    try:
        await intruder.send(data)
        return await intruder.status()
    finally:
        await intruder.close()


async def answers(port: int, data: bytes) -> list[int]:
    """Send bytes, which may be several requests; the status of each answer until the server closes the connection."""
    intruder = await Intruder.connect(port)
    try:
        await intruder.send(data)
        received = await intruder.closed()
        return [int(part.split(b" ", 1)[0]) for part in received.split(b"HTTP/1.1 ")[1:]]
    finally:
        await intruder.close()
