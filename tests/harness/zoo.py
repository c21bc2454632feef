"""Random documents of random types, random writes to a MongoDB, and random mappings of them.

The oracle is the server: what a table must show is what its own ``aggregate`` gives for the mapping's filter, pipeline
and columns, converted by the table of values.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import CANONICAL_JSON_OPTIONS, JSONOptions, loads
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from changesource.mapping.spec import ColumnSpec, Json, TableSpec
from changesource.mapping.values import convert
from tests.harness.model import Key, Row

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
EXTENDED: JSONOptions = CANONICAL_JSON_OPTIONS.with_options(tz_aware=True)
OIDS = [ObjectId(f"65f00000000000000000{number:04x}") for number in range(24)]
SCALARS: list[Any] = [
    None, True, False, "", "a", "b", "Grüße", "a,b,c", "2024-03-01", "7", "nul\0", 0, 1, -3, 7, 2**31 - 1,
    Int64(2**53 + 1), Int64(5), 0.0, -0.0, 1.5, -2.5, 1e300, float("nan"), float("inf"), Decimal128("1.50"),
    Decimal128("NaN"), Decimal128("9007199254740993"),
    datetime(2024, 3, 1, 12, 0, 0, 5000, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC),
    OIDS[0], b"\1\2", Binary(uuid.UUID(int=7).bytes, 4), Binary(b"x", 4), Regex("a.c", "i"), Timestamp(5, 6), MinKey(),
    MaxKey(), DBRef("rooms", 1),
]  # fmt: skip
FIELDS = ("a", "b", "n", "s", "when", "list", "people", "deep")


class Zoo:
    """Two collections, ``things`` by ObjectIds and ``named`` with unique names, that are written to by a seed."""

    def __init__(self, client: MongoClient[Any], name: str, seed: int) -> None:
        self.database: Database[Any] = client.get_database(name, codec_options=OPTIONS)
        self.client = client
        self.random = random.Random(seed)
        self.writes: Counter[str] = Counter()

    def fill(self, documents: int) -> None:
        """Make the collections, and insert this many documents into each."""
        self.database["named"].create_index("name", unique=True)
        self.database["things"].insert_many([self.document(OIDS[i]) for i in range(min(documents, len(OIDS)))])
        self.database["named"].insert_many([{**self.document(i), "name": f"n{i}"} for i in range(documents)])

    def value(self, depth: int = 0) -> Any:
        """Any value."""
        if depth < 3 and self.random.random() < 0.2:
            if self.random.random() < 0.5:
                return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
            return {self.random.choice(("x", "y", "z.w", "$q")): self.value(depth + 1) for _ in range(2)}
        return self.random.choice(SCALARS)

    def odd(self, name: str) -> Any:
        """Any value, but for fields that paths go through no array: the stand-in errs there (see the filters' test)."""
        value = self.value()
        return None if name in ("deep", "people") and isinstance(value, list) else value

    def people(self) -> Any:
        """Mostly a list of people, told by their ids."""
        chosen = self.random
        if chosen.random() < 0.1:
            return self.odd("people")
        ids: list[Any] = ["ann", "bob", "cid", OIDS[0], 5, 5.0, None]
        return [
            {"id": chosen.choice(ids[: chosen.choice((3, 7))]), "age": chosen.choice((1, 2, 30, "old"))}
            for _ in range(chosen.randrange(6))
        ]

    def document(self, document_id: Any) -> dict[str, Any]:
        """A document; of most fields the values are mostly of one type."""
        chosen = self.random
        usual: dict[str, Any] = {
            "a": chosen.choice((1, 2, 3)),
            "b": chosen.choice(("x", "y")),
            "n": chosen.choice((0, 5, 7.5, Int64(9))),
            "s": chosen.choice(("Hello World", "a,b", " pad ")),
            "when": datetime(2020 + chosen.randrange(6), chosen.randrange(1, 13), 3, 4, 5, tzinfo=UTC),
            "list": [chosen.randrange(5) for _ in range(chosen.randrange(4))],
            "people": self.people(),
            "deep": {"x": {"y": chosen.randrange(3)}, "s": "d"},
        }
        present = (name for name in FIELDS if chosen.random() < 0.9)
        return {"_id": document_id, **{n: usual[n] if chosen.random() < 0.75 else self.odd(n) for n in present}}

    def step(self) -> None:
        """Do one write, or some in a transaction."""
        if self.random.random() < 0.15:
            try:
                with self.client.start_session() as session, session.start_transaction():
                    for _ in range(self.random.randint(2, 5)):
                        self._write(session)
            except OperationFailure:
                self.writes["aborted"] += 1
        else:
            self._write(None)

    def _write(self, session: Any) -> None:
        chosen = self.random
        collection = self.database[chosen.choice(("things", "named"))]
        document_id = chosen.choice(OIDS) if collection.name == "things" else chosen.randrange(24)
        name = {"name": f"n{chosen.randrange(40)}"} if collection.name == "named" and chosen.random() < 0.9 else {}
        kind = chosen.choice(("insert", "replace", "set", "unset", "push", "pull", "inc", "element", "delete", "name"))
        field = chosen.choice(FIELDS)
        update: dict[str, Any] = {
            "set": {"$set": {field: self.odd(field)}},
            "unset": {"$unset": {chosen.choice(FIELDS): 1}},
            "push": {"$push": {"people": {"id": chosen.choice(("ann", "bob", "dan")), "age": chosen.randrange(3)}}},
            "pull": {"$pull": {"people": {"id": chosen.choice(("ann", "bob"))}}},
            "inc": {"$inc": {"n": chosen.choice((1, 0.5))}},
            "element": {"$set": {"people.0": {"id": "ann", "age": chosen.randrange(50)}}},
            "name": {"$set": name or {"a": 1}},
        }.get(kind, {})
        try:
            if kind == "insert":
                collection.insert_one({**self.document(document_id), **name}, session=session)
            elif kind == "replace":
                collection.replace_one({"_id": document_id}, {**self.document(document_id), **name}, session=session)
            elif kind == "delete":
                collection.delete_one({"_id": document_id}, session=session)
            else:
                collection.update_one({"_id": document_id}, update, session=session)
        except DuplicateKeyError:
            self.writes["refused"] += 1
            if session is not None:
                raise
        except OperationFailure:
            # An operator that does not fit the field's type, or a write that met a transaction's.
            self.writes["refused"] += 1
            if session is not None:
                raise
        else:
            self.writes[kind] += 1


# Mappings.

FILTERS: list[dict[str, Json]] = [
    {},
    {"a": 1},
    {"b": {"$in": ["x", "a"]}},
    {"n": {"$gte": 5}, "b": {"$exists": True}},
    {"list": 3},
    {"people.id": "ann"},
    {"people": {"$elemMatch": {"id": "ann", "age": {"$gt": 1}}}},
    {"$or": [{"a": {"$type": "string"}}, {"when": {"$lt": {"$date": "2023-01-01T00:00:00Z"}}}]},
    {"s": {"$regex": "^hello", "$options": "i"}},
    {"$expr": {"$gt": [{"$size": {"$cond": [{"$isArray": "$list"}, "$list", []]}}, 1]}},
    {"list": {"$size": 2}},
    {"b": {"$not": {"$eq": "x"}}, "deep.x.y": {"$mod": [2, 0]}},
]
SHAPES: list[list[Json]] = [
    [],
    [{"$match": {"a": {"$ne": 2}}}],
    [{"$set": {"a": {"$ifNull": ["$b", "$s"]}, "more": {"deep": {"$type": "$n"}}}}],
    [{"$unset": ["deep.s"]}, {"$project": {"people": 0}}],
    [{"$project": {"a": 1, "s": {"$toUpper": "$s"}, "n": {"$add": ["$n", 1]}, "deep.x": 1, "list": 1, "b": 1}}],
    [{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"a": {"$concat": ["$b", "!"]}}]}}],
]
COLUMNS: list[ColumnSpec] = [
    ColumnSpec("a", "string", "a", optional=True),
    ColumnSpec("aNumber", "number", "a", optional=True),
    ColumnSpec("whole", "json", "deep", optional=True),
    ColumnSpec("list", "json", "list", optional=True),
    ColumnSpec("flag", "boolean", "a", optional=True),
    ColumnSpec("when", "number", "when", optional=True),
    ColumnSpec("year", "number", expression={"$year": "$when"}, optional=True),
    ColumnSpec("words", "json", expression={"$split": ["$s", " "]}, optional=True),
    ColumnSpec("kind", "string", expression={"$type": "$n"}),
    ColumnSpec("sum", "number", expression={"$add": [{"$size": "$list"}, "$n"]}, optional=True),
    ColumnSpec("size", "number", expression={"$size": "$people"}),
    ColumnSpec("b", "string", "b"),
    ColumnSpec("deepest", "number", "deep.x.y", optional=True),
    ColumnSpec("picked", "string", expression={"$cond": [{"$gt": ["$n", 5]}, "$b", "small"]}, optional=True),
]  # fmt: skip
PEOPLE: list[ColumnSpec] = [
    ColumnSpec("age", "number", "people.age", optional=True),
    ColumnSpec("ageText", "string", "people.age"),
    ColumnSpec("of", "string", "b", optional=True),
]


