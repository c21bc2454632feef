"""Documents that the driver cannot decode: what it can is the same, the rest is named."""

from __future__ import annotations

import re
import struct
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, decode, encode
from bson.errors import InvalidBSON

from changesource.mapping.documents import Salvaged
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_document, read_documents

# A binary of subtype 2, whose inner length should be 4 less than the outer one.
ODD = b"\x05odd\0" + struct.pack("<i", 6) + b"\x02" + struct.pack("<i", 9) + b"ab"
EVERY_TYPE: dict[str, Any] = {
    "double": 1.5,
    "string": "é\0x",
    "document": {"a": {"b": []}},
    "array": [1, "two", None],
    "binary": Binary(b"\0\1"),
    "uuid": Binary.from_uuid(uuid.UUID(int=5)),
    "objectId": ObjectId(),
    "true": True,
    "date": datetime(2026, 1, 2, tzinfo=UTC),
    "null": None,
    "regex": Regex("^a.*", "i"),
    "reference": DBRef("c", 1),
    "code": Code("return 1"),
    "scoped": Code("return x", {"x": 1}),
    "int": 7,
    "timestamp": Timestamp(5, 6),
    "long": Int64(2**60),
    "decimal": Decimal128("1.10"),
    "min": MinKey(),
    "max": MaxKey(),
}


def with_odd(document: dict[str, Any]) -> bytes:
    """Encode a document, with the odd field at its end."""
    raw = encode(document)[:-1] + ODD + b"\0"
    return struct.pack("<i", len(raw)) + raw[4:]


def nested(name: str, document: bytes, rest: dict[str, Any]) -> bytes:
    """Encode a document with another one, encoded already, as its first field."""
    raw = b"\x03" + name.encode() + b"\0" + document + encode(rest)[4:]
    return struct.pack("<i", len(raw) + 4) + raw


def test_the_driver_cannot_decode_it() -> None:
    with pytest.raises(InvalidBSON):
        decode(with_odd({"_id": 1}), CODEC_OPTIONS)


def test_all_other_fields_are_had() -> None:
    found = read_document(with_odd(EVERY_TYPE), CODEC_OPTIONS)
    assert isinstance(found, Salvaged)
    assert found.unreadable == ("odd",)
    assert repr(dict(found)) == repr(decode(encode(EVERY_TYPE), CODEC_OPTIONS))


def test_types_that_the_driver_no_longer_writes_are_passed_over() -> None:
    """undefined, a symbol, and a DBPointer; each before the odd one."""
    old = b"\x06u\0" + b"\x0es\0" + struct.pack("<i", 2) + b"x\0"
    old += b"\x0cp\0" + struct.pack("<i", 2) + b"c\0" + bytes(12)
    raw = b"\x10_id\0" + struct.pack("<i", 1) + old + ODD + b"\0"
    found = read_document(struct.pack("<i", len(raw) + 4) + raw, CODEC_OPTIONS)
    assert isinstance(found, Salvaged)
    assert found.unreadable == ("odd",)
    assert (found["_id"], found["u"], found["s"]) == (1, None, "x")


def test_the_document_of_an_event_is_salvaged_within_it() -> None:
    event = nested("fullDocument", with_odd({"_id": "a", "name": "x"}), {"operationType": "insert", "n": 1})
    found = read_document(event, CODEC_OPTIONS)
    assert found["operationType"] == "insert"
    assert found["n"] == 1
    assert isinstance(found["fullDocument"], Salvaged)
    assert found["fullDocument"] == {"_id": "a", "name": "x"}


def test_one_of_many() -> None:
    raw = encode({"_id": 1}) + with_odd({"_id": 2}) + encode({"_id": 3})
    found = read_documents(raw, CODEC_OPTIONS)
    assert found == [{"_id": 1}, {"_id": 2}, {"_id": 3}]
    assert [isinstance(document, Salvaged) for document in found] == [False, True, False]


def test_what_can_be_decoded_is_no_salvage() -> None:
    found = read_document(encode(EVERY_TYPE), CODEC_OPTIONS)
    assert not isinstance(found, Salvaged)
    assert re.search("two", str(found))
