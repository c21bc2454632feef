"""Takes documents off the list of row errors once nothing is wrong with them any more.

Listed documents are looked at again, a few every few seconds, as MongoDB has them now; or at once, where an operator
wants to know (``services.retrying``). So the way of the data bears nothing of it, and an error goes whatever mended
it: the document, its deletion, or another mapping. Nothing has to be sent then: what mended it, a change of the
document or a publishing, brought its rows to the replicas by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from bson import json_util
from bson.errors import BSONError

from changesource.exceptions import TableStopped, ZerosourceError
from changesource.mapping.compiled import CompiledMapping, MappedTable, RowFault
from changesource.mapping.paths import Document
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
        found: dict[str, Sequence[Document]] = {}
        known = known_ids(listed, mapping)
        for name, ids in known.items():
            collection = mapping.tables[name].collection
            found[name] = await self._source.find(collection, list(ids.values()), mapping.needs[collection])
        return mended(listed, mapping, known, found)


def known_ids(listed: Iterable[Listed], mapping: CompiledMapping) -> dict[str, dict[str, object]]:
    """The ids that can be looked up, by table and by how they are shown."""
    by_table: dict[str, dict[str, object]] = {}
    for entry in listed:
        if entry.table in mapping.tables:
            # An _id that is too long to be listed whole cannot be looked up.
            for document_id in _ids(entry.document_id):
                by_table.setdefault(entry.table, {})[entry.document_id] = document_id
    return by_table


def mended(
    listed: Iterable[Listed],
    mapping: CompiledMapping,
    known: Mapping[str, Mapping[str, object]],
    found: Mapping[str, Sequence[Document]],
) -> list[Listed]:
    """The entries of which nothing is wrong any more, or whose table is gone.

    ``known`` is what ``known_ids`` gave, ``found`` the documents with these ids, by table.
    """
    wrong = {name: _wrong(mapping.tables[name], documents) for name, documents in found.items()}
    return [
        entry
        for entry in listed
        if entry.table not in mapping.tables
        or (
            entry.document_id in known.get(entry.table, {})
            and (entry.document_id, entry.column) not in wrong[entry.table]
        )
    ]


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
