"""A replica in memory that believes nothing: it applies every frame as zero-cache does and refuses what would harm it.

The oracle of the tests: replay what was sent into a ``ModelReplica`` and compare it with the source's documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

Key = tuple[Any, ...]
Row = dict[str, Any]
LEXI = re.compile(r"([0-9a-z])([0-9a-z]+)")
MAX_FRAME_BYTES = 100 * 1024 * 1024
MAX_SAFE_INTEGER = 2**53 - 1


class ModelError(AssertionError):
    """A frame that zero-cache would refuse, die of, or silently get wrong."""


def require(condition: object, *what: object) -> None:
    """Raise ``ModelError`` where ``condition`` is false."""
    if not condition:
        raise ModelError(" ".join(map(str, what)))


@dataclass
class ModelTable:
    """One table: ``columns`` are name to (data type, not null), ``rows`` are key to row."""

    key: tuple[str, ...]
    columns: dict[str, tuple[str, bool]]
    rows: dict[Key, Row] = field(default_factory=dict)
    indexed: bool = False


class ModelReplica:
    """Applies the frames of one connection after another.

    ``commits`` are the watermarks in order; ``transactions`` are (watermark, number of changed rows); ``reset`` is
    the body of a ``reset-required`` message, once one came.
    """

    def __init__(self) -> None:
        self.tables: dict[str, ModelTable] = {}
        self.commits: list[str] = []
        self.times: list[int | None] = []  # of the commits, as they say when MongoDB made the change
        self.transactions: list[tuple[str, int]] = []
        self.rollbacks = 0
        self.reset: dict[str, Any] | None = None
        self._open: str | None = None
        self._changes = 0
        # What undoes the open transaction, the latest last: (rows, key, the row that was there or None).
        self._undo: list[tuple[dict[Key, Row], Key, Row | None]] = []
        self._created: list[str] = []

    @property
    def open(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._open is not None

    @property
    def last_watermark(self) -> str:
        """The watermark of the last commit, "" before the first."""
        return self.commits[-1] if self.commits else ""

    def rows(self, table: str) -> dict[Key, Row]:
        """Rows by key; a table of another schema than public is called ``schema.name``."""
        return self.tables[table].rows

    def disconnect(self) -> None:
        """The connection is gone: what was not committed never happened."""
        self._revert()

    def apply(self, frame: str) -> str | None:
        """Apply one frame; return the watermark where it is a commit. ``ModelError`` where it is wrong."""
        require("\n" not in frame and "\r" not in frame, "a frame of several lines")
        require(len(frame) <= MAX_FRAME_BYTES, "a frame of", len(frame), "characters")
        require(self.reset is None, "a frame after reset-required:", frame[:200])
        message = orjson.loads(frame)
        if "\\u0000" in frame:
            _refuse_nul(message)
        match message:
            case ["begin", {"tag": "begin", **more}, {"commitWatermark": str(watermark), **rest}]:
                require(not more and not rest, "unknown keys in", frame[:200])
                self._begin(watermark)
            case ["commit", {"tag": "commit", **more}, {"watermark": str(watermark), **rest}]:
                require(not more.keys() - {"commitTimeMs"} and not rest, "unknown keys in", frame[:200])
                self._commit(watermark)
                self.times.append(more.get("commitTimeMs"))
                require(type(self.times[-1]) in (int, type(None)), "a commit at", self.times[-1])
                return watermark
            case ["rollback", {"tag": "rollback"}]:
                require(self.open, "rollback outside a transaction")
                self.rollbacks += 1
                self._revert()
            case ["data", dict(change)]:
                tag = change.pop("tag", None)
                require(self.open, tag, "outside a transaction")
                self._change(tag, change)
            case ["status", {"ack": bool()}, {"watermark": str()}]:
                pass
            case ["control", {"tag": "reset-required", "message": str()} as body]:
                self.reset = body
            case _:
                raise ModelError(f"not a message: {frame[:200]}")
        return None

    # Transactions.

    def _begin(self, watermark: str) -> None:
        require(not self.open, "begin within a transaction")
        major, dot, minor = watermark.partition(".")
        require(_is_lexi(major) and (not dot or _is_lexi(minor)), "not a watermark:", watermark)
        require(watermark > self.last_watermark, watermark, "does not rise above", self.last_watermark)
        self._open, self._changes = watermark, 0

    def _commit(self, watermark: str) -> None:
        require(self._open == watermark, "commit at", watermark, "of a transaction that began as", self._open)
        for name in self._created:
            require(self.tables[name].indexed, name, "has no unique index over its key")
        self.commits.append(watermark)
        self.transactions.append((watermark, self._changes))
        self._open = None
        self._undo.clear()
        self._created.clear()

    def _revert(self) -> None:
        for rows, key, before in reversed(self._undo):
            if before is None:
                rows.pop(key, None)
            else:
                rows[key] = before
        for name in self._created:
            del self.tables[name]
        self._open = None
        self._undo.clear()
        self._created.clear()

    # Changes.

    def _change(self, tag: object, change: dict[str, Any]) -> None:
        match tag, change:
            case "insert", {"relation": relation, "new": dict(row), **rest} if not rest:
                self._put(self._table(relation), row)
            case "update", {"relation": relation, "key": None, "new": dict(row), **rest} if not rest:
                self._put(self._table(relation), row)
            case "delete", {"relation": relation, "key": dict(key), **rest} if not rest:
                table = self._table(relation)
                require(set(key) == set(table.key), "the key", key, "is not", table.key)
                self._set(table, tuple(key[name] for name in table.key), None)
            case "truncate", {"relations": list(relations), **rest} if not rest:
                for table in map(self._table, relations):
                    for present in list(table.rows):
                        self._set(table, present, None)
            case "backfill", _:
                self._backfill(change)
            case "create-table", {"spec": dict(spec), "metadata": dict(metadata), **rest} if not rest:
                self._create_table(spec, metadata)
            case "create-index", {"spec": dict(spec), **rest} if not rest:
                self._create_index(spec)
            case _:
                raise ModelError(f"not a change: {tag} with {sorted(change)}")

    def _table(self, relation: dict[str, Any]) -> ModelTable:
        name = _full_name(relation)
        require(name in self.tables, "unknown table", name)
        table = self.tables[name]
        key = list(table.key)
        require(relation["rowKey"] == {"columns": key} and relation["keyColumns"] == key, "another key of", name)
        return table

    def _put(self, table: ModelTable, row: Row) -> None:
        require(set(row) == set(table.columns), "columns", sorted(row), "instead of", sorted(table.columns))
        for name, value in row.items():
            _check_value(name, value, *table.columns[name])
        self._set(table, tuple(row[name] for name in table.key), row)

    def _set(self, table: ModelTable, key: Key, row: Row | None) -> None:
        require(None not in key, "null in the key", key)
        self._changes += 1
        self._undo.append((table.rows, key, table.rows.get(key)))
        if row is None:
            table.rows.pop(key, None)
        else:
            table.rows[key] = row

    def _backfill(self, change: dict[str, Any]) -> None:
        require(set(change) == {"relation", "columns", "watermark", "rowValues"}, "backfill with", sorted(change))
        require(not self.commits, "backfill after the initial sync")
        require(change["watermark"] == self._open, "backfill at", change["watermark"], "within", self._open)
        table = self._table(change["relation"])
        columns = [*table.key, *change["columns"]]
        require(len(set(columns)) == len(columns), "a column comes twice in", columns)
        for values in change["rowValues"]:
            self._put(table, dict(zip(columns, values, strict=True)))

    def _create_table(self, spec: dict[str, Any], metadata: dict[str, Any]) -> None:
        name = _full_name(spec)
        require(name not in self.tables, name, "exists")
        key = tuple(spec["primaryKey"])
        columns = {column: (body["dataType"], body["notNull"]) for column, body in spec["columns"].items()}
        require(metadata == {"rowKey": {"columns": list(key)}}, "row key", metadata, "instead of", key)
        require(key and all(columns[column][1] for column in key), "the key of", name, "may be null")
        self.tables[name] = ModelTable(key, columns)
        self._created.append(name)

    def _create_index(self, spec: dict[str, Any]) -> None:
        table = self.tables[_full_name({"schema": spec["schema"], "name": spec["tableName"]})]
        require(spec["name"], "an index without a name")
        if spec["unique"] and all(table.columns[column][1] for column in spec["columns"]):
            table.indexed = True


def _full_name(relation: dict[str, Any]) -> str:
    return str(relation["name"]) if relation["schema"] == "public" else f"{relation['schema']}.{relation['name']}"


def _is_lexi(text: str) -> bool:
    match = LEXI.fullmatch(text)
    return match is not None and len(match[2]) == int(match[1], 36) + 1 and (match[2] == "0" or match[2][0] != "0")


def _check_value(column: str, value: object, data_type: str, not_null: bool) -> None:
    if value is None:
        require(not not_null, "null in", column)
        return
    match data_type:
        case "text":
            fits = isinstance(value, str)
        case "boolean":
            fits = isinstance(value, bool)
        case "float8" | "int8":
            fits = isinstance(value, float) or (type(value) is int and abs(value) <= MAX_SAFE_INTEGER)
        case "json":
            fits = True
        case _:
            raise ModelError(f"unknown type {data_type} of {column}")
    require(fits, repr(value)[:200], "in the", data_type, "column", column)


def _refuse_nul(value: object) -> None:
    match value:
        case str():
            require("\0" not in value, "U+0000 in a frame")
        case list():
            for item in value:
                _refuse_nul(item)
        case dict():
            for key, item in value.items():
                _refuse_nul(key)
                _refuse_nul(item)
