"""What MongoDB sends: stored documents through every kind of mapping, change events, and replies of broken bytes."""

from __future__ import annotations

import asyncio
import random
import struct
from functools import cache
from itertools import pairwise
from typing import Any

import orjson
from bson import decode, encode
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp

from changesource.exceptions import MappingError, TableStopped, ZerosourceError
from changesource.mapping.blocks import Blocks
from changesource.mapping.compiled import CompiledMapping, MappedTable, RowFault, ignore_fault
from changesource.mapping.formats import read_specification
from changesource.mapping.paths import Document
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_document, read_documents
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.feed import MongoFeed
from changesource.stream import batches
from changesource.stream.events import Event, to_cluster_time
from changesource.stream.grouping import Bounds, Grouping
from changesource.stream.transform import Transform
from tests.fuzz.drawing import bson_document, bson_value, encoded, mutated_bytes, nested, seeded
from tests.fuzz.files import wild_table
from tests.fuzz.targets import Plant, Target, gives_nothing, hangs, raises_key_error, refused
from tests.harness.zoo import random_table

TYPES = {"string": str, "number": (int, float), "boolean": bool, "json": object}
FEW = 5


@cache
def tables() -> list[MappedTable]:
    """Tables of one collection: ordinary ones, and ones by chance, with every stage and operator that is taken."""
    found = []
    for number in range(60):
        chance = random.Random(number)
        found.append(random_table(chance, f"t{number}", history=chance.random() < 0.5))
    made = [MappedTable(spec, "database") for spec in found]
    number = 0
    while len(made) < 400:
        number += 1
        try:
            (spec,) = read_specification({"tables": {f"w{number}": wild_table(random.Random(number))}}).tables
            made.append(MappedTable(spec, "database"))
        except MappingError:
            continue
    return made


def _stored(chance: random.Random) -> tuple[int, list[bytes]]:
    documents = [encoded(bson_document(chance)) for _ in range(FEW)]
    if chance.random() < 0.2:
        documents[0] = mutated_bytes(documents[0], chance)
    return chance.randrange(10_000), documents


def check_stored(given: tuple[int, list[bytes]]) -> None:
    """A document gives rows of its table's types or is told of, by the quick way as by the slow one."""
    number, raws = given
    table = tables()[number % len(tables())]
    found: list[Document] = []
    for raw in raws:
        try:
            with translated():
                found.append(read_document(raw, CODEC_OPTIONS))
        except ZerosourceError as error:
            refused(error)
    plain = [_frames(table, document) for document in found]
    if table.is_plain and table.spec.error_policy != "stop":
        told: list[RowFault] = []
        rows = b",".join(bytes(each.body) for each in Blocks(table, 2, 1000).encoded(found, told.append) if each.rows)
        slow = [frame for document in found for frame in table.encoded(document, table.values, ignore_fault)]
        assert rows == b",".join(slow)
    for before, after in pairwise(found):
        try:
            for frame in table.changed(before, after, ignore_fault):
                orjson.loads(frame)
        except TableStopped as error:
            refused(error)
    assert len(plain) == len(found)


def _frames(table: MappedTable, document: Document) -> list[bytes]:
    """The document's frames, each held against its table."""
    faults: list[RowFault] = []
    try:
        frames = table.encoded(document, table.inserts, faults.append)
    except TableStopped as error:
        refused(error)
        assert faults
        assert table.spec.error_policy == "stop"
        return []
    for fault in faults:
        assert fault.table == table.name
        assert fault.reason
        assert "while the row was made" not in fault.reason, (fault, table.spec)
    for frame in frames:
        row = orjson.loads(frame)[1]["new"]
        assert tuple(row) == table.compiled.column_names
        for column in table.spec.columns:
            value = row[column.name]
            assert value is not None or column.optional, (column, row)
            assert value is None or isinstance(value, TYPES[column.type]), (column, row)
    shows_all = table.compiled.pipeline is None and table.compiled.matches is None
    assert frames or faults or not shows_all
    table.delete(document.get("_id"))
    return frames


