"""Random things of every kind, from a seed: text, JSON, BSON, and bytes that were something valid once."""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from bson import encode
from bson.binary import Binary
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import strategies as st

T = TypeVar("T")
SEEDS = st.integers(0, 2**63 - 1)

TEXTS = (
    "", " ", "a", "_id", "id", "0", "-1", "1e999", "nul\0", "\ud800", "\udfff\ud800", "\ufeff", "é", "日本語", "a.b",
    "🙂",
    "a..b", ".a", "a.", "$", "$a", "$$ROOT", "$$NOW", "__proto__", "constructor", "<script>alert(1)</script>", "%00",
    "%s%n", "{{7*7}}", "../../etc/passwd", "' OR 1=1 --", "\r\nX: y", "a" * 300, "\\u0000", "NaN", "Infinity", "null",
    "true", "65f000000000000000000001", "00000000-0000-0000-0000-000000000000", "2024-02-30", "9" * 400, "\u202e\u2028",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 7, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**30, 10**400, 0.0, -0.0, 1.5,
    1e16, 1e308, -1e308, 5e-324,
)  # fmt: skip


def seeded(make: Callable[[random.Random], T]) -> st.SearchStrategy[T]:
    """What ``make`` makes by chance; an input is told by its seed."""
    return SEEDS.map(lambda number: make(random.Random(number)))


def text(chance: random.Random) -> str:
    """Text of any kind."""
    if chance.random() < 0.6:
        return chance.choice(TEXTS)
    return "".join(
        chr(chance.choice((chance.randrange(32, 127), chance.randrange(0x110000)))) for _ in range(chance.randrange(9))
    )


def plain(chance: random.Random) -> str:
    """Text that can be encoded, without U+0000."""
    return text(chance).encode("utf-8", "replace").decode().replace("\0", "")


def json_value(chance: random.Random, depth: int = 0) -> Any:
    """Any value of JSON."""
    kind = chance.randrange(9 if depth < 5 else 6)
    if kind < 2:
        return text(chance)
    if kind < 4:
        return chance.choice(NUMBERS)
    if kind < 6:
        return chance.choice((None, True, False))
    if kind == 6:
        return [json_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {text(chance): json_value(chance, depth + 1) for _ in range(chance.randrange(4))}


def mutated_json(value: Any, chance: random.Random, *, rate: float = 0.08) -> Any:
    """``value`` with some of its parts replaced, left out, doubled, renamed, or swapped for others of it."""
    if chance.random() < rate:
        return json_value(chance, 2)
    if isinstance(value, dict):
        found = {}
        for name, inner in value.items():
            act = chance.random()
            if act < rate / 2:
                continue
            key = text(chance) if act < rate else name
            found[key] = mutated_json(inner, chance, rate=rate)
        if chance.random() < rate:
            found[text(chance)] = json_value(chance, 2)
        return found
    if isinstance(value, list):
        items = [mutated_json(inner, chance, rate=rate) for inner in value]
        if items and chance.random() < rate:
            items.append(chance.choice(items))
        return items
    return value


def mutated_bytes(raw: bytes, chance: random.Random) -> bytes:
    """``raw`` with some bytes flipped, cut, doubled, inserted, or lengths and types of BSON replaced."""
    found = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(8):
            case 0:
                found[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del found[place : place + chance.choice((1, 4, 40))]
            case 2:
                found[place:place] = found[place : place + chance.choice((1, 8, 64))]
            case 3:
                found[place:place] = chance.randbytes(chance.choice((1, 4, 16)))
            case 4:
                found[place : place + 4] = struct.pack(
                    "<i", chance.choice((0, 1, -1, 4, 5, -(2**31), 2**31 - 1, 2**16))
                )
            case 5:
                found = found[:place]
            case 6:
                found[place : place + 1] = chance.choice(
                    (b"\0", b"\xff", b"\x03", b"\x04", b"\x05", b"\x13", b"\x80", b'"', b"{", b"[")
                )
            case _:
                other = chance.randrange(len(found) + 1)
                found[place : place + 16] = found[other : other + 16]
    return bytes(found)


def of_corpus(corpus: Sequence[T], mutate: Callable[[T, random.Random], T]) -> st.SearchStrategy[T]:
    """An entry of ``corpus``, mutated."""
    return seeded(lambda chance: mutate(chance.choice(corpus), chance))


# BSON.

WIDE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
MOMENTS = (0, 1, -1, 253402300799999, 253402300800000, 2**63 - 1, -(2**63), -62135596800000, -62135596800001, 10**15)
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31 - 1, Int64(2**53), Int64(2**63 - 1), Int64(-(2**63)), 0.0, -0.0, 1.5, 1e308,
    5e-324, float("nan"), float("inf"), float("-inf"), Decimal128("1.50"), Decimal128("NaN"), Decimal128("-Infinity"),
    Decimal128("9.999999999999999999999999999999999E+6144"), Decimal128("1E-6176"), Decimal128("-0"),
    Decimal128("9007199254740993"), datetime(2024, 2, 29, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC),
    ObjectId("0" * 24), ObjectId("f" * 24), b"", b"\0\xff", Binary(b"x", 2), Binary(b"short", 4), Binary(b"y" * 17, 4),
    Binary(uuid.UUID(int=7).bytes, 4), Binary(uuid.UUID(int=7).bytes, 3), Binary(b"z", 255), Regex("a.c", "imsx"),
    Regex("(", ""), Regex("(a+)+$", "l"), Timestamp(0, 0), Timestamp(2**32 - 1, 2**32 - 1), MinKey(), MaxKey(),
    Code("return 1"), Code("x", {"x": 1}), Code("x", {}), DBRef("c", 1), DBRef("c", {"a": [1]}, "d", more=1),
    "\0", "", "x" * 5000, "é🙂", "a\u0000b", "12", "true", "2024-03-01T00:00:00Z", *map(DatetimeMS, MOMENTS),
)  # fmt: skip
FIELDS = (
    "_id",
    "a",
    "b",
    "n",
    "s",
    "when",
    "list",
    "people",
    "deep",
    "x",
    "y",
    "id",
    "age",
    "$ref",
    "$id",
    "a.b",
    "",
    "0",
    "é",
    "$x",
)


def bson_value(chance: random.Random, depth: int = 0) -> Any:
    """Any value of BSON that the driver encodes."""
    kind = chance.randrange(10)
    if depth > 5 or kind < 7:
        return chance.choice(SCALARS) if chance.random() < 0.9 else plain(chance)
    if kind == 7:
        return [bson_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 8 or chance.random() < 0.9:
        return {chance.choice(FIELDS): bson_value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return nested(chance.choice((50, 99, 150)), chance)


def nested(depth: int, chance: random.Random) -> Any:
    """A value within so many documents and arrays."""
    value: Any = chance.choice(SCALARS)
    for _ in range(depth):
        value = [value] if chance.random() < 0.5 else {chance.choice(FIELDS): value}
    return value


def bson_document(chance: random.Random) -> dict[str, Any]:
    """A document as a collection may hold it: most fields that tables show, of any type."""
    document = {name: bson_value(chance) for name in FIELDS if chance.random() < 0.5}
    document.pop("_id", None)
    keys = (ObjectId("5" * 24), "key", 5, Int64(2**60), Binary(uuid.UUID(int=9).bytes, 4), bson_value(chance))
    return {"_id": chance.choice(keys), **document}


def encoded(document: dict[str, Any]) -> bytes:
    """BSON; names with U+0000 cannot be drawn."""
    return encode(document, codec_options=WIDE)
