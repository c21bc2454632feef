"""What bounds whoever connects to ``serve``: how many there are, how long a request may take, how large it may be, and
how fast messages may come.

Plain Daphne takes bodies of any size, waits for a request for as long as a byte comes now and then, and answers pings
faster than they are read.
"""

from __future__ import annotations

import logging
import re
import resource
import socket
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from time import monotonic
from typing import Any, Protocol

from autobahn.websocket.types import ConnectionDeny
from daphne.http_protocol import WebRequest
from daphne.ws_protocol import WebSocketProtocol
from twisted.web.http import HTTPChannel

from changesource.conf import Settings
from changesource.exceptions import (
    ConnectionsExhausted,
    LimitReached,
    MessagesTooMany,
    MessageTooLarge,
    RequestTooLarge,
    RequestTooSlow,
    RequestUnreadable,
    ZerosourceError,
)
from changesource.metrics import CONNECTIONS
from changesource.refusals import refused

logger = logging.getLogger(__name__)
# Of file descriptors so many are kept for MongoDB, the database, Redis, and files.
KEPT_DESCRIPTORS = 200
# Of bodies that are on their way there are, of all connections together, as many bytes as so many of the largest have.
# One gets a file once it has so large a part of that: so there are few files, and not one for each connection.
BODIES = 16
FILES = 64
# How long a connection may stay after a request, and be read no more, as times that which a request may take.
IDLE = 3
# A message counts once, and once more for each so many bytes.
BYTES_A_COUNT = 1024
PONG_SECONDS = 1.0
CLOSE = 8  # a frame's opcode
CLOSING_SECONDS = 5
REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}
METHOD = re.compile(rb"[A-Z]{1,20}")
PATH = re.compile(rb"/[\x21-\x7e]*")
# What has another spelling: a proxy's rules for paths would hold for the plain one alone. Letters, digits and what else
# needs no percent sign have none.
ALIAS = re.compile(
    rb"//|[\\;#]|/\.\.?(?:/|$)|%(?:2[5def]|3[0-9b]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9aef]|[01][0-9a-f])",
    re.IGNORECASE,
)
# Daphne would take it for where the application is mounted, and build the links of pages with it.
NO_HEADERS = (b"daphne-root-path",)
HIGH = re.compile(rb"[\x80-\xff]")


class Channel(Protocol):
    """A connection that may be told to go."""

    def turn_away(self, error: LimitReached) -> None:
        """Answer with the error's status, and close."""


class Doors:
    """The TCP connections of a server, and how much of bodies is on its way over them."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Allow ``most`` connections, and ``most_bytes`` of bodies."""
        self._most = most
        self._most_bytes = most_bytes
        self._open: set[object] = set()
        # Those that have not sent a whole request, which may be anybody's; the longest waiting first.
        self._waiting: dict[object, Channel] = {}
        self._bytes = 0

    def enter(self, transport: object, channel: Channel) -> bool:
        """Let a connection in, in the place of the one that waits longest where all are taken; False: there is none.

        So strangers who send nothing keep nobody out.
        """
        if len(self._open) >= self._most:
            if not self._waiting:
                return False
            longest = next(iter(self._waiting))
            channel_of_longest = self._waiting[longest]
            self.leave(longest)
            channel_of_longest.turn_away(self._exhausted())
        self._open.add(transport)
        self._waiting[transport] = channel
        CONNECTIONS.labels("http").inc()
        return True

    def _exhausted(self) -> ConnectionsExhausted:
        return ConnectionsExhausted(f"{self._most} connections are open, as many as MAX_CONNECTIONS allows.")

    def refuse(self, channel: Channel) -> None:
        """Turn one away for whom there is no place."""
        channel.turn_away(self._exhausted())

    def served(self, transport: object) -> None:
        """The connection's request is whole, and being answered."""
        self._waiting.pop(transport, None)

    def waits(self, transport: object, channel: Channel) -> None:
        """The connection's request was answered, and another one may follow."""
        if transport in self._open:
            self._waiting[transport] = channel

    def leave(self, transport: object) -> None:
        """The connection is closed, or about to be."""
        self._waiting.pop(transport, None)
        if transport in self._open:
            self._open.remove(transport)
            CONNECTIONS.labels("http").dec()

    def hold(self, size: int) -> bool:
        """Take note of so many bytes of a body; False where they are too many for all connections together."""
        self._bytes += size
        return self._bytes <= self._most_bytes

    def drop(self, size: int) -> None:
        """So many bytes of a body are gone."""
        self._bytes -= size


