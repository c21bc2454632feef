"""What a mapping says, as frozen values: the form between the admin, the JSON files and the compiler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
ColumnType = Literal["string", "number", "boolean", "json"]
IdType = Literal["", "objectId", "string", "number", "uuid", "date"]
ErrorPolicy = Literal["coerce", "skip", "stop"]
LargeIntegers = Literal["reject", "round"]


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a Zero table.

    ``path`` is the dotted path of the field that it shows, such as ``_id`` or ``address.city``; or else ``expression``
    is an aggregation expression in extended JSON. ``key_type`` is the BSON type of a key column that shows a field of
    a unique index ("" while it is not known).
    """

    name: str
    type: ColumnType
    path: str = ""
    optional: bool = False
    expression: Json = None
    key_type: IdType = ""

    @property
    def source(self) -> Json:
        """What the column shows, as an expression."""
        return f"${self.path}" if self.path else self.expression


@dataclass(frozen=True)
class TableSpec:
    """One Zero table and where its rows come from.

    ``filter`` is a MongoDB filter in extended JSON; ``id_type`` is the BSON type of the collection's ``_id``
    ("" while it is not known); ``pipeline`` is a list of aggregation stages. ``large_integers`` says what a number
    column makes of an integer beyond 2^53 - 1: it does not fit, or becomes the nearest double.
    """

    name: str
    collection: str
    columns: tuple[ColumnSpec, ...]
    primary_key: tuple[str, ...]
    filter: dict[str, Json] = field(default_factory=dict)
    pipeline: tuple[Json, ...] = ()
    id_type: IdType = ""
    error_policy: ErrorPolicy = "coerce"
    large_integers: LargeIntegers = "reject"
    enabled: bool = True
    description: str = ""


@dataclass(frozen=True)
class Specification:
    """All tables and publications: what one ``MappingRevision`` holds.

    ``publications`` maps a publication's name to the names of its tables. ``revision`` is what another instance
    published it as, 0 for what none did; equal ones of two revisions are equal.
    """

    tables: tuple[TableSpec, ...] = ()
    publications: dict[str, tuple[str, ...]] = field(default_factory=dict)
    revision: int = field(default=0, compare=False)