def random_table(chosen: random.Random, name: str, *, history: bool) -> TableSpec:
    """A table of one of the collections; without ``history``, one whose rows ``_id`` tells."""
    collection = chosen.choice(("things", "named"))
    key = ColumnSpec("id", "string" if collection == "things" else "number", "_id")
    columns = [key, *chosen.sample(COLUMNS, chosen.randint(1, 5))]
    table = TableSpec(
        name=name,
        collection=collection,
        columns=tuple(columns),
        primary_key=("id",),
        filter=chosen.choice(FILTERS),
        pipeline=tuple(chosen.choice(SHAPES)),
        id_type="objectId" if collection == "things" else "number",
        error_policy=chosen.choice(("coerce", "skip")),
        large_integers=chosen.choice(("reject", "round")),
    )
    if not history:
        return table
    kind = chosen.randrange(3)
    if kind == 0:
        named = ColumnSpec("name", "string", "name", key_type="string")
        own = tuple(column for column in columns if column.name != "id")
        numbered = ColumnSpec("id", "number", "_id")
        return replace(
            table,
            collection="named",
            id_type="number",
            columns=(named, numbered, *own),
            primary_key=("name",),
            pipeline=(),
        )
    unwound: Json = {"$unwind": {"path": "$people", "includeArrayIndex": "at"}} if kind == 1 else {"$unwind": "$people"}
    told = ColumnSpec("at", "number", "at") if kind == 1 else ColumnSpec("who", "string", "people.id")
    people = tuple(chosen.sample(PEOPLE, 2))
    return replace(table, columns=(key, told, *people), primary_key=("id", told.name), pipeline=(unwound,))