def keep_alive(transport: object) -> None:
    """Have the kernel probe an idle peer: gone after about two minutes without an answer."""
    connection = getattr(transport, "getHandle", lambda: None)()
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def left(transport: object) -> int:
    """How many bytes a Twisted transport holds that the kernel has not taken yet."""
    buffered = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return int(buffered) + int(getattr(transport, "_tempDataLen", 0))


def client_of(transport: object) -> str:
    """The address of the other side, for the log; empty where it has none."""
    peer = getattr(transport, "getPeer", lambda: None)()
    return str(getattr(peer, "host", ""))


class BoundRequest(WebRequest):  # type: ignore[misc]  # the package has no types
    """A request whose body is kept as it is: Django reads it, in a thread.

    Twisted would parse forms as well, which takes seconds of the event loop for one body of 4 MiB.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, parsePOSTFormSubmission=False, **options)

    def gotLength(self, length: int | None) -> None:
        """Make room for the body: in memory, until it is large. Twisted opens a file where no length is said."""
        most = self.channel.limits.max_request_bytes
        self.content = SpooledTemporaryFile(most * BODIES // FILES)


class RequestChannel(HTTPChannel):  # type: ignore[misc]  # the package has no types
    """A connection that has not become a WebSocket: one request after the other, each whole in time and of bounds.

    ``timeOut`` is the time for a request, from its first byte, or from the end of the one before, to its last.
    """

    doors: Doors
    limits: Settings
    abortTimeout = CLOSING_SECONDS
    _began = False
    _answered = False
    _body = 0
    _gone = False
    _abortingCall: Any

    def connectionMade(self) -> None:
        """Take a place."""
        super().connectionMade()
        self.requestFactory = BoundRequest  # the factory has set Daphne's
        keep_alive(self.transport)
        if not self.doors.enter(self.transport, self):
            self.doors.refuse(self)

    def connectionLost(self, reason: Any = None) -> None:
        """Give the place back."""
        self.doors.leave(self.transport)
        self._forget_body()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take a part of a request. No part gives more time, unlike in the class above."""
        if self._gone:
            return
        if not self._began:
            self._began = True
            self.setTimeout(self.timeOut)
        super(HTTPChannel, self).dataReceived(data)

    def timeoutConnection(self) -> None:
        """Turn away whoever did not send a request in time; a connection that has sent one before is just closed."""
        if self._began or not self._answered:
            self.turn_away(RequestTooSlow(f"No whole request came within {self.timeOut:g} seconds (REQUEST_SECONDS)."))
        else:
            self._leave()

    def lineReceived(self, line: bytes) -> None:
        """Take the request line or a header."""
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self._header_too_large()
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line has no end in sight."""
        self._header_too_large()

    def _header_too_large(self) -> None:
        self.turn_away(
            RequestTooLarge(
                f"A request's header has more than {self.totalHeadersSize} bytes (MAX_HEADER_BYTES).", status=431
            )
        )

    def headerReceived(self, line: bytes) -> bool:
        """Take a header; False where the request is refused."""
        if self._gone:
            return False
        name = line.partition(b":")[0].strip().lower()
        if self._receivedHeaderCount >= self.maxHeaders:
            error = RequestTooLarge(f"A request has more than {self.maxHeaders} headers (MAX_HEADERS).", status=431)
            self.turn_away(error)
            return False
        if name in NO_HEADERS or (name.startswith(b"sec-websocket") and HIGH.search(line)):
            self.turn_away(RequestUnreadable("A header has what is not for clients to say."))
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """See what is asked for, and how large the body is said to be, before it is taken."""
        if self._gone:
            return
        path = self._path.partition(b"?")[0]
        if not METHOD.fullmatch(self._command) or not PATH.fullmatch(path) or ALIAS.search(path):
            self.turn_away(RequestUnreadable("The request's target is no plain path, or its method no word."))
            return
        headers = self.requests[-1].requestHeaders
        if len(headers.getRawHeaders(b"Host", [])) > 1:
            self.turn_away(RequestUnreadable("The request has several Hosts."))
            return
        upgrade = headers.hasHeader(b"Upgrade")
        if self.length is not None and self.length > (0 if upgrade else self.limits.max_request_bytes):
            self._body_too_large(self.length)
        elif upgrade and self.length is None:
            self._body_too_large(0)
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """The request is whole: answer it."""
        if self._gone:
            return
        self.doors.served(self.transport)
        super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Take a part of a body, or of what follows a request that is being answered."""
        if self._gone:
            return
        if not self._handlingRequest:
            self._body += len(data)
            fits = self.doors.hold(len(data))
            # Of a chunked one the frame counts too.
            if self._body > self.limits.max_request_bytes and self.length is None:
                self._body_too_large(self._body)
                return
            if not fits:
                self.turn_away(ConnectionsExhausted("Bodies of requests are too many to be taken at once."))
                return
        super().rawDataReceived(data)

    def _body_too_large(self, size: int) -> None:
        most = self.limits.max_request_bytes
        self.turn_away(
            RequestTooLarge(
                f"A request's body has {size} bytes or more, {most} are allowed (MAX_REQUEST_BYTES)."
                if size
                else "A request for a WebSocket has a body."
            )
        )

    def requestDone(self, request: Any) -> None:
        """Wait for the next request, unless it came before this one was answered.

        Nobody sends it so early but who wants many answers to pile up here.
        """
        self._forget_body()
        self._began, self._answered = False, True
        if self._dataBuffer:
            self.persistent = 0
        self.doors.waits(self.transport, self)
        super().requestDone(request)
        if self.persistent:
            self.setTimeout(IDLE * self.timeOut)

    def turn_away(self, error: ZerosourceError) -> None:
        """Answer with the error's status, its code and nothing else, and close."""
        if self._gone:
            return
        refused("connection refused", error, client=client_of(self.transport))
        self._answer(error.status if isinstance(error, LimitReached) else 400, error.code)

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self._gone:
            self.turn_away(RequestUnreadable())

    def _answer(self, status: int, code: str) -> None:
        body = f"{code}\n".encode()
        head = b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % (status, REASONS.get(status, b"Refused"), len(body)) + body)
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self.doors.leave(self.transport)
        self.loseConnection()
        # Whoever does not read the answer is not waited for.
        if self._abortingCall is None and self.abortTimeout is not None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)

    def _forget_body(self) -> None:
        self.doors.drop(self._body)
        self._body = 0


