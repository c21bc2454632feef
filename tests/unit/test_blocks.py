"""Documents mapped many at once give what they give one by one: rows to the byte, faults and counts."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import TableStopped
from changesource.mapping import blocks, compiled
from changesource.mapping.blocks import FILTERED, NOTHING, Blocks
from changesource.mapping.compiled import MappedTable, RowFault, ignore_fault
from changesource.mapping.documents import Salvaged
from changesource.mapping.spec import ColumnSpec, ColumnType, IdType, Json, TableSpec

DAY = datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)
OID = ObjectId("65f000000000000000000001")
UUID_7 = Binary(uuid.UUID(int=7).bytes, 4)


def nested(levels: int) -> Any:
    value: Any = "deep"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


# Values of each BSON type, as they are decoded; those that are alike make a column that can be converted as a whole.
ALIKE: dict[str, list[Any]] = {
    "text": ["", "a", "Grüße", "😀", 'say "hi"', "line\nbreak", "\\u0000", "\x01", "\ufffd"],
    "id": [OID, ObjectId("65f000000000000000000002")],
    "int": [0, 1, -3, 2**31 - 1],
    "long": [Int64(0), Int64(2**53 - 1), Int64(1 - 2**53)],
    "double": [0.0, -0.0, 1.5, 1e300, 5e-324, 3.0],
    "bool": [True, False],
    "date": [DAY, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)],
    "list": [[], [1, "two", None, {"three": 3.0}], ["é"]],
    "document": [{}, {"x": {"y": 1}}, {"x": [{"y": "z"}]}],
    "uuid": [UUID_7],
}
ODD: list[Any] = [
    "nul\0", "\ud800", "a\udfffb\0", 2**53, Int64(2**53), -(2**63), 2**80, float("nan"), float("inf"), float("-inf"),
    Decimal128("1.50"), Decimal128("NaN"), Decimal128("1E+6000"), Decimal128("-0"), b"\1\2", Binary(b"x", 4),
    DatetimeMS(10**15), DatetimeMS(2**60), datetime(2024, 1, 1), Timestamp(5, 6), Regex("a\0", "i"), MinKey(),
    MaxKey(), Code("x"), Code("y\0", {"z": 1}), DBRef("rooms", 1), {"nul\0": "\0"}, [float("nan")], nested(199),
    nested(230), object(), uuid.UUID(int=3),
]  # fmt: skip
# Those that can be the _id of a document that was decoded.
ODD_IDS = [value for value in ODD if type(value) is not object]
FIELDS = ("a", "b", "c", "d")
IDS: dict[IdType, Callable[[int], Any]] = {
    "objectId": lambda number: ObjectId(f"{number:024x}"),
    "string": lambda number: f"n{number}é",
    "number": lambda number: number if number % 3 else Int64(number),
    "uuid": lambda number: Binary(uuid.UUID(int=number).bytes, 4),
    "date": DatetimeMS,
}
FILTERS: list[dict[str, Json]] = [
    {},
    {"a": {"$ne": None}},
    {"b": {"$in": ["a", 1, True]}},
    {"$expr": {"$gt": [{"$size": "$c"}, 0]}},  # fails where it is no array
]
COLUMNS = [
    *(
        ColumnSpec(f"{field}_{kind}", kind, field)
        for field in FIELDS
        for kind in ("string", "number", "boolean", "json")
    ),
    ColumnSpec("inner", "json", "d.x"),
    ColumnSpec("innermost", "number", "d.x.y"),
    ColumnSpec("kind", "string", expression={"$type": "$a"}),
    ColumnSpec("sum", "number", expression={"$add": ["$a", 1]}),
    ColumnSpec("upper", "string", expression={"$toUpper": "$b"}),
]  # fmt: skip


def random_table(chosen: random.Random) -> TableSpec:
    id_type = chosen.choice([*IDS])
    kinds: list[ColumnType] = ["string", "number"] if id_type in ("number", "date") else ["string"]
    key = ColumnSpec("id", chosen.choice(kinds), "_id")
    if id_type == "objectId" and chosen.random() < 0.3:
        key = ColumnSpec("id", "string", expression={"$hexToBase64Url": {"$toString": "$_id"}})
    columns = [
        replace(column, optional=chosen.random() < 0.7) for column in chosen.sample(COLUMNS, chosen.randint(0, 5))
    ]
    return TableSpec(
        name="it",
        collection="its",
        columns=(*columns, key),
        primary_key=("id",),
        filter=chosen.choice(FILTERS),
        id_type=id_type if chosen.random() < 0.8 else "",
        error_policy=chosen.choice(("coerce", "coerce", "skip", "stop")),
        large_integers=chosen.choice(("reject", "round")),
    )


def random_documents(chosen: random.Random, table: TableSpec, count: int) -> list[dict[str, Any]]:
    """Each field's values are alike, but for as many as a rate says."""
    usual = {field: chosen.choice([*ALIKE.values()]) for field in FIELDS}
    missing, odd, unreadable = (chosen.choice((0, 0, 0.02, 0.5)) for _ in range(3))
    image = IDS[table.id_type or chosen.choice([*IDS])]

    def value(field: str) -> Any:
        if chosen.random() < odd:
            return chosen.choice(ODD) if chosen.random() < 0.5 else chosen.choice(chosen.choice([*ALIKE.values()]))
        return chosen.choice(usual[field])

    def document(number: int) -> dict[str, Any]:
        present = [field for field in FIELDS if chosen.random() >= missing]
        document_id = chosen.choice([None, *ODD_IDS]) if chosen.random() < odd / 4 else image(number)
        fields = {"_id": document_id, **{field: value(field) for field in present}}
        if chosen.random() < missing / 4:
            fields[chosen.choice(FIELDS)] = None
        if chosen.random() < odd / 20:
            del fields["_id"]
        if chosen.random() < unreadable:
            gone = chosen.choice(FIELDS)
            return Salvaged({name: value for name, value in fields.items() if name != gone}, (gone, "unmapped"))
        return fields

    return [document(number) for number in range(count)]


