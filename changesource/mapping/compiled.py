"""A published specification, compiled once: which collection feeds which tables, and what a change makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bson import json_util
from bson.binary import UuidRepresentation

from changesource.exceptions import RowRejected, UnknownPublication
from changesource.mapping.documents import Salvaged
from changesource.mapping.fingerprint import replica_fingerprint, table_fingerprint
from changesource.mapping.rows import CompiledTable, JsonRow, compile_table
from changesource.mapping.spec import Specification, TableSpec
from changesource.protocol.messages import TableFrames
from changesource.protocol.tables import mapped_table

# A frame may have 64 MiB; a row beyond half of it is left out, as is one that does not fit its columns.
MAX_ROW_BYTES = 32 * 1024 * 1024


MAX_ID_LENGTH = 500
SHOWN = json_util.RELAXED_JSON_OPTIONS.with_options(uuid_representation=UuidRepresentation.STANDARD)


@dataclass(frozen=True)
class RowFault:
    """A document that gave no row (``left_out``), or one with a value nulled, in one table.

    ``document_id`` is its ``_id`` in extended JSON, cut to 500 characters.
    """

    table: str
    document_id: str
    column: str
    reason: str
    left_out: bool


Report = Callable[[RowFault], None]


def ignore_fault(fault: RowFault) -> None:
    """Take no note of ``fault``: the leading watcher and the initial sync report for everybody."""


def _shown_id(document: Mapping[str, object]) -> str:
    return json_util.dumps(document.get("_id"), json_options=SHOWN)[:MAX_ID_LENGTH]


class MappedTable:
    """One Zero table: makes its rows of documents and its frames of rows."""

    def __init__(self, spec: TableSpec, database: str) -> None:
        """Compile ``spec`` for documents of ``database``; ``MappingError`` where it is wrong."""
        self.name = spec.name
        self.collection = spec.collection
        self._skips = spec.error_policy == "skip"
        self.compiled: CompiledTable = compile_table(spec)
        self.fingerprint = table_fingerprint(database, spec)
        self.table = mapped_table(
            spec.name, ((c.name, c.type, c.optional) for c in spec.columns), self.compiled.key_columns
        )
        self.frames = TableFrames(self.table)
        self.columns = self.compiled.column_names[len(self.compiled.key_columns) :]

    def row(self, document: Mapping[str, object], report: Report) -> JsonRow | None:
        """Return the row of ``document``, None where the filter or an error leaves it out."""
        if isinstance(document, Salvaged) and not self._takes(document, report):
            return None
        try:
            row, faults = self.compiled.row_with_errors(document)
        except RowRejected as error:
            report(RowFault(self.name, _shown_id(document), error.column, error.reason, left_out=True))
            return None
        for fault in faults:
            report(RowFault(self.name, _shown_id(document), fault.column, fault.reason, left_out=False))
        return row

    def _takes(self, document: Salvaged, report: Report) -> bool:
        """Report the fields that cannot be decoded, by the error policy as missing or as a row left out."""
        left_out = self._skips
        for name in document.unreadable:
            reason = "its BSON cannot be decoded by the driver"
            report(RowFault(self.name, _shown_id(document), name, reason, left_out))
        return not left_out

    def upsert(
        self, document: Mapping[str, object], encode: Callable[[JsonRow], bytes], report: Report
    ) -> bytes | None:
        """Return ``document``'s frame by ``encode``, None where it has no row here."""
        try:
            row = self.row(document, report)
            frame = None if row is None else encode(row)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            # A value that nobody foresaw must not stop the stream: its row is left out, and listed.
            reason = f"{type(error).__name__} while the row was made"
            report(RowFault(self.name, _shown_id(document), "", reason, left_out=True))
            return None
        if frame is not None and len(frame) > MAX_ROW_BYTES:
            reason = f"the row has {len(frame)} bytes, {MAX_ROW_BYTES} are allowed"
            report(RowFault(self.name, _shown_id(document), "", reason, left_out=True))
            return None
        return frame

    def delete(self, document_id: object) -> list[bytes]:
        """Return the frame that deletes the document's row; none for an ``_id`` that can have no row."""
        try:
            return [self.frames.delete(self.compiled.key(document_id))]
        except RowRejected:
            return []


class CompiledMapping:
    """All tables of one revision, or a replica's part of them."""

    def __init__(self, tables: Iterable[MappedTable], publications: Mapping[str, tuple[str, ...]]) -> None:
        """``publications`` maps names to table names."""
        self.tables = {table.name: table for table in tables}
        self.publications = publications
        self.fingerprints = {name: table.fingerprint for name, table in self.tables.items()}
        self.fingerprint = replica_fingerprint(self.fingerprints.values())
        self.by_collection: dict[str, list[MappedTable]] = {}
        for table in self.tables.values():
            self.by_collection.setdefault(table.collection, []).append(table)

    @property
    def relief(self) -> bytes:
        """The frame that makes zero-cache write out a part of a huge transaction; empty without tables."""
        return next((table.frames.relief for table in self.tables.values()), b"")

    @classmethod
    def compile(cls, specification: Specification, database: str) -> CompiledMapping:
        """Compile the enabled tables; ``MappingError`` where one is wrong."""
        tables = [MappedTable(spec, database) for spec in specification.tables if spec.enabled]
        return cls(tables, specification.publications)

    def published(self, publications: Iterable[str]) -> CompiledMapping:
        """Return the part that a replica of ``publications`` gets; none named means all tables."""
        names: set[str] = set()
        asked = list(publications)
        for publication in asked:
            if publication not in self.publications:
                raise UnknownPublication(f"The publication {publication[:80]!r} does not exist.")
            names.update(self.publications[publication])
        if not asked:
            return self
        return CompiledMapping([t for t in self.tables.values() if t.name in names], self.publications)
