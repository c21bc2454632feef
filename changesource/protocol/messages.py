"""Downstream messages: each function returns one text frame's JSON, as UTF-8.

Values have been made clean by ``mapping.values``; what cannot be encoded here is a bug and raises ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import orjson

from changesource.protocol.tables import Table, required_tables
from changesource.protocol.watermark import Watermark

BACKSLASH = b"\\"
# U+0000 stops zero-cache's catch-up for good, so it may not leave even where a value slipped by the mapping.
NUL = b"\\u0000"
# Within a value JSON has no raw line break.
LINE_BREAK, BREAK = orjson.Fragment(b"\n"), b",\n,"


def dumps(value: object) -> bytes:
    """Return ``value`` as JSON on one line; ``TypeError`` where zero-cache could not store it."""
    # Mapped numbers are doubles: an integer beyond 2^53 - 1 would be rounded, one beyond int64 end zero-cache.
    encoded = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    # Most rows have no backslash at all, and to look for one byte takes a fiftieth of the time.
    if BACKSLASH in encoded and NUL in encoded and _holds_nul(value):
        raise TypeError("U+0000 in a frame")
    return encoded


def dumps_each(values: Sequence[object]) -> list[bytes]:
    """Return what ``dumps`` gives of each value, by one call; ``TypeError`` where it raises that for one of them."""
    if not values:
        return []
    marked: list[object] = [LINE_BREAK] * (2 * len(values))
    marked[::2] = values
    return dumps(marked)[1 : -len(BREAK)].split(BREAK)


def _holds_nul(value: object) -> bool:
    # The encoded form alone does not tell: a backslash followed by the letters u0000 looks alike.
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


def begin(watermark: Watermark) -> bytes:
    """Open a transaction that commits at ``watermark``."""
    return b'["begin",{"tag":"begin"},{"commitWatermark":"%s"}]' % str(watermark).encode()


def commit(watermark: Watermark, time_ms: int = 0) -> bytes:
    """Commit the transaction; ``watermark`` must be its begin's.

    ``time_ms`` is when MongoDB made the change, in milliseconds since 1970; 0 leaves it out. zero-cache measures by it
    how long the change takes to its clients (``zero.sync.e2e_serving_lag``).
    """
    time = b',"commitTimeMs":%d' % time_ms if time_ms else b""
    return b'["commit",{"tag":"commit"%s},{"watermark":"%s"}]' % (time, str(watermark).encode())


def rollback() -> bytes:
    """Drop what was sent since begin; the watermark may be used again."""
    return b'["rollback",{"tag":"rollback"}]'


def reset_required(message: str, code: str) -> bytes:
    """Make zero-cache drop its replica and sync anew.

    ``message`` is what its operator reads: zero-cache 1.9.0 logs ``errorDetails`` alone, so it stands there as well.
    """
    details = {"code": code, "message": message}
    return dumps(["control", {"tag": "reset-required", "message": message, "errorDetails": details}])


def data(change: dict[str, object]) -> bytes:
    """Return a schema or data change as a frame."""
    return dumps(["data", change])


def create_tables(tables: Iterable[Table], app_id: str, shard_num: int) -> list[bytes]:
    """Return the frames that create the mapped and the required tables.

    The row of ``permissions`` is among them: without it every client connection dies.
    """
    required = required_tables(app_id, shard_num)
    frames = [data(change) for table in (*required, *tables) for change in table.create()]
    frames.append(TableFrames(required[2]).insert({"lock": True, "permissions": None, "hash": None}))
    return frames


class TableFrames:
    """Encodes the changes of one table; what is the same in every frame is encoded once."""

    def __init__(self, table: Table) -> None:
        """``table`` is the table as it was created in the replica."""
        self.table = table
        relation = dumps(table.relation())
        self._insert = b'["data",{"tag":"insert","relation":' + relation + b',"new":'
        self._update = b'["data",{"tag":"update","relation":' + relation + b',"key":null,"new":'
        self._delete = b'["data",{"tag":"delete","relation":' + relation + b',"key":'
        self._backfill = b'["data",{"tag":"backfill","relation":' + relation + b","
        self._relation = relation

    @cached_property
    def relief(self) -> bytes:
        """A change that says again what zero-cache knows of the table, for the middle of a huge transaction.

        zero-cache joins up to 2,000 consecutive changes of a transaction into one string, which V8 bounds to 512 MB,
        but writes out what it has before a change of this kind.
        """
        identifier = {"schema": self.table.schema, "name": self.table.name}
        metadata = {"rowKey": {"columns": list(self.table.key)}}
        change = {"tag": "update-table-metadata", "table": identifier, "old": metadata, "new": metadata}
        return dumps(["data", change])

    @cached_property
    def truncate(self) -> bytes:
        """The frame that empties the table."""
        return b'["data",{"tag":"truncate","relations":[' + self._relation + b"]}]"

    def insert(self, row: object) -> bytes:
        """``row`` is {column: value}; zero-cache applies it as insert or replace."""
        return self._insert + dumps(row) + b"}]"

    def update(self, row: object) -> bytes:
        """``row`` is the whole new row; where it is absent zero-cache inserts it.

        The protocol's ``key`` stays null: a key that changes is a delete and an insert, since zero-cache exits on
        a new key that exists.
        """
        return self._update + dumps(row) + b"}]"

    def inserts(self, rows: Sequence[object]) -> list[bytes]:
        """What ``insert`` gives of each row, for a fraction of the time."""
        return [self._insert + row + b"}]" for row in dumps_each(rows)]

    def updates(self, rows: Sequence[object]) -> list[bytes]:
        """What ``update`` gives of each row, for a fraction of the time."""
        return [self._update + row + b"}]" for row in dumps_each(rows)]

    def delete(self, key: object) -> bytes:
        """``key`` is {key column: value}; an absent row is no error."""
        return self._delete + dumps(key) + b"}]"

    def backfill(self, columns: Sequence[str], rows: Iterable[bytes | memoryview], watermark: Watermark) -> bytes:
        """Many rows in one frame, for the initial sync alone.

        ``columns`` are those after the key's; a row is the JSON of a list: the key's values, then the columns'.
        Several rows may be one item, with commas between them.
        ``watermark`` must be the transaction's own.
        """
        head = dumps({"columns": columns, "watermark": str(watermark)})
        parts: list[bytes | memoryview] = [self._backfill, head[1:-1], b',"rowValues":[']
        for row in rows:
            parts += (row, b",")
        if parts[-1] == b",":
            parts.pop()
        parts.append(b"]}]")
        # Joined once: at this size each copy takes as long as the encoding does.
        return b"".join(parts)