class Outcome:
    """What a way of mapping made: the rows, what was reported and counted, and where it stopped."""

    def __init__(self, table: MappedTable, rows: Callable[[Callable[[RowFault], None]], Iterator[bytes]]) -> None:
        self.rows: list[bytes] = []
        self.faults: list[RowFault] = []
        self.stopped = ""
        try:
            self.rows.extend(rows(self.faults.append))
        except TableStopped as error:
            self.stopped = str(error)
        self.counts = table.compiled.counts


def one_by_one(spec: TableSpec, documents: Sequence[dict[str, Any]]) -> Outcome:
    table = MappedTable(spec, "db")
    return Outcome(table, lambda tell: (row for one in documents for row in table.encoded(one, table.values, tell)))


def at_once(spec: TableSpec, documents: Sequence[dict[str, Any]], most_rows: int, most_bytes: int) -> Outcome:
    table = MappedTable(spec, "db")
    made = Blocks(table, most_rows, most_bytes)

    def rows(tell: Callable[[RowFault], None]) -> Iterator[bytes]:
        for some in made.encoded(documents, tell):
            assert some.rows == len(orjson.loads(b"[%b]" % some.body)) <= most_rows
            assert some.rows == 1 or len(some.body) <= most_bytes
            if some is not NOTHING:
                yield bytes(some.body)

    return Outcome(table, rows)


def check(spec: TableSpec, documents: Sequence[dict[str, Any]], most_rows: int = 1000, most_bytes: int = 2**20) -> None:
    plain, quick = one_by_one(spec, documents), at_once(spec, documents, most_rows, most_bytes)
    assert quick.faults == plain.faults
    assert quick.counts == plain.counts
    assert quick.stopped == plain.stopped
    rows, found = b",".join(plain.rows), b",".join(quick.rows)
    check_frames(spec, documents)
    # Where a table stops, nothing is sent of what came with that document.
    assert rows.startswith(found) if plain.stopped else found == rows