# Change events.

EVENTS_OF = {
    "tables": {
        "thing": {
            "collection": "things",
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "a": {"type": "string", "path": "a", "optional": True},
                "all": {"type": "json", "path": "deep", "optional": True},
                "n": {"type": "number", "path": "n", "optional": True},
            },
            "primaryKey": ["id"],
            "idType": "",
        },
        "person": {
            "collection": "people",
            "columns": {"id": {"type": "number", "path": "_id"}, "name": {"type": "string", "path": "people.name"}},
            "primaryKey": ["id", "name"],
            "pipeline": [{"$unwind": "$people"}],
            "idType": "number",
        },
    }
}
MAPPING = CompiledMapping.compile(read_specification(EVENTS_OF), "database")
BARRIERS = "_zerosource"
BEGAN = to_cluster_time(Timestamp(1_700_000_000, 1))
KINDS = (
    "insert",
    "update",
    "replace",
    "delete",
    "drop",
    "rename",
    "dropDatabase",
    "invalidate",
    "create",
    "modify",
    "x",
    5,
)
OF_DOCUMENTS = ("insert", "update", "replace", "delete")


def _event(chance: random.Random, second: int) -> dict[str, Any]:
    document = bson_document(chance)
    event: dict[str, Any] = {
        "_id": {"_data": "token"},
        "operationType": chance.choice(KINDS[:4]) if chance.random() < 0.7 else chance.choice(KINDS),
        "clusterTime": Timestamp(1_700_000_000 + second, 1),
        "ns": {"db": "database", "coll": chance.choice(("things", "people", BARRIERS, "other"))},
        "documentKey": {"_id": document["_id"]},
        "fullDocument": document,
    }
    if chance.random() < 0.3:
        event["fullDocumentBeforeChange"] = bson_document(chance)
    if chance.random() < 0.3:
        event |= {"lsid": {"id": bson_value(chance)}, "txnNumber": Int64(chance.randrange(3))}
    if chance.random() < 0.2:
        event["to"] = chance.choice(({"coll": "things"}, {"coll": 5}, "x"))
    if chance.random() < 0.4:
        name = chance.choice((*event, "ns", "clusterTime", "documentKey", "to", "splitEvent"))
        if chance.random() < 0.3:
            event.pop(name, None)
        else:
            event[name] = nested(90, chance) if chance.random() < 0.1 else bson_value(chance)
    return event


def _reply(chance: random.Random) -> bytes:
    events = [{"operationType": "insert", "clusterTime": Timestamp(1_700_000_000, 1), "_id": 1}]
    events[0] |= {"ns": {"coll": "things"}, "documentKey": {"_id": "0"}, "fullDocument": {"_id": "0"}}
    seconds = sorted(chance.randrange(1, 9) for _ in range(chance.randrange(6)))
    raws = [RawBSONDocument(encode(event)) for event in (*events, *(_event(chance, second) for second in seconds))]
    batch: Any = raws if chance.random() < 0.98 else bson_value(chance)
    cursor: Any = {"id": Int64(5), "nextBatch": batch, "ns": "database.$cmd.aggregate"}
    raw = encode({"cursor": cursor, "ok": 1.0})
    return mutated_bytes(raw, chance) if chance.random() < 0.4 else raw


