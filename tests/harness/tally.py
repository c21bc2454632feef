"""Numbered documents, and a replica that counts them: a million rows would not fit in a reader's memory."""

from __future__ import annotations

from typing import Any

from pymongo.database import Database

from tests.harness.model import Key, ModelReplica, ModelTable, Row, require

COLLECTION, TABLE = "items", "item"
# Of another collection, so that a server can be warmed up by a replica that gets next to nothing.
WARM = "warm"
# Beside ``TABLE``, each of a collection of its own name, for what reads several at once.
MORE = ("item_b", "item_c", "item_d")
COLUMNS = {"id": {"type": "string", "path": "_id"}, "name": {"type": "string", "path": "name"}}
MAPPINGS: dict[str, Any] = {
    "tables": {
        table: {"collection": collection, "columns": COLUMNS, "primaryKey": ["id"], "idType": "string"}
        for table, collection in ((TABLE, COLLECTION), (WARM, WARM), *((name, name) for name in MORE))
    },
    "publications": {TABLE: [TABLE], WARM: [WARM], "several": [TABLE, *MORE]},
}
BATCH_BYTES = 1_000_000


def name(number: int, width: int) -> str:
    """Return the name of a document, of ``width`` characters at least."""
    return f"{number * 7919 % 1_000_003:x}".ljust(width, "x")


def insert(database: Database[Any], numbers: range, width: int, collection: str = COLLECTION) -> None:
    """Insert documents, fast, in their order."""
    step = max(1, BATCH_BYTES // (width + 50))
    for start in range(numbers.start, numbers.stop, step):
        part = range(start, min(start + step, numbers.stop))
        database[collection].insert_many([{"_id": f"{n:07}", "name": name(n, width)} for n in part])


class Tally(ModelReplica):
    """A model replica that keeps one byte of each number of ``TABLE`` and ``MORE``: it checks rows, none is dropped."""

    def __init__(self, width: int, rows: int) -> None:
        """``rows`` is how many there will be at most."""
        super().__init__()
        self.changes = 0
        self.cut = False
        self._width = width
        self._seen = bytearray(rows)

    @property
    def count(self) -> int:
        """How many different rows are here."""
        return self._seen.count(1)

    def _set(self, table: ModelTable, key: Key, row: Row | None) -> None:
        if table is self.tables.get(WARM) or table.key != ("id",):
            super()._set(table, key, row)
            return
        number = int(key[0])
        require(row == {"id": f"{number:07}", "name": name(number, self._width)}, "row", number, "is", str(row)[:200])
        self.changes += 1
        self._changes += 1
        self._seen[number] = 1

    def disconnect(self) -> None:
        """See ``ModelReplica``; what was counted cannot be taken back, so ``cut`` says whether that was needed."""
        self.cut = self.cut or self.open
        super().disconnect()
