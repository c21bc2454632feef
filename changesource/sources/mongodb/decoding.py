"""Decodes what MongoDB sends, field by field where a document as a whole cannot be decoded.

MongoDB stores values that the driver refuses to decode (a binary of subtype 2 whose inner length is wrong). They must
not stop a stream: what can be decoded is, and the rest is named.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from bson import decode, decode_all
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from changesource.mapping.documents import Salvaged

Options = CodecOptions[dict[str, Any]]

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


def read_document(raw: bytes, options: Options) -> dict[str, Any]:
    """Return the document of ``raw``, a ``Salvaged`` one where not all of it can be decoded."""
    try:
        return decode(raw, options)
    except (BSONError, ValueError, OverflowError):
        return _salvaged(raw, options)


def read_documents(raw: bytes, options: Options) -> list[dict[str, Any]]:
    """Return the documents that stand one after the other in ``raw``."""
    try:
        return list(decode_all(raw, options))
    except (BSONError, ValueError, OverflowError):
        return [read_document(part, options) for part in _split(raw)]


def read_reply(reply: RawBSONDocument, options: Options) -> tuple[int, Sequence[dict[str, Any]]]:
    """Return the cursor's id (0 at its end) and the documents of a reply to ``getMore``."""
    try:
        cursor = decode(reply.raw, options)["cursor"]
        return int(cursor["id"]), cursor["nextBatch"]
    except (BSONError, ValueError, OverflowError):
        cursor = reply["cursor"]
        return int(cursor["id"]), [read_document(each.raw, options) for each in cursor["nextBatch"]]


def sizes(raw: bytes) -> list[int]:
    """Return how many bytes each of the documents has that stand one after the other in ``raw``."""
    found: list[int] = []
    start, end = 0, len(raw)
    while start < end:
        (size,) = _INT32(raw, start)
        found.append(size)
        start += size
    return found


def _split(raw: bytes) -> Iterator[bytes]:
    start = 0
    for size in sizes(raw):
        yield raw[start : start + size]
        start += size


def _salvaged(raw: bytes, options: Options) -> Salvaged:
    fields: dict[str, object] = {}
    unreadable: list[str] = []
    for name, kind, element, value in _elements(raw):
        try:
            fields |= decode(struct.pack("<i", len(element) + 5) + element + b"\0", options)
        except (BSONError, ValueError, OverflowError):
            if kind == _DOCUMENT:
                # Of an event's document, the rest can be had as well.
                fields[name] = _salvaged(value, options)
            unreadable.append(name)
    return Salvaged(fields, tuple(unreadable))


def _elements(raw: bytes) -> Iterator[tuple[str, int, bytes, bytes]]:
    """Give each element of a document: its name, its type, all of its bytes, and those of its value."""
    place = 4
    while raw[place]:
        kind, end_of_name = raw[place], raw.index(0, place + 1)
        begin = end_of_name + 1
        end = begin + _size(raw, kind, begin)
        yield raw[place + 1 : end_of_name].decode("utf-8", "replace"), kind, raw[place:end], raw[begin:end]
        place = end


def _size(raw: bytes, kind: int, begin: int) -> int:
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == _REGEX:
        return raw.index(0, raw.index(0, begin) + 1) + 1 - begin
    (length,) = struct.unpack_from("<i", raw, begin)
    if kind in _DOCUMENTS:
        return int(length)
    if kind in _STRINGS:
        return int(length) + 4
    if kind == _BINARY:
        return int(length) + 5
    if kind == _POINTER:
        return int(length) + 4 + 12
    raise ValueError(f"unknown BSON type {kind:#x}")