def check_frames(spec: TableSpec, documents: Sequence[dict[str, Any]]) -> None:
    """Each frame is the one that the document gives by itself, and where it has one there is nothing to report."""
    quick, plain = MappedTable(spec, "db"), MappedTable(spec, "db")
    for inserted, encoder in ((False, plain.updates), (True, plain.inserts)):
        found = Blocks(quick).frames(documents, inserted=inserted)
        assert len(found) == len(documents)
        for document, frame in zip(documents, found, strict=True):
            if frame is not None:
                faults: list[RowFault] = []
                assert plain.encoded(document, encoder, faults.append) == ([] if frame == FILTERED else [frame])
                assert not faults
    assert not quick.compiled.counts
    assert not plain.compiled.counts


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sampled_from([1, 2, 7, 1000]),
    st.sampled_from([30, 300, 2**20]),
    st.sampled_from([150, 32 * 2**20]),
)
def test_any_documents_give_what_they_give_one_by_one(
    seed: int, count: int, most_rows: int, most_bytes: int, most_of_a_row: int
) -> None:
    chosen = random.Random(seed)
    spec = random_table(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "MAX_ROW_BYTES", max(most_of_a_row, 2 * most_bytes))
        check(spec, random_documents(chosen, spec, count), most_rows, most_bytes)


def table(*columns: ColumnSpec, **more: Any) -> TableSpec:
    return TableSpec("it", "its", (ColumnSpec("id", "string", "_id"), *columns), ("id",), **more)


@pytest.mark.parametrize("policy", ["coerce", "skip"])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("kind", ["string", "number", "boolean", "json"])
def test_each_value_in_each_column(kind: ColumnType, optional: bool, policy: str) -> None:
    """Alone, among others like it, among nulls, and as the one in a block that does not fit."""
    spec = table(ColumnSpec("v", kind, "v", optional=optional), error_policy=policy)
    for value in (*(one for alike in ALIKE.values() for one in alike), *ODD, None):
        for others in ([], [value], [None], *ALIKE.values()):
            documents = [{"_id": number, "v": one} for number, one in enumerate([*others, value, *others])]
            check(spec, documents)


@pytest.mark.parametrize("kind", ["string", "number"])
def test_each_value_as_a_key(kind: ColumnType) -> None:
    for id_type in ("", *IDS):
        if kind == "number" and id_type not in ("", "number", "date"):
            continue
        spec = TableSpec("it", "its", (ColumnSpec("id", kind, "_id"),), ("id",), id_type=id_type)
        for value in (*(one for alike in ALIKE.values() for one in alike), *ODD_IDS, None):
            check(spec, [{"_id": value}, {"_id": value}, {}, {"_id": 1}, {"_id": 0.5}])
            check(spec, [{"_id": value}, {"_id": value}])


def flat() -> tuple[TableSpec, list[dict[str, Any]]]:
    columns = [
        ColumnSpec("room", "string", "room"),
        ColumnSpec("text", "string", "text", optional=True),
        ColumnSpec("likes", "number", "likes"),
        ColumnSpec("edited", "boolean", "edited", optional=True),
        ColumnSpec("sent", "number", "sent", optional=True),
        ColumnSpec("tags", "json", "tags", optional=True),
        ColumnSpec("city", "string", "address.city", optional=True),
    ]
    documents = [
        {
            "_id": ObjectId(),
            "room": OID,
            "text": f"Grüße {number}",
            "likes": number if number % 2 else float(number),
            **({"edited": True} if number % 3 else {}),
            "sent": DAY if number % 5 else None,
            "tags": ["a", {"b": OID}],
            "address": {"city": "Rome"},
        }
        for number in range(2500)
    ]
    return table(*columns, filter={"likes": {"$gte": 500}}), documents


def test_ordinary_documents_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, documents = flat()
    check(spec, documents)

    def refuse(*_: object) -> list[bytes]:
        raise AssertionError("mapped one by one")

    monkeypatch.setattr(MappedTable, "encoded", refuse)
    found = list(Blocks(MappedTable(spec, "db"), 1000, 2**20).encoded(documents, ignore_fault))
    assert [some.rows for some in found] == [1000, 1000]
    mapped = MappedTable(spec, "db")
    frames = Blocks(mapped).frames(documents, inserted=True)
    assert None not in frames
    assert [frame != FILTERED for frame in frames] == [document["likes"] >= 500 for document in documents]


