"""What must be found out of a collection before its tables are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from changesource.mapping.rows import CompiledTable
from changesource.mapping.spec import IdType


@dataclass(frozen=True)
class Questions:
    """Of one collection: whether MongoDB keeps these fields unique (by table), whether it can keep pre-images
    (``history``), and the types of key fields that are not declared."""

    unique_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    typed_fields: frozenset[str] = frozenset()
    history: bool = False


@dataclass(frozen=True)
class Answers:
    """The BSON type of ``_id``, and of other key fields by their paths; "" where it cannot be told.

    ``mixed`` says that ``_id`` has several types.
    """

    id_type: IdType = ""
    field_types: Mapping[str, IdType] = field(default_factory=dict)
    mixed: bool = False


def questions_of(tables: Iterable[CompiledTable]) -> dict[str, Questions]:
    """What must be found out for ``tables``, by collection."""
    asked: dict[str, Questions] = {}
    for table in tables:
        before = asked.get(table.spec.collection, Questions())
        fields = key_fields(table)
        untyped = frozenset(path for column, path in fields.items() if not _declared(table, column))
        unique = {**before.unique_fields, table.name: tuple(fields.values())} if fields else before.unique_fields
        asked[table.spec.collection] = Questions(
            unique, before.typed_fields | untyped, before.history or table.has_history
        )
    return asked


def key_fields(table: CompiledTable) -> dict[str, str]:
    """The fields of a unique index that a table's key shows, by column; none where it shows ``_id``."""
    fields = table.table_key.unique_fields
    return dict(zip(table.key_columns, fields, strict=True)) if fields else {}


def _declared(table: CompiledTable, column: str) -> bool:
    return any(own.name == column and own.key_type for own in table.spec.columns)
