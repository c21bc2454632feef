"""MongoDB's wire protocol, as far as a server needs it to answer a driver: OP_MSG, and OP_QUERY for the first hello.

https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
MORE_TO_COME = 2
HEADER = struct.Struct("<iiii")
_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_QUERY_REPLY = struct.Struct("<iqii")
_HEAD_OF_MSG = struct.Struct("<iiiiIB")
_prefixes: list[bytes] = []


class Request(NamedTuple):
    """One command; ``silent`` ones want no reply."""

    number: int
    legacy: bool
    silent: bool
    command: dict[str, Any]


def read_request(message: bytes) -> Request:
    """Read a whole message; ``ValueError`` for one that no driver of today sends."""
    _, number, _, operation = HEADER.unpack_from(message)
    if operation == OP_QUERY:
        start = message.index(b"\0", HEADER.size + 4) + 1 + 8
        return Request(number, True, False, bson.decode(message[start:]))
    if operation != OP_MSG:
        raise ValueError(f"operation {operation}")
    flags = _INT32.unpack_from(message, HEADER.size)[0]
    command: dict[str, Any] = {}
    place = HEADER.size + 4
    while place < len(message):
        kind = message[place]
        size = _INT32.unpack_from(message, place + 1)[0]
        section = message[place + 1 : place + 1 + size]
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            name, _, documents = section[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
        place += 1 + size
    return Request(number, False, bool(flags & MORE_TO_COME), command)


def reply(request: Request, *body: bytes) -> bytes:
    """Return the message that answers ``request`` with a document, given as its bytes in pieces."""
    size = sum(map(len, body))
    if request.legacy:
        head = HEADER.pack(HEADER.size + _QUERY_REPLY.size + size, 0, request.number, OP_REPLY)
        return b"".join((head, _QUERY_REPLY.pack(8, 0, 0, 1), *body))
    return b"".join((_HEAD_OF_MSG.pack(_HEAD_OF_MSG.size + size, 0, request.number, OP_MSG, 0, 0), *body))


def elements(fields: dict[str, Any]) -> bytes:
    """Return a document's elements, without its length and its end."""
    return bson.encode(fields)[4:-1]


def document(*parts: bytes) -> bytes:
    """Return the document of these elements."""
    return b"".join((_INT32.pack(sum(map(len, parts)) + 5), *parts, b"\0"))


def cursor_elements(batch: str, documents: Sequence[bytes], cursor: int, namespace: str, more: bytes = b"") -> bytes:
    """Return the elements of a cursor's answer: ``batch`` is firstBatch or nextBatch, ``more`` goes into the cursor.

    Joined from the encoded documents, at the speed of memory.
    """
    count = len(documents)
    while len(_prefixes) < count:
        _prefixes.append(b"\x03%d\0" % len(_prefixes))
    pieces = [b""] * (2 * count)
    pieces[::2] = _prefixes[:count]
    pieces[1::2] = documents
    array = b"".join(pieces)
    name = namespace.encode() + b"\0"
    tail = b"".join((b"\0\x12id\0", _INT64.pack(cursor), b"\x02ns\0", _INT32.pack(len(name)), name, more, b"\0"))
    head = b"\x04" + batch.encode() + b"\0"
    size = 4 + len(head) + 4 + len(array) + len(tail)
    return b"".join(
        (b"\x03cursor\0", _INT32.pack(size), head, _INT32.pack(len(array) + 5), array, tail),
    )
