"""A table's key: what tells its rows apart, and whether a document's ``_id`` alone says what they are.

The key holds a column that shows ``_id``, or shows fields of a unique index; else two documents could give one key.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from changesource.exceptions import MappingError
from changesource.mapping.expressions import Expression, compile_expression
from changesource.mapping.keys import ID_TYPES, KEY_TYPES, Image, Key, compile_key
from changesource.mapping.provenance import ID, Provenance
from changesource.mapping.provenance import Image as ImageOf
from changesource.mapping.spec import ColumnSpec, IdType, TableSpec

# The types of _id of which what an expression gives differs wherever they do, by its kind.
_ALLOWED: dict[str, tuple[IdType, ...]] = {
    "exact": ("string",),
    "text": ("objectId", "string", "date"),
    "base64": ("objectId",),
}


@dataclass(frozen=True)
class KeyColumn:
    """One column of a key: its ``image`` of the document's ``_id``, or, with ``read``, of what that gives.

    ``guard`` raises ``ValueError`` for an ``_id`` that what is read would not tell from others.
    """

    name: str
    image: Image
    read: Expression | None = None
    guard: Image | None = None


@dataclass(frozen=True)
class TableKey:
    """The key's columns in their order.

    ``unique_fields`` are the document's fields, as dotted paths, of which a unique index must hold none but; none
    where ``_id`` tells the documents apart.
    """

    columns: tuple[KeyColumn, ...]
    unique_fields: tuple[str, ...]

    @property
    def of_id_alone(self) -> bool:
        """Whether ``_id`` says the whole key."""
        return all(column.read is None for column in self.columns)


def compile_table_key(spec: TableSpec, provenance: Provenance) -> TableKey:
    """The key of a table whose columns read what a pipeline of this ``provenance`` gives.

    ``MappingError`` where it does not tell documents apart.
    """
    place = f"tables.{spec.name}"
    by_name = {column.name: column for column in spec.columns}
    columns = [by_name[name] for name in spec.primary_key]
    of_id = {column.name: _of_id(spec, column, provenance, place) for column in columns}
    if any(of_id.values()):
        # Where another column shows _id, only rows of one document can meet here, and those are told apart.
        return TableKey(tuple(of_id[column.name] or _of_field(column, place) for column in columns), ())
    fields = _fields(columns, provenance, place)
    return TableKey(tuple(_of_field(column, place) for column in columns), fields)


def _of_id(spec: TableSpec, column: ColumnSpec, provenance: Provenance, place: str) -> KeyColumn | None:
    """The column as one that shows ``_id``; None where it shows something else."""
    # It is read from ``_id`` itself, but must be sound as it stands.
    read = compile_expression(column.source, f"{place}.columns.{column.name}")
    origin = provenance.of_expression(column.source)
    if origin == ID:
        return KeyColumn(column.name, _image(spec, column, ID_TYPES, place))
    if not isinstance(origin, ImageOf) or origin.path != ID or column.type != "string":
        return None
    image = _image(spec, column, _ALLOWED[origin.kind], place)
    if origin.kind == "base64":
        image = _as_base64(image)
    if not origin.separator:
        return KeyColumn(column.name, image)
    text = compile_key("string", "string", "the key")
    # Texts of ObjectIds are all as long, so the key tells where they end whatever they hold: base64url has - and _.
    of_one_length = origin.kind == "base64" or spec.id_type == "objectId"
    return KeyColumn(column.name, text, read, image if of_one_length else _without(origin.separator, image))


def _image(spec: TableSpec, column: ColumnSpec, allowed: Sequence[IdType], place: str) -> Image:
    """The image of an ``_id`` of the types that the column and its expression can hold."""
    fitting = [kind for kind in KEY_TYPES[column.type] if kind in allowed]
    if spec.id_type and spec.id_type not in fitting:
        of = f"a {column.type} key column" if allowed == ID_TYPES else "this expression"
        raise MappingError(f"{place}.idType", f"_id of type {spec.id_type} does not fit {of}")
    return compile_key(spec.id_type, column.type, "_id", fitting)


def _without(separator: str, image: Image) -> Image:
    def guard(value: object) -> Key:
        text = image(value)
        # Not where both meet either: "a-" and "--" are no other text than "a", "--" and "-".
        if f"{text}{separator}".find(separator) != len(str(text)) or f"{separator}{text}".rfind(separator) != 0:
            raise ValueError(f"_id holds {separator!r}, so that the key does not tell where it ends")
        return text

    return guard


def _as_base64(image: Image) -> Image:
    return lambda value: _base64(image(value))


def _base64(text: object) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(str(text))).decode("ascii").rstrip("=")


def _of_field(column: ColumnSpec, place: str) -> KeyColumn:
    read = compile_expression(column.source, f"{place}.columns.{column.name}")
    if column.key_type and column.key_type not in KEY_TYPES[column.type]:
        at = f"{place}.columns.{column.name}.keyType"
        raise MappingError(at, f"a {column.type} key column cannot hold {column.key_type}")
    return KeyColumn(column.name, compile_key(column.key_type, column.type, "the field"), read)


def _fields(columns: Sequence[ColumnSpec], provenance: Provenance, place: str) -> tuple[str, ...]:
    """The document's own fields that the columns show."""
    fields = []
    for column in columns:
        origin = provenance.of_expression(column.source)
        if not isinstance(origin, tuple):
            raise MappingError(
                f"{place}.primaryKey",
                'two documents could have one key: it needs a column that shows _id, or {"$toString": "$_id"}, or a '
                "$concat that begins or ends with one of these beside a constant text, or "
                f"columns that all show, unchanged, fields of a unique index; {column.name} shows neither",
            )
        fields.append(".".join(origin))
    return tuple(fields)
