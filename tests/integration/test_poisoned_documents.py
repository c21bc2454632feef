"""A document with a value of every kind, in the snapshot and in mid-stream: the rest is exact, and errors are listed.

Documents are decoded from BSON as it may be stored, also such as no driver writes.
"""

from __future__ import annotations

import asyncio
import struct
import uuid
from typing import Any

import bson
import pytest
from bson.binary import Binary
from bson.code import Code
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import ColumnSpec, Json, Specification, TableSpec
from changesource.models import RowError
from changesource.services.subscriber import Subscriber
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_document
from changesource.sources.scripted import ScriptedSource
from tests.harness.link import Replica

pytestmark = pytest.mark.django_db(transaction=True)


def stored(kind: int, content: bytes) -> bytes:
    """The BSON of ``{_id: 0, v: VALUE, list: [{v: VALUE}]}`` for a value of a type and these bytes."""
    element = bytes([kind]) + b"v\0" + content
    inner = struct.pack("<i", len(element) + 5) + element + b"\0"
    array = struct.pack("<i", len(inner) + 8) + b"\x030\0" + inner + b"\0"
    body = b"\x10_id\0" + struct.pack("<i", 0) + element + b"\x04list\0" + array
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"d": value} if level % 2 else [value]
    return value


VALUES: dict[str, Any] = {
    "null": None,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "minus zero": -0.0,
    "beyond 2^53": Int64(2**53),
    "int64": Int64(2**63 - 1),
    "decimal": Decimal128("1E-6176"),
    "decimal beyond": Decimal128("9E+6144"),
    "decimal nan": Decimal128("sNaN"),
    "uuid": Binary(uuid.UUID(int=5).bytes, 4),
    "old uuid": Binary(uuid.UUID(int=5).bytes, 3),
    "regex": Regex("a\\/b", "imsx"),
    "code": Code("f()"),
    "code with scope": Code("f()", {"x": 1}),
    "timestamp": Timestamp(2**32 - 1, 2**32 - 1),
    "min": MinKey(),
    "max": MaxKey(),
    "dbref": DBRef("c", ObjectId(), "d", more=1),
    "nul": "a\0b",
    "names": {"a.b": 1, "$c": 2, "": 3, "__proto__": 4},
    "100 levels": nested(100),
    "190 levels": nested(190),
    "a megabyte": "x" * 1_000_000,
    **{f"binary {subtype}": Binary(b"\1\2", subtype) for subtype in (0, 1, 2, 4, 5, 6, 7, 8, 9, 128, 255)},
}
STORED: dict[str, bytes] = {
    **{name: bson.encode({"_id": 0, "v": value, "list": [{"v": value}]}) for name, value in VALUES.items()},
    "undefined": stored(0x06, b""),
    "symbol": stored(0x0E, struct.pack("<i", 4) + b"sym\0"),
    "pointer": stored(0x0C, struct.pack("<i", 2) + b"c\0" + ObjectId().binary),
    "invalid UTF-8": stored(0x02, struct.pack("<i", 4) + b"a\xff\xc3\0"),
    "surrogate": stored(0x02, struct.pack("<i", 4) + b"\xed\xa0\x80\0"),
    "date before 1": stored(0x09, struct.pack("<q", -(2**62))),
    "date after 9999": stored(0x09, struct.pack("<q", 2**62)),
    "wrong inner length": stored(0x05, struct.pack("<i", 6) + b"\2" + struct.pack("<i", 9) + b"\1\2"),
}


def columns(source: str) -> tuple[ColumnSpec, ...]:
    """Columns of each type, and some that compute."""
    expressions: dict[str, Json] = {
        "kind": {"$type": source},
        "text": {"$toString": source},
        "shout": {"$toUpper": source},
        "sum": {"$add": [source, 1]},
        "size": {"$size": source},
        "year": {"$year": source},
        "fields": {"$objectToArray": source},
        "same": {"$eq": [source, source]},
    }
    return (
        ColumnSpec("string", "string", source[1:], optional=True),
        ColumnSpec("number", "number", source[1:], optional=True),
        ColumnSpec("flag", "boolean", source[1:], optional=True),
        ColumnSpec("json", "json", source[1:], optional=True),
        *(ColumnSpec(name, "json", expression=one, optional=True) for name, one in expressions.items()),
    )