# The oracle.


def rows_of(database: Database[Any], table: TableSpec) -> dict[Key, Row]:
    """The rows that a table must show, by the server's own ``aggregate``."""
    columns = {column.name: _bson(column.source) for column in table.columns}
    pipeline = [
        {"$match": _bson(table.filter)},
        *(_bson(stage) for stage in table.pipeline),
    ]
    shown = {"$project": {"_id": 0, **{f"c{i}": columns[column.name] for i, column in enumerate(table.columns)}}}
    rows: dict[Key, Row] = {}
    for found in database[table.collection].find({}, {"_id": 1}):
        own = {"$match": {"_id": found["_id"]}}
        try:
            shaped = list(database[table.collection].aggregate([own, *pipeline]))
        except OperationFailure:
            continue
        of_document: dict[Key, Row] = {}
        for document in shaped:
            row = _row(database, table, document, shown)
            if row is not None:
                of_document.setdefault(tuple(row[name] for name in table.primary_key), row)
        rows |= of_document
    return rows


def _row(database: Database[Any], table: TableSpec, document: dict[str, Any], shown: dict[str, Any]) -> Row | None:
    row: Row = {}
    for index, column in enumerate(table.columns):
        stage = {"$project": {f"c{index}": shown["$project"][f"c{index}"]}}
        is_key = column.name in table.primary_key
        try:
            held: list[dict[str, Any]] = [{"$documents": [{"it": {"$literal": document}}]}, {"$replaceWith": "$it"}]
            (made,) = database.aggregate([*held, stage])
            value = made.get(f"c{index}")
            if is_key and isinstance(value, bool | Regex | Timestamp | MinKey | MaxKey | DBRef | dict | list | bytes):
                return None
            if is_key and column.key_type == "string" and not isinstance(value, str):
                return None
            if is_key and isinstance(value, str) and "\0" in value:
                return None
            row[column.name] = _converted(value, table, column)
        except (OperationFailure, ValueError):
            if is_key or not column.optional or table.error_policy == "skip":
                return None
            row[column.name] = None
        if row[column.name] is None and not column.optional:
            return None
    return row


def _converted(value: Any, table: TableSpec, column: ColumnSpec) -> Any:
    large = isinstance(value, int) and abs(value) > 2**53 - 1
    if column.type == "number" and large and table.large_integers == "round":
        return float(value)
    return convert(value, column.type, Counter())


def _bson(value: Any) -> Any:
    """What stands in a mapping as JSON, as the driver sends it."""
    if isinstance(value, dict):
        if next(iter(value), "") in ("$date", "$oid", "$numberLong"):
            return loads(json.dumps(value), json_options=EXTENDED)
        return {name: _bson(inner) for name, inner in value.items()}
    return [_bson(inner) for inner in value] if isinstance(value, list | tuple) else value