class Pace:
    """How many messages may still come now; read on once there are some again."""

    def __init__(self, per_second: float) -> None:
        """Allow ``per_second``, and as many at once."""
        self._per_second = per_second
        self._left = per_second
        self._at = monotonic()

    def count(self, size: int) -> float:
        """Count a message of ``size`` bytes; return the seconds to wait before the next, 0 while there is room."""
        now = monotonic()
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= 1 + size // BYTES_A_COUNT
        return max(0.0, -self._left / self._per_second)


class MessageSocket(WebSocketProtocol):  # type: ignore[misc]  # the package has no types
    """A WebSocket that takes small messages, and no more of them than its pace allows."""

    doors: Doors
    limits: Settings
    message_data_total_length: int
    call_later: Callable[..., Any]
    _resting: Any = None
    _aborting: Any = None
    _told = False
    _ponged = 0.0

    def connectionMade(self) -> None:
        """Set the pace."""
        super().connectionMade()
        self._entered = self.transport
        self._pace = Pace(self.limits.max_messages_per_second)

    def connectionLost(self, reason: Any) -> None:
        """Give the place back."""
        for call in (self._resting, self._aborting):
            if call is not None and call.active():
                call.cancel()
        self.doors.leave(self._entered)
        super().connectionLost(reason)

    def processHandshake(self) -> None:
        """Take the request; what comes before it is answered is taken for another one by the library."""
        if hasattr(self, "server"):
            self.data = b""
            error = RequestUnreadable("Something was sent before the request for a WebSocket was answered.")
            refused("connection closed", error, client=client_of(self.transport))
            self.transport.abortConnection()
            return
        super().processHandshake()

    def processData(self) -> bool:
        """Take one frame, or a part of one; none while it must rest."""
        return self._resting is None and bool(super().processData())

    def onMessageFrameBegin(self, length: int) -> None:
        """A frame of a message of text or bytes begins."""
        self._count(length)
        size, most = self.message_data_total_length + length, self.limits.max_message_bytes
        if size > most and not self.failedByMe:
            error = MessageTooLarge(f"A message of {size} bytes came, {most} are allowed (MAX_MESSAGE_BYTES).")
            refused("connection closed", error, client=client_of(self.transport))
            self.message_data_total_length = size
            self.frame_data: list[bytes] = []
            self._close(self.CLOSE_STATUS_CODE_MESSAGE_TOO_BIG, error.code)
            return
        super().onMessageFrameBegin(length)

    def onPing(self, payload: bytes) -> None:
        """Answer a ping; while something is not read yet, one a second, so that answers do not pile up."""
        self._count(len(payload))
        now = monotonic()
        if left(self.transport) == 0 or now - self._ponged >= PONG_SECONDS:
            self._ponged = now
            super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        """Take an answer to a ping, or one to none."""
        self._count(len(payload))
        super().onPong(payload)

    def _count(self, size: int) -> None:
        seconds = self._pace.count(size)
        if seconds and self._resting is None:
            self.transport.pauseProducing()
            self._resting = self.call_later(seconds, self._go_on)
            if not self._told:
                self._told = True
                error = MessagesTooMany(
                    f"More than {self.limits.max_messages_per_second} messages a second came (MAX_MESSAGES_PER_SECOND)."
                    " They are read no faster."
                )
                refused("connection slowed down", error, client=client_of(self.transport))

    def _go_on(self) -> None:
        self._resting = None
        self.transport.resumeProducing()
        self.consumeData()

    def _fail_connection(self, code: int = 1002, reason: str = "") -> None:
        """Close with a code, where the library would drop the connection, or read on until that is answered."""
        if self.state == self.STATE_OPEN:
            refused("connection closed", RequestUnreadable(f"{reason}."), client=client_of(self.transport))
            self._close(code, RequestUnreadable.code)

    def _close(self, code: int, reason: str) -> None:
        self.failedByMe = True
        self.wasClean, self.wasNotCleanReason = False, reason
        self.sendFrame(opcode=CLOSE, payload=code.to_bytes(2, "big") + reason.encode())
        self.dropConnection(abort=False)
        # Whoever does not read it is not waited for.
        self._aborting = self.call_later(CLOSING_SECONDS, self.transport.abortConnection)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse what is no handshake of a WebSocket; what the application refused, it has told of itself."""
        if not hasattr(self, "server"):
            refused("connection refused", RequestUnreadable(reason), client=client_of(self.transport))
            reason = REASONS.get(code, b"Refused").decode()
        super().failHandshake(reason, code, responseHeaders)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Pass on what the application says; a refusal may have a status of its own."""
        status = message.get("status")
        if message.get("type") == "websocket.close" and status and self.state == self.STATE_CONNECTING:
            if hasattr(self, "handshake_deferred"):
                deferred = self.handshake_deferred
                del self.handshake_deferred
                deferred.errback(ConnectionDeny(code=status, reason=REASONS.get(status, b"Refused").decode()))
                self.server.protocol_disconnected(self)
            return
        super().handle_reply(message)


