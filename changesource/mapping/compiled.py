"""A published specification, compiled once: which collection feeds which tables, and what a change makes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bson import json_util
from bson.binary import UuidRepresentation

from changesource.exceptions import RowRejected, StoppedAt, TableStopped, UnknownPublication
from changesource.mapping.budget import ALL_STEPS, Exhausted, Together
from changesource.mapping.documents import Salvaged
from changesource.mapping.fingerprint import DEFAULT_ROW_BYTES, replica_fingerprint, table_fingerprint
from changesource.mapping.needs import Needs, fields_of, needs_of
from changesource.mapping.paths import Document
from changesource.mapping.rows import UNFORESEEN, CompiledTable, JsonRow, Problem, compile_table
from changesource.mapping.spec import Json, Specification, TableSpec
from changesource.protocol.messages import TableFrames, dumps
from changesource.protocol.tables import mapped_table

# A frame may have 64 MiB; a row beyond half of it is left out, as is one that does not fit its columns. A deployment
# may allow less.
MAX_ROW_BYTES = DEFAULT_ROW_BYTES
# What one document may become in all: where an array is unwound, each row may repeat what is beside it.
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
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


class Encoder(NamedTuple):
    """Makes bytes of a row; ``overhead`` is how many more they are than the row as JSON, whatever the row.

    So a row has one size, however it is sent.
    """

    encode: Callable[[JsonRow], bytes]
    overhead: int


def ignore_fault(fault: RowFault) -> None:
    """Take no note of ``fault``: the leading watcher and the initial sync report for everybody."""


def shown_id(document: Mapping[str, object]) -> str:
    """The document's ``_id`` in extended JSON, cut to 500 characters."""
    return json_util.dumps(document.get("_id"), json_options=SHOWN)[:MAX_ID_LENGTH]


