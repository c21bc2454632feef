"""Runs the JSON of a section: mappings are imported, and documents beside them must give the rows that are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bson import json_util
from bson.binary import UuidRepresentation
from django.db import transaction
from pymongo import MongoClient

from changesource.mapping import filters
from changesource.mapping.compiled import SHOWN
from changesource.mapping.formats import combine, read_mappings, read_schema, read_specification
from changesource.mapping.json_reading import parse
from changesource.mapping.schema_formats import is_schema
from changesource.mapping.spec import Specification, TableSpec
from changesource.services.configuration import current, import_specification
from changesource.services.preview import previews
from changesource.sources.mongodb.inspect import inspect
from changesource.sources.mongodb.looking import looking
from changesource.stream.excerpt import readable
from tests.snippets.pages import Block

# A UUID stays what it is in MongoDB.
READ = SHOWN.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)
KINDS = {f"json {what}" for what in ("mapping", "schema", "documents", "rows", "event", "filter")}


class Recipes:
    """The JSON blocks of one section, in a MongoDB database of its own."""

    def __init__(self, uri: str, database: str, blocks: list[Block]) -> None:
        """``blocks`` are those of the section, of every kind."""
        self.uri = uri
        self._database = database
        self._schemas = [parse(block.text.encode(), block.place) for block in blocks if block.kind == "json schema"]
        self._mappings = [block for block in blocks if block.kind == "json mapping"]
        self._documents: dict[str, list[Any]] = {}
        self._pending: Block | None = None
        self._served: Specification | None = None

    def run(self, block: Block) -> None:
        """Take the next block. Fails at what is not so, and raises ``ZerosourceError`` as the code does."""
        getattr(self, f"_take_{block.words[0]}")(block)

    def finish(self) -> None:
        """Import a mapping that no rows followed."""
        if self._pending is not None:
            self._import()

    def _take_filter(self, block: Block) -> None:
        found = parse(block.text.encode(), block.place)
        assert isinstance(found, dict)
        filters.compile_filter(found, "filter")

    def _take_schema(self, block: Block) -> None:
        found = parse(block.text.encode(), block.place)
        assert is_schema(found), "this is no schema"
        assert read_schema(found)
        if not self._mappings:
            self._publish(read_specification(found))

    def _take_mapping(self, block: Block) -> None:
        self.finish()
        self._pending = block

    def _take_documents(self, block: Block) -> None:
        found = json_util.loads(block.text, json_options=READ)
        documents = found if isinstance(found, list) else [found]
        collection = block.options.get("collection") or self._only_collection()
        with MongoClient[Any](self.uri) as client:
            client[self._database][collection].insert_many(documents)
        self._documents.setdefault(collection, []).extend(document["_id"] for document in documents)

    def _take_rows(self, block: Block) -> None:
        if self._pending is not None:
            self._import()
        table = self._table(block)
        expected = json.loads(block.text)
        expected = expected if isinstance(expected, list) else [expected]
        found = [json.loads(frame)[1]["new"] for frame in self._frames_of(table)]
        assert canonical(found) == canonical(expected), f"the rows are {json.dumps(found, ensure_ascii=False)}"

    def _take_event(self, block: Block) -> None:
        if self._pending is not None:
            self._import()
        assert self._served is not None, "no mapping stands before this event in its section"
        events = [readable(frame.encode()) for table in self._served.tables for frame in self._frames_of(table)]
        assert json.loads(block.text) in events, f"the events are {json.dumps(events, ensure_ascii=False)}"

    def _import(self) -> None:
        block, self._pending = self._pending, None
        assert block is not None
        data = parse(block.text.encode(), block.place)
        mappings = read_mappings(data)
        schema = [table for one in self._schemas for table in read_schema(one)]
        if schema and {table.alias for table in schema} == set(mappings.tables):
            self._publish(combine(tuple(schema), mappings))
        else:
            self._publish(read_specification(data))

    def _publish(self, spec: Specification) -> None:
        """As ``importmappings`` does it, but that nothing of it stays."""
        with transaction.atomic():
            import_specification(
                spec,
                "documentation",
                inspect=lambda wanted: inspect(self.uri, self._database, wanted, "auto", switch=True),
            )
            published = current()
            transaction.set_rollback(True)
        assert published is not None
        self._served = published.specification

    def _table(self, block: Block) -> TableSpec:
        assert self._served is not None, "no mapping stands before these rows in their section"
        tables = {table.name: table for table in self._served.tables}
        name = block.options.get("table") or (next(iter(tables)) if len(tables) == 1 else "")
        assert name in tables, f"say which table's rows these are: table= one of {', '.join(tables)}"
        return tables[name]

    def _only_collection(self) -> str:
        """The collection of the mapping that is at hand; of the section's first one, where documents come before it."""
        block = self._pending or next(iter(self._mappings), None)
        assert block is not None, "say which collection's documents these are: collection="
        data = json.loads(block.text)
        tables = data.get("tables", data)
        names = {table.get("collection", table.get("source")) for table in tables.values()}
        assert len(names) == 1, f"say which collection's documents these are: collection= one of {', '.join(names)}"
        return str(names.pop())

    def _frames_of(self, table: TableSpec) -> Iterator[str]:
        """What replicas are sent for the documents so far."""
        with looking(self.uri, self._database) as look:
            documents = look.by_id(table.collection, self._documents.get(table.collection, []))
        for shown in previews(table, self._database, documents):
            yield from shown.frames


def canonical(rows: list[Any]) -> list[str]:
    """Rows in any order, as JavaScript tells them apart: 3.0 is 3."""
    return sorted(json.dumps(_plain(row), sort_keys=True) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