def bound(server: Any, chosen: Settings) -> None:
    """Have a Daphne's factories, which it has made, and which have no connection yet, make connections with bounds."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it; daphne.server chose which

    doors = Doors(chosen.max_connections, BODIES * chosen.max_request_bytes)
    channel = {
        "doors": doors,
        "limits": chosen,
        "maxHeaders": chosen.max_headers,
        "totalHeadersSize": chosen.max_header_bytes,
        "MAX_LENGTH": chosen.max_header_bytes,
    }
    server.http_factory.protocol = type("BoundChannel", (RequestChannel,), channel)
    server.http_factory.timeOut = chosen.request_seconds
    socket = {"doors": doors, "limits": chosen, "call_later": staticmethod(reactor.callLater)}
    server.ws_factory.protocol = type("BoundSocket", (MessageSocket,), socket)


def check_descriptors(chosen: Settings) -> None:
    """Warn where the process may open fewer files than MAX_CONNECTIONS needs."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = chosen.max_connections + KEPT_DESCRIPTORS
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        logger.warning(
            "too few file descriptors",
            extra={
                "allowed": allowed,
                "needed": needed,
                "remedy": "Raise the limit (`ulimit -n`, systemd's LimitNOFILE), or lower MAX_CONNECTIONS.",
            },
        )
