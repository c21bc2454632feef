"""Reads JSON from a URL that an operator set, trusting neither what answers nor where it sends us.

By ``http.client`` itself: the name is resolved once, and what is connected to are the addresses that were looked at.
No proxy is used, whatever the environment says: a proxy would resolve the name, and connect, unseen.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from changesource.exceptions import ConfigurationUnavailable

ANSWER_SECONDS: Final = 10.0
"""How long nothing may come."""
WHOLE_SECONDS: Final = 30.0
"""How long all of it may take, redirects included."""
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_REDIRECTS: Final = 5
PORTS: Final = {"http": 80, "https": 443}
OK: Final = 200
UNCHANGED: Final = 304
REDIRECTS: Final = (301, 302, 303, 307, 308)
# Files are often served as plain text; a login page or another error that is answered by 200 is HTML.
CONTENT_TYPES: Final = ("application/json", "text/json", "text/plain", "")

# By what a server says which version it answers with, and how it is asked whether that is still the one.
VALIDATORS: Final = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
MAX_VALIDATOR: Final = 1000  # characters; longer ones are not sent back
# What is younger may change once more without another Last-Modified, which counts seconds; so do some servers' ETags.
SETTLED_SECONDS: Final = 2.0

# Of a URL's path and query; letters of other scripts are written by percent signs, as browsers do.
_AS_WRITTEN: Final = "/%:=&?~+!$,;'@()*[]"

# Where clouds keep credentials for whoever asks from inside: link-local, and those that are elsewhere (AWS by IPv6,
# Azure, Alibaba, Oracle). Other private addresses are allowed: http://app/schema is one.
_REFUSED_V4: Final = tuple(
    map(IPv4Network, ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"))
)
_REFUSED_V6: Final = tuple(map(IPv6Network, ("fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128")))
# IPv6 that ends with the IPv4 address it stands for: mapped, compatible, and the two translations of NAT64.
_LAST_32: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")))


@dataclass(frozen=True)
class Content:
    """What a URL gave; ``conditions`` are the headers that ask whether it still does, as (name, value)."""

    body: bytes
    conditions: tuple[tuple[str, str], ...] = ()


def download(url: str) -> bytes:
    """Return the JSON text at ``url``: at most 8 MiB, within 30 seconds, from its own host alone.

    Raises ``ConfigurationUnavailable``, which shows the URL without user, password and query.
    """
    return fetch(url).body


def fetch(url: str, known: Content | None = None) -> Content:
    """Do ``download``; return ``known`` itself where the server says (304) that nothing has changed since."""
    parts = urlsplit(url)
    login = parts  # a redirect stays on this host, and usually names no user
    deadline = time.monotonic() + WHOLE_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        try:
            found = _ask(parts, login, deadline, known)
        except TimeoutError as exc:
            words = f"within {WHOLE_SECONDS:g} seconds, or sent nothing for {ANSWER_SECONDS:g}"
            raise _failed(parts, f"did not answer {words}") from exc
        except ssl.SSLError as exc:
            words = getattr(exc, "verify_message", "") or exc.reason or type(exc).__name__
            raise _failed(parts, f"cannot be read by TLS: {words}") from exc
        except (OSError, HTTPException, ValueError) as exc:
            # The words of others may quote the URL's query, or what was answered.
            words = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            raise _failed(parts, f"cannot be read: {words}") from exc
        if isinstance(found, Content):
            return found
        parts = _followed(parts, found)
    raise _failed(parts, f"is redirected more than {MAX_REDIRECTS} times")


def bare(url: str) -> str:
    """Return the URL without user, password, query and fragment."""
    return _bare(urlsplit(url))


def _bare(parts: SplitResult) -> str:
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _failed(parts: SplitResult, words: str) -> ConfigurationUnavailable:
    return ConfigurationUnavailable(f"{_bare(parts)} {words}.")


def _followed(parts: SplitResult, location: str) -> SplitResult:
    """Return where a redirect leads: the same host and port, or from http to https by their usual ports."""
    try:
        target = urlsplit(urljoin(urlunsplit(parts), location))
        there, here = _origin(target), _origin(parts)
    except (ValueError, KeyError) as exc:
        raise _failed(parts, "is redirected to what is no URL of http or https") from exc
    upgraded = (here[0], here[2], there[0], there[2]) == ("http", PORTS["http"], "https", PORTS["https"])
    if there[1] != here[1] or (there != here and not upgraded):
        raise _failed(parts, "is redirected to another scheme, host or port, which is not followed")
    return target


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    """The scheme, host and port; ``KeyError`` for another scheme than http and https."""
    usual = PORTS[parts.scheme]
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or usual


def _ask(parts: SplitResult, login: SplitResult, deadline: float, known: Content | None) -> Content | str:
    """Return the content, or the ``Location`` of a redirect."""
    headers = {
        "Accept": "application/json",
        # Nothing is unpacked here, so nothing can grow by it.
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "zerosource",
        **dict(known.conditions if known is not None else ()),
    }
    if login.username is not None:
        pair = f"{unquote(login.username)}:{unquote(login.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    connection = _Connection(parts, deadline)
    try:
        connection.request("GET", quote(target, safe=_AS_WRITTEN), headers=headers)
        with connection.getresponse() as answer:
            if answer.status in REDIRECTS and answer.headers["Location"]:
                return answer.headers["Location"]
            if answer.status == UNCHANGED and known is not None and known.conditions:
                return known
            return Content(_content(parts, answer), _conditions(answer))
    finally:
        connection.release()


def _content(parts: SplitResult, answer: HTTPResponse) -> bytes:
    if answer.status != OK:
        raise _failed(parts, f"answers with the status {answer.status}")
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    if kind not in CONTENT_TYPES and not kind.endswith("+json"):
        raise _failed(parts, f"answers with {kind[:80]!a}, not with JSON")
    if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _failed(parts, "answers with packed content, which was not asked for")
    content = answer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _failed(parts, f"answers with more than {MAX_BYTES} bytes")
    if answer.length:
        raise _failed(parts, "broke off in the middle")
    return content


def _conditions(answer: HTTPResponse) -> tuple[tuple[str, str], ...]:
    """Return what to ask with the next time. A server that gives both is asked by both, and goes by the tag."""
    if _is_just_written(answer):
        return ()
    given = ((condition, answer.headers[name]) for name, condition in VALIDATORS.items())
    return tuple(
        (name, value)
        for name, value in given
        if value and len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable()
    )


def _is_just_written(answer: HTTPResponse) -> bool:
    """Whether the content changed so shortly before it was read, by the server's clock, that it may be half a file."""
    changed, now = answer.headers["Last-Modified"], answer.headers["Date"]
    if not changed:
        return False
    try:
        read = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return (read - parsedate_to_datetime(changed)).total_seconds() < SETTLED_SECONDS
    except (TypeError, ValueError):  # one is no date, or one has a zone and the other none
        return True


