"""Many documents at once to encoded rows, column by column: a snapshot's way, and that of changes that come in numbers.

What is quick here has no effects. A document that it does not suit goes by ``MappedTable.encoded`` alone, which stays
the one place that says what a row is, what does not fit and what is told of it; where a whole block cannot be encoded,
all of it does. So no document is mapped more than twice, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from changesource.mapping.budget import BLOCK_STEPS, Exhausted, Together
from changesource.mapping.columns import convert_column, convert_key, read_column
from changesource.mapping.compiled import MappedTable, Report
from changesource.mapping.documents import Salvaged
from changesource.mapping.paths import MISSING, Document
from changesource.mapping.rows import UNFORESEEN
from changesource.mapping.spec import Json
from changesource.protocol.messages import dumps

PASSES, FILTERED = b"passes", b""


class EncodedRows(NamedTuple):
    """Some rows of one table, as many as ``rows`` says: each the JSON of a list, with commas between."""

    body: bytes | memoryview
    rows: int


NOTHING = EncodedRows(b"", 0)
"""Comes after each document that goes by itself since it may take long: no rows, but a place to let others go on."""


class Blocks:
    """Makes encoded rows of one table of many documents at once."""

    def __init__(self, table: MappedTable, most_rows: int = 1, most_bytes: int = 1) -> None:
        """What comes at once has at most ``most_rows``, and no more bytes than ``most_bytes``, but for a single row.

        ``most_bytes`` is cut to half of what a row may have.
        """
        self._table = table
        self._compiled = table.compiled
        self._most_rows = most_rows
        self._most_bytes = min(most_bytes, table.max_row_bytes // 2)
        # As many as take three quarters of the bytes, going by those before.
        self._at_once = most_rows

    def encoded(self, documents: Sequence[Document], report: Report) -> Iterator[EncodedRows]:
        """All rows of ``documents``, in their order: what ``MappedTable.encoded`` by its ``values`` gives of each.

        ``report`` and ``TableStopped`` are as there.
        """
        if not self._table.is_plain:
            yield from self._slowly(documents, report)
            return
        try:
            with Together(BLOCK_STEPS):
                passing, odd = self._passing(documents)
        except Exhausted:
            yield from self._slowly(documents, report)
            return
        start = 0
        while start < len(passing):
            end = start + self._at_once
            yield from self._block(passing[start:end], odd[start:end], report)
            start = end

    def frames(self, documents: Sequence[Document], *, inserted: bool) -> list[bytes | None]:
        """The one frame that ``MappedTable.encoded`` gives of each document of a plain table, with nothing to report.

        By its ``inserts`` or else its ``updates``.

        ``FILTERED`` for a document that the filter leaves out; None for one that must go that way, since it may have
        something to report.
        """
        table, names = self._table, self._compiled.column_names
        encoder, encode_each = (
            (table.inserts, table.frames.inserts) if inserted else (table.updates, table.frames.updates)
        )
        try:
            with Together(BLOCK_STEPS):
                verdicts = list(map(self._verdict, documents))
                passing = [document for document, verdict in zip(documents, verdicts, strict=True) if verdict is PASSES]
                odd = bytearray(len(passing))
                rows = self._rows(passing, odd)
            frames = encode_each([dict(zip(names, row, strict=True)) for row in rows])
        except (Exhausted, *UNFORESEEN):
            return [None] * len(documents)
        made = iter(zip(frames, odd, strict=True))
        found: list[bytes | None] = []
        for verdict in verdicts:
            if verdict is not PASSES:
                found.append(verdict)
                continue
            frame, is_odd = next(made)
            found.append(None if is_odd or not self._table.fits(frame, encoder) else frame)
        return found

    def _verdict(self, document: Document) -> bytes | None:
        """``PASSES``, ``FILTERED``, or None for a document that goes by itself."""
        if isinstance(document, Salvaged):
            return None
        matches = self._compiled.matches
        try:
            return PASSES if matches is None or matches(document) else FILTERED
        except UNFORESEEN:
            return None

    def _slowly(self, documents: Sequence[Document], report: Report) -> Iterator[EncodedRows]:
        for document in documents:
            yield from self._plainly(document, report)
            yield NOTHING

    def _plainly(self, document: Document, report: Report) -> Iterator[EncodedRows]:
        for row in self._table.encoded(document, self._table.values, report):
            yield EncodedRows(row, 1)

    def _passing(self, documents: Sequence[Document]) -> tuple[Sequence[Document], bytearray]:
        """The documents that the filter lets pass; those that are odd are among them, and marked by a 1."""
        if self._compiled.matches is None and Salvaged not in set(map(type, documents)):
            return documents, bytearray(len(documents))
        passing: list[Document] = []
        odd = bytearray()
        for document in documents:
            verdict = self._verdict(document)
            if verdict != FILTERED:
                passing.append(document)
                odd.append(verdict is None)
        return passing, odd

    def _block(self, documents: Sequence[Document], odd: bytearray, report: Report) -> Iterator[EncodedRows]:
        """The rows of documents that passed the filter: what stands between odd ones at once."""
        try:
            with Together(BLOCK_STEPS):
                rows = self._rows(documents, odd)
        except Exhausted:
            yield from self._slowly(documents, report)
            return
        begin = 0
        while (place := odd.find(1, begin)) >= 0:
            yield from self._encoded(documents[begin:place], rows[begin:place], report)
            yield from self._plainly(documents[place], report)
            begin = place + 1
        yield from self._encoded(documents[begin:], rows[begin:], report)

    def _rows(self, documents: Sequence[Document], odd: bytearray) -> list[tuple[Json, ...]]:
        """A row of each document; that of an odd one, which is marked by a 1, is nothing to use."""
        ids = [document.get("_id", MISSING) for document in documents]
        columns = [convert_key(key.image, ids, odd) for key in self._compiled.table_key.columns]
        for column in self._compiled.columns:
            columns.append(convert_column(column, read_column(column, documents, odd), odd))
        return list(zip(*columns, strict=True))

    def _encoded(
        self, documents: Sequence[Document], rows: Sequence[tuple[Json, ...]], report: Report
    ) -> Iterator[EncodedRows]:
        """The encoded ``rows``, in parts where they are too many bytes; ``documents`` are those they are of."""
        count = len(rows)
        if not count:
            return
        try:
            body = memoryview(dumps(rows))[1:-1]
        except UNFORESEEN:
            for document in documents:
                yield from self._plainly(document, report)
            return
        size = len(body)
        self._at_once = min(self._most_rows, max(1, count * self._most_bytes * 3 // (size * 4)))
        if size <= self._most_bytes:
            yield EncodedRows(body, count)
            return
        # Before its parts are made: together they are as large.
        del body
        if count == 1:
            # Whether it is too large is said there.
            yield from self._plainly(documents[0], report)
        else:
            # In two parts at least, so that rows of unlike sizes are encoded no more than a few times.
            step = -(-count // -(-size // self._most_bytes))
            for start in range(0, count, step):
                yield from self._encoded(documents[start : start + step], rows[start : start + step], report)
