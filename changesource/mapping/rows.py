"""Documents to rows: a table's mapping, compiled once and applied to each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from changesource.exceptions import RowRejected
from changesource.mapping.budget import Allowance
from changesource.mapping.checks import check_table
from changesource.mapping.expressions import Expression, compile_expression
from changesource.mapping.expressions.sizes import checked_size
from changesource.mapping.filters import compile_filter
from changesource.mapping.key_columns import TableKey, compile_table_key
from changesource.mapping.keys import Image
from changesource.mapping.paths import MISSING, Document, Predicate, reader, split_path
from changesource.mapping.pipelines import Pipeline, PipelineFailed, compile_pipeline
from changesource.mapping.spec import ColumnSpec, Json, TableSpec
from changesource.mapping.values import Converters, converters_of

JsonRow: TypeAlias = dict[str, Json]
# Name, the image, the reader (None: the document's ``_id``), the guard.
_KeyColumn: TypeAlias = tuple[str, Image, Expression | None, Image | None]
# What code may raise at a value that nobody foresaw.
UNFORESEEN = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


class Column(NamedTuple):
    """A column besides the key's: where its values are read, and what becomes of them.

    ``field`` is the document's field that it shows, "" where more than that takes reading.
    """

    name: str
    field: str
    read: Callable[[Document], object]
    converters: Converters
    optional: bool


class Problem(NamedTuple):
    """Something in a document that does not fit: it left a row out, or a value became null."""

    column: str
    reason: str
    left_out: bool


@dataclass(frozen=True, eq=False)
class CompiledTable:
    """A table's mapping, ready to be applied; made by ``compile_table`` alone.

    ``column_names`` begins with the key's, ``columns`` are those besides it; ``matches`` is the filter, if it has one,
    which may raise ``ValueError``. ``counts`` says how many values were replaced, by what was wrong with them
    ("nul", "surrogate", "nan").
    """

    spec: TableSpec
    column_names: tuple[str, ...]
    table_key: TableKey
    pipeline: Pipeline | None
    matches: Predicate | None
    columns: tuple[Column, ...]
    _keys: tuple[_KeyColumn, ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The Zero table's name."""
        return self.spec.name

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The names of the key's columns."""
        return self.spec.primary_key

    @property
    def has_history(self) -> bool:
        """Whether a change can only be told beside the document as it was before: its ``_id`` does not say its rows."""
        multiplies = self.pipeline is not None and self.pipeline.multiplies
        return multiplies or not self.table_key.of_id_alone

    def rows(self, document: Document) -> Iterator[JsonRow | Problem]:
        """Give the document's rows, each in the order of ``column_names``, and what does not fit, one after the other.

        Of two rows with one key the first stays. Where the rows take too many steps together, the others are left out.
        """
        allowance = Allowance()
        try:
            if self.matches is not None and not self.matches(document):
                return
            shaped = (document,) if self.pipeline is None else allowance.spend(self.pipeline, document)
        except PipelineFailed as exc:
            yield Problem("", str(exc), left_out=True)
            return
        except ValueError as exc:
            yield Problem("", f"filter: {exc}", left_out=True)
            return
        keys: set[tuple[Json, ...]] = set()
        for one in shaped:
            try:
                row, tolerated = allowance.spend(self._row, document.get("_id", MISSING), one)
            except RowRejected as error:
                yield Problem(error.column, error.reason, left_out=True)
                if allowance.is_spent:
                    return
                continue
            for value in tolerated:
                yield Problem(value.column, value.reason, left_out=False)
            key = tuple(row[name] for name in self.key_columns)
            if key in keys:
                yield Problem(self.key_columns[-1], "another row of the same document has this key", left_out=True)
            else:
                keys.add(key)
                yield row
            if allowance.is_spent:
                yield Problem("", "the document's other rows would take too many steps", left_out=True)
                return

    def row_with_errors(self, document: Document) -> tuple[JsonRow | None, tuple[RowRejected, ...]]:
        """The one row of a document of a table without a pipeline, and the values that became null in it.

        None where the filter leaves it out; ``RowRejected`` where the document gives no valid row.
        """
        if self.matches is not None:
            try:
                if not self.matches(document):
                    return None, ()
            except ValueError as exc:
                raise RowRejected("", f"filter: {exc}") from exc
        return self._row(document.get("_id", MISSING), document)

    def _row(self, document_id: object, document: Document) -> tuple[JsonRow, tuple[RowRejected, ...]]:
        row = self._key(document_id, document)
        errors: tuple[RowRejected, ...] = ()
        counts = self.counts
        for name, plain, read, converters, optional in self.columns:
            try:
                value = document.get(plain) if plain else read(document)
                converted = None if value is None else converters[type(value)](value, counts)
            except ValueError as exc:
                errors += (self._tolerated(name, optional, exc),)
                converted = None
            else:
                if converted is None and not optional:
                    raise RowRejected(name, _NULL if value is None else _NOT_FINITE)
            row[name] = converted
        return row, errors

    def _tolerated(self, name: str, optional: bool, reason: ValueError) -> RowRejected:
        """The error to report where the table's policy makes such a value null; raised where it does not."""
        error = RowRejected(name, str(reason))
        if optional and self.spec.error_policy == "coerce":
            return error
        raise error from reason

    def _key(self, document_id: object, document: Document) -> JsonRow:
        row: JsonRow = {}
        for name, image, read, guard in self._keys:
            try:
                if guard is not None:
                    guard(document_id)
                row[name] = image(document_id if read is None else read(document))
            except ValueError as exc:
                raise RowRejected(name, str(exc)) from exc
        return row

    def key(self, document_id: object) -> JsonRow:
        """The key of the document with this ``_id``, of a table without history; ``RowRejected`` where it has none."""
        return self._key(document_id, {})


_NULL = "missing or null"
_NOT_FINITE = "NaN and infinities become null, which the column does not take"


def compile_table(spec: TableSpec) -> CompiledTable:
    """Check ``spec`` and make it ready; ``MappingError`` names the first place that is wrong or not supported."""
    check_table(spec)
    place = f"tables.{spec.name}"
    matches = compile_filter(spec.filter, f"{place}.filter") if spec.filter else None
    pipeline = compile_pipeline(spec.pipeline, f"{place}.pipeline")
    key = compile_table_key(spec, pipeline.provenance)
    others = [column for column in spec.columns if column.name not in spec.primary_key]
    return CompiledTable(
        spec=spec,
        column_names=(*spec.primary_key, *(column.name for column in others)),
        table_key=key,
        pipeline=pipeline if spec.pipeline else None,
        matches=matches,
        columns=tuple(_compile_column(spec, column, f"{place}.columns.{column.name}") for column in others),
        _keys=tuple((column.name, column.image, column.read, column.guard) for column in key.columns),
    )


def _compile_column(spec: TableSpec, column: ColumnSpec, place: str) -> Column:
    converters = converters_of(column.type, spec.large_integers)
    if column.path:
        path = split_path(column.path, f"{place}.path")
        if spec.pipeline and column.type == "json":
            # Of what the stages made, which may be more than the document.
            plain = reader(path)
            return Column(column.name, "", lambda document: checked_size(plain(document)), converters, column.optional)
        field = path[0] if len(path) == 1 else ""
        return Column(column.name, field, reader(path), converters, column.optional)
    expression = compile_expression(column.expression, f"{place}.expression")

    def read(document: Mapping[str, object]) -> object:
        value = expression(document)
        return None if value is MISSING else value

    return Column(column.name, "", read, converters, column.optional)