class _Database:
    """What answers with the bytes that are tried."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    async def command(
        self, command: dict[str, Any], codec_options: CodecOptions[Any] | None = None, **_: object
    ) -> Any:
        if "getMore" in command:
            # As the driver decodes a reply.
            return decode(self._raw, codec_options)  # type: ignore[arg-type]
        return {"cursor": {"id": 5, "ns": "database.$cmd.aggregate"}}


class _Client:
    def start_session(self, **_: object) -> Any:
        class Session:
            async def end_session(self) -> None: ...

        return Session()


class _Source:
    """What a feed reads from."""

    codec_options = CODEC_OPTIONS
    barrier_collection = BARRIERS
    full_document = "updateLookup"

    def __init__(self, raw: bytes) -> None:
        self.database = _Database(raw)
        self.client = _Client()

    def need(self, *_: object, **__: object) -> None:
        return None

    async def splits_large_events(self) -> bool:
        return False

    async def barrier(self, _: str) -> int:
        return BEGAN + 2**40

    async def lookup(self, *_: object) -> dict[Any, Any]:
        return {}


async def _polled(raw: bytes) -> list[Event]:
    source: Any = _Source(raw)
    feed = MongoFeed(source, MAPPING.needs, BEGAN, 100)
    await feed.open()
    try:
        return list(await feed.poll(0) or ())
    finally:
        await feed.close()


_runner = asyncio.Runner()


def check_reply(raw: bytes) -> None:
    """Events are read whole and in their number, or the reply is refused; what they do can be put in batches."""
    try:
        events = _runner.run(_polled(raw))
    except ZerosourceError as error:
        refused(error)
        return
    _check_complete(raw, events)
    faults: list[RowFault] = []
    transform = Transform(MAPPING, faults.append)
    grouping = Grouping(BEGAN, MAPPING.fingerprints, Bounds(rows=3, size=10_000))
    made = []
    for event in events:
        before = len(faults)
        changes = [(table, list(frames or ())) for table, frames in transform.changes(event)]
        names = [table.name for table in MAPPING.by_collection.get(event.collection, ())]
        if event.kind in OF_DOCUMENTS:
            assert [table for table, _ in changes] == names
            if event.kind == "insert" and names == ["thing"] and event.document is not None:
                assert changes[0][1] or len(faults) > before, event
        made += grouping.add(event, changes, transform.refilled(event))
    made += grouping.nothing_more()
    assert sum(len(batch.runs) for batch in made) <= sum(1 + len(MAPPING.tables) for _ in events)
    if any(isinstance(document, dict) for document in (event.document for event in events)):
        transform.foreseen(events)
    times = [event.cluster_time for event in events]
    for batch in made:
        # What falls, which no MongoDB sends, the layer refuses.
        if batch.final and times == sorted(times):
            again = batches.decode(batches.encode(batch))
            assert (again.runs, again.frames, again.end) == (batch.runs, batch.frames, batch.end)


def _check_complete(raw: bytes, events: list[Event]) -> None:
    """Hold the events against what is in the reply, read another way."""
    try:
        batch = decode(raw, CODEC_OPTIONS)["cursor"]["nextBatch"]
    except (BSONError, ValueError, OverflowError, RecursionError):
        return
    # What the server splits is put together.
    if any("splitEvent" in event for event in batch):
        return
    sent = [event["operationType"] for event in batch[1:] if event.get("operationType") in OF_DOCUMENTS]
    late = [
        e
        for e in batch[1:]
        if isinstance(e.get("clusterTime"), Timestamp) and to_cluster_time(e["clusterTime"]) <= BEGAN
    ]
    barriers = sum(event.kind == "barrier" for event in events)
    assert len(sent) - len(late) <= sum(event.kind in OF_DOCUMENTS for event in events) + barriers


ODD = b"\x05odd\0" + struct.pack("<i", 6) + b"\x02" + struct.pack("<i", 9) + b"ab"


def _with(event: dict[str, Any]) -> bytes:
    """A reply with an event after the one at the position."""
    first = {"operationType": "x", "clusterTime": Timestamp(1_700_000_000, 1), "_id": 1}
    return encode({"cursor": {"id": Int64(5), "nextBatch": [first, event]}, "ok": 1.0})


INSERT = {
    "_id": 1,
    "operationType": "insert",
    "clusterTime": Timestamp(1_700_000_005, 1),
    "ns": {"coll": "things"},
    "documentKey": {"_id": "a"},
    "fullDocument": {"_id": "a"},
}
REPLIES = [
    _with(INSERT),
    *(_with({name: value for name, value in INSERT.items() if name != left_out}) for left_out in INSERT),
    _with({**INSERT, "operationType": {"a": 1}}),
    _with({**INSERT, "operationType": [1]}),
    _with({**INSERT, "ns": "things"}),
    _with({**INSERT, "ns": {"coll": {"a": 1}}}),
    _with({**INSERT, "operationType": "delete", "documentKey": {}}),
    _with({**INSERT, "operationType": "rename", "to": 5}),
    encode({"cursor": {"id": Int64(5), "nextBatch": [1, 2]}, "ok": 1}),
    encode({"cursor": {"id": "x", "nextBatch": []}, "ok": 1}),
    encode({"cursor": 5, "ok": 1}),
    encode({"ok": 1}),
    b"\5\0\0\0\0",
    b"",
]


# Several documents in one reply, as a snapshot reads them.


def _copied(chance: random.Random) -> bytes:
    raw = b"".join(encoded(bson_document(chance)) for _ in range(chance.randrange(1, 4)))
    return mutated_bytes(raw, chance) if chance.random() < 0.9 else raw


def check_copied(raw: bytes) -> None:
    """All documents are had, or the reply is refused."""
    try:
        with translated():
            found = read_documents(raw, CODEC_OPTIONS)
    except ZerosourceError as error:
        refused(error)
        return
    size, count = 0, 0
    while size < len(raw):
        size += int.from_bytes(raw[size : size + 4], "little")
        count += 1
    assert len(found) == count
    for document in found:
        MAPPING.tables["thing"].encoded(document, MAPPING.tables["thing"].inserts, ignore_fault)


def _deep_bson(depth: int) -> bytes:
    raw = encode({"a": 1})
    for _ in range(depth):
        raw = struct.pack("<i", len(raw) + 8) + b"\x03a\0" + raw + b"\0"
    return raw


TARGETS = [
    Target(
        "stored",
        seeded(_stored),
        check_stored,
        [
            Plant("a converter that raises", "changesource.mapping.rows.CompiledTable._row", raises_key_error),
            Plant("a reader that hangs", "changesource.mapping.rows.CompiledTable._key", hangs),
            Plant("rows that are lost", "changesource.mapping.compiled.MappedTable._rows", lambda *_: ()),
            Plant("a quick way that differs", "changesource.mapping.blocks.convert_key", raises_key_error),
        ],
        [(0, [_deep_bson(depth)]) for depth in (50, 150, 1000, 100_000)],
        full=25_000,
    ),
    Target(
        "replies",
        seeded(_reply),
        check_reply,
        [
            Plant("an event that raises", "changesource.sources.mongodb.feed.read_event", raises_key_error),
            Plant("an event that is lost", "changesource.sources.mongodb.feed.read_event", gives_nothing),
            Plant("a reply that hangs", "changesource.sources.mongodb.feed.read_reply", hangs),
            Plant("a change that is lost", "changesource.stream.transform.Transform._frames", lambda *_: []),
        ],
        REPLIES,
        full=20_000,
    ),
    Target(
        "copied",
        seeded(_copied),
        check_copied,
        [
            Plant("a reader that raises", "changesource.sources.mongodb.decoding._elements", raises_key_error),
            Plant("a reader that hangs", "changesource.sources.mongodb.decoding._split", hangs),
            Plant("documents that are lost", "changesource.sources.mongodb.decoding._split", lambda raw: [raw]),
        ],
        [
            b"\0\0\0\0",
            b"\xff\xff\xff\xff",
            encode({"a": 1}) + b"\0",
            encode({"a": 1})[:-1],
            encode({})[:-1] + ODD + b"\0",
        ],
        full=10_000,
    ),
]