class _Connection(HTTPConnection):
    """One request's connection: to addresses that may be asked, and no longer than until the deadline."""

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        scheme, host, port = _origin(parts)
        super().__init__(host, port)
        self.default_port = PORTS[scheme]
        self._parts, self._deadline = parts, deadline
        self._opened: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first address that answers, of those that the name has just now."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [sockaddr for *_, sockaddr in found]
        for address in addresses:
            if is_refused(str(address[0])):
                raise _failed(self._parts, "is at a link-local or metadata address, which is not read")
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(_left(self._deadline))
                opened.connect(address)
                if self._parts.scheme == "https":
                    opened = ssl.create_default_context().wrap_socket(opened, server_hostname=self.host)
            except OSError as exc:
                opened.close()
                failure = exc
                continue
            self._opened, self.sock = opened, _Bounded(opened, self._deadline)
            return
        raise failure

    def release(self) -> None:
        """Close the connection for good."""
        if self._opened is not None:
            self._opened.close()


class _Bounded:
    """What ``http.client`` uses of a socket, with the time of each step bounded by what is left in all.

    A socket's own timeout counts from the last byte: one byte a second would go on for ever.
    """

    def __init__(self, opened: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = opened, deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._socket, self._deadline))

    def close(self) -> None:
        """Do nothing: the answer's content is read after it."""


class _Reader(io.RawIOBase):
    def __init__(self, opened: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = opened, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)


def _left(deadline: float) -> float:
    """The seconds that a step may take; ``TimeoutError`` where there are none left."""
    seconds = min(deadline - time.monotonic(), ANSWER_SECONDS)
    if seconds <= 0:
        raise TimeoutError
    return seconds


def is_refused(address: str) -> bool:
    """Return True for an address that is never read: link-local, or one at which a cloud keeps its metadata."""
    found = ip_address(address)
    if isinstance(found, IPv4Address):
        return any(found in network for network in _REFUSED_V4)
    plain = IPv6Address(int(found))  # without its zone
    if any(plain in network for network in _REFUSED_V6):
        return True
    inner = plain.sixtofour
    if any(plain in network for network in _LAST_32):
        inner = IPv4Address(int(plain) & 0xFFFF_FFFF)
    return inner is not None and is_refused(str(inner))
