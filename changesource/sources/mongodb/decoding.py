"""Decodes what MongoDB sends, field by field where a document as a whole cannot be decoded.

MongoDB stores values that the driver refuses to decode (a binary of subtype 2 whose inner length is wrong). They must
not stop a stream: what can be decoded is, and the rest is named.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from bson import decode, decode_all
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError, InvalidBSON
from bson.raw_bson import RawBSONDocument

from changesource.mapping.documents import Salvaged

T = TypeVar("T")
Options = CodecOptions[dict[str, Any]]
# What decoding raises of a value: the driver's own errors, and Python's where a number or the nesting is too much.
UNDECODABLE = (BSONError, ValueError, OverflowError, RecursionError)

# Lenient on purpose: a document that another client wrote must never stop the stream by its encoding.
CODEC_OPTIONS: Options = CodecOptions(
    tz_aware=True,
    # A binary of subtype 4 may have any length: to take it for a UUID is left to the mapping, which cannot fail.
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

# The size of a value by its BSON type (https://bsonspec.org/spec.html), without what says a length itself.
_FIXED = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}
_STRINGS = {0x02, 0x0D, 0x0E}
_DOCUMENTS = {0x03, 0x04, 0x0F}
_BINARY, _REGEX, _POINTER = 0x05, 0x0B, 0x0C
_DOCUMENT = 0x03
_INT32 = struct.Struct("<i").unpack_from
SMALLEST = 5  # bytes of the empty document
DEEPEST = 10  # documents within documents that are looked through for what can be had


def read_document(raw: bytes, options: Options) -> dict[str, Any]:
    """Return the document of ``raw``, a ``Salvaged`` one where not all of it can be decoded.

    ``InvalidBSON`` where its elements cannot be parted.
    """
    try:
        return decode(raw, options)
    except UNDECODABLE:
        return _salvaged(raw, options)


def read_documents(raw: bytes, options: Options) -> list[dict[str, Any]]:
    """Return the documents that stand one after the other in ``raw``; ``InvalidBSON`` where they cannot be parted."""
    try:
        return list(decode_all(raw, options))
    except UNDECODABLE:
        return [read_document(part, options) for part in _split(raw)]


def read_reply(reply: RawBSONDocument, options: Options) -> tuple[int, Sequence[dict[str, Any]]]:
    """Return the cursor's id (0 at its end) and the documents of a reply to ``getMore``.

    ``InvalidBSON`` where it is none.
    """
    try:
        cursor = decode(reply.raw, options)["cursor"]
        return _checked(cursor["id"], cursor["nextBatch"], dict)
    except (*UNDECODABLE, LookupError, TypeError):
        pass
    try:
        cursor = reply["cursor"]
        found, raws = _checked(cursor["id"], cursor["nextBatch"], RawBSONDocument)
    except (*UNDECODABLE, LookupError, TypeError) as error:
        raise InvalidBSON("not a reply to getMore") from error
    return found, [read_document(bytes(each.raw), options) for each in raws]  # a memoryview, where it is nested


def _checked(cursor_id: object, documents: object, kind: type[T]) -> tuple[int, Sequence[T]]:
    """Both, once they are of their types; else ``TypeError``."""
    if not isinstance(cursor_id, int) or not isinstance(documents, list):
        raise TypeError
    if not set(map(type, documents)) <= {kind}:
        raise TypeError
    return int(cursor_id), documents


def sizes(raw: bytes) -> list[int]:
    """Return how many bytes each of the documents has that stand one after the other in ``raw``.

    ``InvalidBSON`` where that cannot be told.
    """
    found: list[int] = []
    start, end = 0, len(raw)
    while start + SMALLEST <= end:
        (size,) = _INT32(raw, start)
        if size < SMALLEST:
            break
        found.append(size)
        start += size
    if start != end:
        raise InvalidBSON("documents cannot be parted")
    return found


def _split(raw: bytes) -> Iterator[bytes]:
    start = 0
    for size in sizes(raw):
        yield raw[start : start + size]
        start += size


def _salvaged(raw: bytes, options: Options, depth: int = 0) -> Salvaged:
    fields: dict[str, object] = {}
    unreadable: list[str] = []
    for name, kind, element, value in _elements(raw):
        try:
            fields |= decode(struct.pack("<i", len(element) + 5) + element + b"\0", options)
        except UNDECODABLE:
            if kind == _DOCUMENT and depth < DEEPEST:
                # Of an event's document, the rest can be had as well.
                fields[name] = _salvaged(value, options, depth + 1)
            unreadable.append(name)
    return Salvaged(fields, tuple(unreadable))


def _elements(raw: bytes) -> Iterator[tuple[str, int, bytes, bytes]]:
    """Give each element of a document: its name, its type, all of its bytes, and those of its value."""
    place = 4
    try:
        while raw[place]:
            kind, end_of_name = raw[place], raw.index(0, place + 1)
            begin = end_of_name + 1
            end = begin + _size(raw, kind, begin)
            if end > len(raw):
                raise InvalidBSON("a value is longer than its document")
            yield raw[place + 1 : end_of_name].decode("utf-8", "replace"), kind, raw[place:end], raw[begin:end]
            place = end
    except (ValueError, IndexError) as error:
        raise InvalidBSON("elements cannot be parted") from error


def _size(raw: bytes, kind: int, begin: int) -> int:
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == _REGEX:
        return raw.index(0, raw.index(0, begin) + 1) + 1 - begin
    length = _length(raw, begin)
    if length < 0:
        raise InvalidBSON("a length is below 0")
    if kind in _DOCUMENTS:
        return length
    if kind in _STRINGS:
        return length + 4
    if kind == _BINARY:
        return length + 5
    if kind == _POINTER:
        return length + 4 + 12
    raise InvalidBSON(f"unknown BSON type {kind:#x}")


def _length(raw: bytes, place: int) -> int:
    if place + 4 > len(raw):
        raise InvalidBSON("a length is cut")
    return int.from_bytes(raw[place : place + 4], "little", signed=True)