@pytest.mark.parametrize("field", ["_id", "room", "text", "likes", "sent", "tags"])
def test_one_bad_document_in_each_block_goes_alone(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    spec, documents = flat()
    for number in range(505, 2500, 500):
        documents[number][field] = "nul\0" if field == "text" else Regex("a") if field == "_id" else object()
    check(spec, documents)
    alone: list[object] = []
    plain = MappedTable.encoded

    def encoded(self: MappedTable, document: Any, *rest: Any) -> list[bytes]:
        alone.append(document)
        return plain(self, document, *rest)

    monkeypatch.setattr(MappedTable, "encoded", encoded)
    for _ in Blocks(MappedTable(spec, "db"), 1000, 2**20).encoded(documents, ignore_fault):
        pass
    assert alone == documents[505::500]


def test_rows_of_unlike_sizes_are_split() -> None:
    spec = table(ColumnSpec("text", "string", "text"))
    documents = [{"_id": number, "text": "x" * (5000 if number % 97 == 0 else number % 7)} for number in range(1000)]
    check(spec, documents, 1000, 3000)
    check(spec, [{"_id": number, "text": "x" * 2000} for number in range(100)], 1000, 3000)


def test_a_row_that_is_too_large_is_left_out_and_told() -> None:
    spec = table(ColumnSpec("text", "string", "text"))
    documents = [{"_id": 1, "text": "a"}, {"_id": 2, "text": "\x01" * (6 * 2**20)}, {"_id": 3, "text": "b"}]
    check(spec, documents)
    assert [fault.document_id for fault in one_by_one(spec, documents).faults] == ["2"]


def test_a_block_that_cannot_be_encoded_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where U+0000 slips by the mapping."""

    def dumps(value: object) -> bytes:
        raise TypeError("U+0000 in a frame")

    monkeypatch.setattr(blocks, "dumps", dumps)
    spec, documents = flat()
    documents[700]["room"] = {}
    documents[800]["text"] = "nul\0"
    check(spec, documents)


def test_a_table_with_a_pipeline_goes_one_by_one() -> None:
    spec = table(ColumnSpec("name", "string", "list.name"), pipeline=({"$unwind": "$list"},))
    spec = replace(spec, columns=(*spec.columns, ColumnSpec("at", "number", "list.at")), primary_key=("id", "at"))
    documents = [{"_id": 1, "list": [{"name": "a", "at": 1}, {"at": 2}, {"name": "c", "at": 3}]}, {"_id": 2}]
    check(spec, documents, 2, 1000)


def test_a_row_over_the_deployments_bound_is_an_error_however_it_is_sent() -> None:
    """One that is just as large as may be is sent."""
    most = 1000
    spec = table(ColumnSpec("v", "string", "v"))
    overhead = len('{"id":"a","v":""}')
    documents = [{"_id": "a", "v": "x" * (most - overhead + more)} for more in (0, 1)] + [{"_id": "b", "v": "y"}]
    mapped = MappedTable(spec, "db", most)
    for encoder in (mapped.inserts, mapped.updates, mapped.values):
        faults: list[RowFault] = []
        frames = [mapped.encoded(document, encoder, faults.append) for document in documents]
        assert [len(found) for found in frames] == [1, 0, 1]
        assert [fault.reason for fault in faults] == [f"the row has {most + 1} bytes, {most} are allowed"]
    faults = []
    rows = list(Blocks(mapped, 1000, 2**20).encoded(documents, faults.append))
    assert sum(some.rows for some in rows) == 2
    assert [fault.reason for fault in faults] == [f"the row has {most + 1} bytes, {most} are allowed"]
    assert [frame is None for frame in Blocks(mapped).frames(documents, inserted=True)] == [False, True, False]
