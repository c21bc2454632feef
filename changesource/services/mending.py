"""Takes documents off the list of row errors once nothing is wrong with them any more.

Listed documents are looked at again, a few every few seconds, as MongoDB has them now. So the way of the data bears
nothing of it, and an error goes whatever mended it: the document, its deletion, or another mapping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from bson import json_util
from bson.errors import BSONError

from changesource.exceptions import TableStopped, ZerosourceError
from changesource.mapping.compiled import CompiledMapping, MappedTable, RowFault
from changesource.mapping.values import REPLACEMENT
from changesource.services.bookkeeping import read, write
from changesource.sources.base import ChangeSource
from changesource.store import row_errors
from changesource.store.row_errors import Listed

INTERVAL = 3.0
AT_ONCE = 200


class Mending:
    """Looks at the list from its beginning to its end, and begins anew."""

    def __init__(self, source: ChangeSource, mapping: Callable[[], Awaitable[CompiledMapping]]) -> None:
        """``mapping`` gives what is published now."""
        self._source = source
        self._mapping = mapping
        self._last = 0

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Look at the next few entries; what cannot be had now is looked at again later."""
        listed = await read(row_errors.after, [], self._last, AT_ONCE)
        self._last = listed[-1].pk if len(listed) == AT_ONCE else 0
        if not listed:
            return
        try:
            gone = await self._gone(listed)
        except ZerosourceError:
            return
        if gone:
            await write(row_errors.clear, gone)

    async def _gone(self, listed: list[Listed]) -> list[Listed]:
        mapping = await self._mapping()
        gone = [entry for entry in listed if entry.table not in mapping.tables]
        by_table: dict[str, dict[str, object]] = {}
        for entry in listed:
            if entry.table in mapping.tables:
                # An _id that is too long to be listed whole cannot be looked up.
                for document_id in _ids(entry.document_id):
                    by_table.setdefault(entry.table, {})[entry.document_id] = document_id
        for name, ids in by_table.items():
            table = mapping.tables[name]
            documents = await self._source.find(table.collection, list(ids.values()), mapping.needs[table.collection])
            wrong = _wrong(table, documents)
            gone += (
                entry
                for entry in listed
                if entry.table == name and entry.document_id in ids and (entry.document_id, entry.column) not in wrong
            )
        return gone


def _ids(shown: str) -> list[object]:
    # What could not be decoded is not shown as it is.
    if REPLACEMENT in shown or shown == "null":
        return []
    try:
        return [json_util.loads(shown)]
    except (ValueError, TypeError, KeyError, BSONError):
        return []


def _wrong(table: MappedTable, documents: Iterable[Mapping[str, object]]) -> set[tuple[str, str]]:
    """The documents, by their shown ids, and columns that do not fit even now."""
    faults: list[RowFault] = []
    for document in documents:
        # A table that stops tells of the first thing alone; the others are told once that is mended.
        with suppress(TableStopped):
            table.encoded(document, table.inserts, faults.append)
    return {(fault.document_id, fault.column) for fault in faults}