class MappedTable:
    """One Zero table: makes its rows of documents and its frames of rows."""

    def __init__(self, spec: TableSpec, database: str, max_row_bytes: int | None = None) -> None:
        """Compile ``spec`` for documents of ``database``; ``MappingError`` where it is wrong.

        A row of more than ``max_row_bytes`` as JSON is left out; None: of more than 32 MiB.
        """
        self.max_row_bytes = max_row_bytes or MAX_ROW_BYTES
        self.spec = spec
        self.name = spec.name
        self.collection = spec.collection
        self._policy = spec.error_policy
        self.compiled: CompiledTable = compile_table(spec)
        self.has_history = self.compiled.has_history
        # What most tables are: one row a document at most, read from the document itself.
        self.is_plain = self.compiled.pipeline is None and not self.has_history
        self.fingerprint = table_fingerprint(database, spec, self.max_row_bytes)
        self.table = mapped_table(
            spec.name, ((c.name, c.type, c.optional) for c in spec.columns), self.compiled.key_columns
        )
        self.frames = TableFrames(self.table)
        self.columns = self.compiled.column_names[len(self.compiled.key_columns) :]
        self.inserts = Encoder(self.frames.insert, len(self.frames.insert({})) - len("{}"))
        self.updates = Encoder(self.frames.update, len(self.frames.update({})) - len("{}"))
        names = self.compiled.column_names
        self.values = Encoder(_values, -sum(len(dumps(name)) + len(":") for name in names))
        self._fields = fields_of(spec)

    def fits(self, frame: bytes, encoder: Encoder) -> bool:
        """Whether the row that ``encoder`` made this frame of is not too large."""
        return len(frame) - encoder.overhead <= self.max_row_bytes

    def encoded(self, document: Document, encoder: Encoder, report: Report) -> list[bytes]:
        """The document's rows by ``encoder``, those that fit; ``report`` hears of what does not.

        ``TableStopped`` where something does not fit and the table's policy is to stop then.
        """
        return [frame for _, frame in self._encoded(document, encoder, report)]

    def changed(self, before: Document, after: Document | None, report: Report) -> list[bytes]:
        """The frames that make of the rows of ``before`` those of ``after`` (None: none): what differs, no more."""
        names = self.compiled.key_columns
        # What did not fit was reported when it came.
        old = {_key(row, names): frame for row, frame in self._encoded(before, self.updates, None)}
        rows = () if after is None else self._encoded(after, self.updates, report)
        new = {_key(row, names): frame for row, frame in rows}
        gone = [self.frames.delete(dict(zip(names, key, strict=True))) for key in old if key not in new]
        return gone + [frame for key, frame in new.items() if old.get(key) != frame]

    def delete(self, document_id: object) -> list[bytes]:
        """The frame that deletes the row of a table without history; none for an ``_id`` that can have no row."""
        try:
            return [self.frames.delete(self.compiled.key(document_id))]
        except RowRejected:
            return []

    def _encoded(self, document: Document, encoder: Encoder, report: Report | None) -> list[tuple[JsonRow, bytes]]:
        """The rows, each with its bytes; without a ``report`` nothing is said, and nothing stops."""
        if isinstance(document, Salvaged) and not self._takes(document, report):
            return []
        encode, overhead = encoder
        found: list[tuple[JsonRow, bytes]] = []
        total = 0
        try:
            with Together(ALL_STEPS):
                for row in self._rows(document, report):
                    frame = encode(row)
                    size = len(frame) - overhead
                    total += size
                    if total > MAX_DOCUMENT_BYTES:
                        reason = f"its rows have more than the {MAX_DOCUMENT_BYTES} bytes that are allowed"
                        self._tell(document, Problem("", reason, left_out=True), report)
                        return []
                    if size <= self.max_row_bytes:
                        found.append((row, frame))
                    else:
                        reason = f"the row has {size} bytes, {self.max_row_bytes} are allowed"
                        self._tell(document, Problem("", reason, left_out=True), report)
        except Exhausted:
            reason = "its filter and columns take more steps together than one document may"
            self._tell(document, Problem("", reason, left_out=True), report)
            return []
        except UNFORESEEN as error:
            # A value that nobody foresaw must not stop the stream: its rows are left out, and listed.
            reason = f"{type(error).__name__} while the row was made"
            self._tell(document, Problem("", reason, left_out=True), report)
            return []
        return found

    def _rows(self, document: Document, report: Report | None) -> Iterable[JsonRow]:
        return self._one_row(document, report) if self.is_plain else self._many_rows(document, report)

    def _many_rows(self, document: Document, report: Report | None) -> Iterator[JsonRow]:
        for found in self.compiled.rows(document):
            if isinstance(found, Problem):
                self._tell(document, found, report)
            else:
                yield found

    def _one_row(self, document: Document, report: Report | None) -> Sequence[JsonRow]:
        try:
            row, tolerated = self.compiled.row_with_errors(document)
        except RowRejected as error:
            self._tell(document, Problem(error.column, error.reason, left_out=True), report)
            return ()
        for value in tolerated:
            self._tell(document, Problem(value.column, value.reason, left_out=False), report)
        return () if row is None else (row,)

    def _takes(self, document: Salvaged, report: Report | None) -> bool:
        """Report the fields that cannot be decoded, by the error policy as missing or as rows left out.

        Only those that the mapping reads: others may come along or not.
        """
        unreadable = [name for name in document.unreadable if self._fields is None or name in self._fields]
        left_out = self._policy == "skip"
        for name in unreadable:
            self._tell(document, Problem(name, "its BSON cannot be decoded by the driver", left_out), report)
        return not (unreadable and left_out)

    def _tell(self, document: Document, problem: Problem, report: Report | None) -> None:
        if report is None:
            return
        fault = RowFault(self.name, shown_id(document), problem.column, problem.reason, problem.left_out)
        report(fault)
        if self._policy == "stop":
            where = StoppedAt(self.collection, document.get("_id"))
            raise TableStopped(fault.table, fault.document_id, fault.column, fault.reason, where)


def _values(row: JsonRow) -> bytes:
    return dumps(list(row.values()))


def _key(row: JsonRow, names: tuple[str, ...]) -> tuple[Json, ...]:
    return tuple([row[name] for name in names])


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
        self.needs: Needs = {
            name: needs_of((table.spec, table.has_history) for table in fed) for name, fed in self.by_collection.items()
        }

    @property
    def with_history(self) -> Collection[str]:
        """The collections of which changes can be told only beside what was before."""
        return [name for name, need in self.needs.items() if need.history]

    @property
    def relief(self) -> bytes:
        """The frame that makes zero-cache write out a part of a huge transaction; empty without tables."""
        return next((table.frames.relief for table in self.tables.values()), b"")

    @classmethod
    def compile(cls, specification: Specification, database: str, max_row_bytes: int | None = None) -> CompiledMapping:
        """Compile the enabled tables, as ``MappedTable`` says; ``MappingError`` where one is wrong."""
        tables = [MappedTable(spec, database, max_row_bytes) for spec in specification.tables if spec.enabled]
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
