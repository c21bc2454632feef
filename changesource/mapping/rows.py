"""Documents to rows: a table's mapping, compiled once and applied to each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from changesource.exceptions import RowRejected
from changesource.mapping.checks import check_table
from changesource.mapping.filters import compile_filter
from changesource.mapping.keys import Key, compile_key
from changesource.mapping.paths import MISSING, Document, Predicate, reader, split_path
from changesource.mapping.spec import ColumnSpec, Json, TableSpec
from changesource.mapping.values import CONVERTERS, Converters

JsonRow: TypeAlias = dict[str, Json]
# Name, the field ("" where the path has several components), the path's reader, converters, whether it may be null.
_Column: TypeAlias = tuple[str, str, Callable[[Document], object], Converters, bool]


@dataclass(frozen=True, eq=False)
class CompiledTable:
    """A table's mapping, ready to be applied; made by ``compile_table`` alone.

    ``column_names`` begins with ``key_columns``; ``counts`` says how many values were replaced, by what was wrong
    with them ("nul", "surrogate", "nan").
    """

    spec: TableSpec
    key_columns: tuple[str, ...]
    column_names: tuple[str, ...]
    _key: Callable[[object], Key]
    _matches: Predicate | None
    _columns: tuple[_Column, ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The Zero table's name."""
        return self.spec.name

    def row(self, document: Mapping[str, object]) -> JsonRow | None:
        """The document's row in the order of ``column_names``; None where the filter leaves it out.

        ``RowRejected`` where the document gives no valid row.
        """
        return self.row_with_errors(document)[0]

    def row_with_errors(self, document: Mapping[str, object]) -> tuple[JsonRow | None, tuple[RowRejected, ...]]:
        """The row as ``row`` gives it, and the values that became null in it because they do not fit."""
        if self._matches is not None and not self._matches(document):
            return None, ()
        row = self.key(document.get("_id", MISSING))
        errors: tuple[RowRejected, ...] = ()
        counts = self.counts
        for name, plain, read, converters, optional in self._columns:
            value = document.get(plain) if plain else read(document)
            if value is None:
                if not optional:
                    raise RowRejected(name, "missing or null")
                row[name] = None
                continue
            try:
                converted = converters[type(value)](value, counts)
            except ValueError as exc:
                errors += (self._tolerated(name, optional, exc),)
                converted = None
            else:
                if converted is None and not optional:
                    raise RowRejected(name, "NaN and infinities become null, which the column does not take")
            row[name] = converted
        return row, errors

    def _tolerated(self, name: str, optional: bool, reason: ValueError) -> RowRejected:
        """The error to report where the table's policy makes such a value null; raised where it does not."""
        error = RowRejected(name, str(reason))
        if optional and self.spec.error_policy == "coerce":
            return error
        raise error from reason

    def key(self, document_id: object) -> JsonRow:
        """The primary key of the document with this `_id`; ``RowRejected`` where it has none."""
        name = self.key_columns[0]
        try:
            return {name: self._key(document_id)}
        except ValueError as exc:
            raise RowRejected(name, str(exc)) from exc


def compile_table(spec: TableSpec) -> CompiledTable:
    """Check ``spec`` and make it ready; ``MappingError`` names the first place that is wrong or not supported."""
    check_table(spec)
    place = f"tables.{spec.name}"
    matches = compile_filter(spec.filter, f"{place}.filter") if spec.filter else None
    key_column = next(column for column in spec.columns if column.name == spec.primary_key[0])
    others = [column for column in spec.columns if column is not key_column]
    return CompiledTable(
        spec=spec,
        key_columns=spec.primary_key,
        column_names=(key_column.name, *(column.name for column in others)),
        _key=compile_key(spec.id_type, key_column.type),
        _matches=matches,
        _columns=tuple(_compile_column(column, f"{place}.columns.{column.name}") for column in others),
    )


def _compile_column(column: ColumnSpec, place: str) -> _Column:
    path = split_path(column.path, f"{place}.path")
    field = path[0] if len(path) == 1 else ""
    return column.name, field, reader(path), CONVERTERS[column.type], column.optional