ID = ColumnSpec("id", "string", "_id")
TABLES = (
    TableSpec("plain", "things", (ID, *columns("$v")), ("id",)),
    TableSpec("strict", "things", (ID, ColumnSpec("number", "number", "v")), ("id",), error_policy="skip"),
    TableSpec(
        "each", "things", (ID, ColumnSpec("at", "number", "at"), *columns("$list.v")), ("id", "at"),
        pipeline=({"$unwind": {"path": "$list", "includeArrayIndex": "at"}},),
    ),
    TableSpec(
        "found", "things", (ID,), ("id",),
        filter={"$or": [{"v": {"$regex": "a"}}, {"v": {"$gt": 0}}, {"list.v": {"$type": "binData"}}, {"_id": "good"}]},
    ),
)  # fmt: skip


def document(name: str, when: str) -> dict[str, Any]:
    found = read_document(STORED[name], CODEC_OPTIONS)
    found["_id"] = f"{when} {name}"
    return found


async def test_every_kind_of_value() -> None:
    source = ScriptedSource()
    for name in STORED:
        source.insert("things", document(name, "old"))
    source.insert("things", {"_id": "good", "v": 1, "list": [{"v": 1}, {"v": 2}]})
    mapping = CompiledMapping.compile(Specification(TABLES), "app")
    replica = Replica(source, Subscriber(InMemoryChannelLayer()), mapping)
    await replica.sync()
    async with replica.connection() as connection:
        for name in STORED:
            source.insert("things", document(name, "new"))
            source.update("things", "good", v=len(name))
            source.replace("things", document(name, "old"))
            source.update("things", f"new {name}", more=1)
        source.update("things", "good", v=7, list=[{"v": 7}])
        # The replica itself refuses what would harm a zero-cache.
        await connection.until(lambda: replica.model.rows("plain")[("good",)]["number"] == 7 and not replica.model.open)
        for name in ("invalid UTF-8", "int64", "min"):
            source.delete("things", f"old {name}")
        await connection.until(lambda: ("old min",) not in replica.model.rows("plain") and not replica.model.open)
    rows = replica.model.rows
    names = {f"{when} {name}" for when in ("old", "new") for name in STORED}
    present = names - {"old invalid UTF-8", "old int64", "old min"} | {"good"}
    assert {key[0] for key in rows("plain")} == present
    # What cannot be decoded is no array.
    unwound = present - {f"{when} wrong inner length" for when in ("old", "new")}
    assert {key[0] for key in rows("each")} == unwound
    assert [row["number"] for key, row in rows("each").items() if key[0] == "good"] == [7]
    strict = {key[0].removeprefix("new ") for key in rows("strict") if key[0].startswith("new")}
    assert strict == {"minus zero", "decimal"}
    assert ("good",) in rows("found")
    for key, row in rows("plain").items():
        if key[0].startswith("new"):
            twin = rows("plain").get((key[0].replace("new", "old"),))
            assert twin is None or {**twin, "id": key[0]} == row
            if key[0] in unwound:
                assert rows("each")[key[0], 0] == {**row, "at": 0}
    listed = await asyncio.to_thread(lambda: set(RowError.objects.values_list("table", "document_id", "column")))
    await database_sync_to_async(int)()
    assert ("plain", '"new int64"', "number") in listed
    assert ("strict", '"old regex"', "number") in listed
    assert {one for _, one, _ in listed} >= {f'"new {name}"' for name in ("regex", "dbref", "code", "timestamp", "max")}
