"""The JSON forms of mappings: reading every one of them, writing ours.

Places in errors are dotted from the table, such as ``tables.message.columns.id.type``. A mapping never holds a key that
is not understood: it would be ignored in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from changesource.exceptions import MappingError

from .json_reading import boolean, flag, known_keys, names, obj, one_of, text
from .schema_formats import Schema, SchemaColumn, SchemaTable, is_schema, read_schema
from .spec import ColumnSpec, ColumnType, ErrorPolicy, IdType, Json, Specification, TableSpec

__all__ = ["Mappings", "Schema", "combine", "read_mappings", "read_schema", "read_specification", "write_specification"]

T = TypeVar("T")
COLUMN_TYPES: Final[tuple[ColumnType, ...]] = get_args(ColumnType)
ID_TYPES: Final[tuple[IdType, ...]] = get_args(IdType)
ERROR_POLICIES: Final[tuple[ErrorPolicy, ...]] = get_args(ErrorPolicy)

KEYS = (
    "collection",
    "source",
    "fields",
    "projection",
    "columns",
    "primaryKey",
    "filter",
    "discriminator",
    "pipeline",
    "idType",
    "errorPolicy",
    "enabled",
    "description",
)


@dataclass(frozen=True)
class _Column:
    """What a mapping's ``columns`` says of one column; None is what it leaves open."""

    type: ColumnType | None
    path: str | None
    optional: bool | None


@dataclass(frozen=True)
class _Table:
    """What a mapping says of one table; None is what it leaves to the schema."""

    collection: str
    paths: Mapping[str, str]  # of `fields` or `projection`, by column
    paths_key: str  # which of the two it was
    columns: Mapping[str, _Column] | None
    primary_key: tuple[str, ...] | None
    filter: dict[str, Json]
    pipeline: tuple[Json, ...]
    id_type: IdType
    error_policy: ErrorPolicy
    enabled: bool
    description: str


@dataclass(frozen=True)
class Mappings:
    """A file of mappings, before a schema completes it."""

    tables: Mapping[str, _Table] = field(default_factory=dict)
    publications: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_specification(data: Json) -> Specification:
    """The specification in ``data``, in whichever form. Mappings must give their columns' types themselves; a schema
    alone maps the collections of the tables' own names. Raises ``MappingError``."""
    if is_schema(data):
        return combine(read_schema(data), Mappings())
    return combine(None, read_mappings(data))


def read_mappings(data: Json) -> Mappings:
    """Mappings by table, in any of the mapping forms, or our own ``{"tables": ..., "publications": ...}``.

    Raises ``MappingError``.
    """
    top = obj("mappings", data)
    tables = top
    publications: dict[str, Json] = {}
    if _is_wrapped(top):
        known_keys("mappings", top, ("tables", "publications"))
        tables = obj("tables", top["tables"])
        publications = obj("publications", top.get("publications", {}))
    return Mappings(
        {name: _read_table(f"tables.{name}", entry) for name, entry in tables.items()},
        {name: names(f"publications.{name}", entry) for name, entry in publications.items()},
    )


def combine(schema: Schema | None, mappings: Mappings) -> Specification:
    """The schema's tables with their mappings; without a schema, the mappings' own tables.

    A schema table without a mapping maps the collection of its own name, column by column, ``id`` from ``_id``.
    Raises ``MappingError``.
    """
    if schema is None:
        tables = [_complete(name, _own_schema(name, entry), entry) for name, entry in mappings.tables.items()]
        renamed: dict[str, str] = {}
    else:
        renamed = {table.alias: table.name for table in schema} | {table.name: table.name for table in schema}
        for name in mappings.tables:
            if name not in renamed:
                raise MappingError(
                    f"tables.{name}", f"the schema has no such table; it has {_listed(renamed.values())}"
                )
        tables = [_complete(*_entry_of(table, mappings)) for table in schema]
    known = {table.name for table in tables}
    publications = {
        publication: tuple(renamed.get(member, member) for member in members)
        for publication, members in mappings.publications.items()
    }
    for publication, members in publications.items():
        for member in members:
            if member not in known:
                raise MappingError(f"publications.{publication}", f"there is no table {member!r}")
    return Specification(tuple(tables), publications)


def write_specification(spec: Specification) -> dict[str, Json]:
    """Our own form, from which ``read_specification`` gives ``spec`` again; tables and publications are sorted by name,
    so that equal specifications are written alike."""
    tables: dict[str, Json] = {}
    for table in sorted(spec.tables, key=lambda table: table.name):
        columns: dict[str, Json] = {
            column.name: {"type": column.type, "path": column.path, "optional": column.optional}
            for column in table.columns
        }
        tables[table.name] = {
            "collection": table.collection,
            "columns": columns,
            "primaryKey": list(table.primary_key),
            "filter": table.filter,
            "pipeline": list(table.pipeline),
            "idType": table.id_type,
            "errorPolicy": table.error_policy,
            "enabled": table.enabled,
            "description": table.description,
        }
    publications: dict[str, Json] = {name: [*sorted(spec.publications[name])] for name in sorted(spec.publications)}
    return {"tables": tables, "publications": publications}


def _is_wrapped(top: dict[str, Json]) -> bool:
    """Whether the mappings are under ``tables``; a table may also be called so."""
    tables = top.get("tables")
    return isinstance(tables, dict) and not any(isinstance(tables.get(key), str) for key in ("collection", "source"))


def _read_table(place: str, data: Json) -> _Table:
    """One table's mapping, in any form."""
    entry = obj(place, data)
    known_keys(place, entry, KEYS)
    for one, other in (("collection", "source"), ("fields", "projection")):
        if one in entry and other in entry:
            raise MappingError(f"{place}.{other}", f"is given together with {one!r}; only one of the two may be")
    collection_key = "source" if "source" in entry else "collection"
    if collection_key not in entry:
        raise MappingError(f"{place}.collection", "is missing")
    pipeline = entry.get("pipeline", [])
    if not isinstance(pipeline, list):
        raise MappingError(f"{place}.pipeline", "must be a list of stages")
    return _Table(
        collection=text(f"{place}.{collection_key}", entry[collection_key]),
        paths=_read_paths(place, entry),
        paths_key="projection" if "projection" in entry else "fields",
        columns=_read_columns(f"{place}.columns", entry["columns"]) if "columns" in entry else None,
        primary_key=names(f"{place}.primaryKey", entry["primaryKey"]) if "primaryKey" in entry else None,
        filter=_read_filter(place, entry),
        pipeline=tuple(pipeline),
        id_type=one_of(f"{place}.idType", entry.get("idType", ""), ID_TYPES),
        error_policy=one_of(f"{place}.errorPolicy", entry.get("errorPolicy", "coerce"), ERROR_POLICIES),
        enabled=boolean(f"{place}.enabled", entry.get("enabled", True)),
        description=text(f"{place}.description", entry.get("description", ""), empty=True),
    )


def _read_paths(place: str, entry: dict[str, Json]) -> dict[str, str]:
    """The paths that ``fields`` (column: path) or ``projection`` (column: 1, "path" or "$path") gives."""
    if "projection" not in entry:
        fields = obj(f"{place}.fields", entry.get("fields", {}))
        return {column: text(f"{place}.fields.{column}", path) for column, path in fields.items()}
    paths: dict[str, str] = {}
    for column, shown in obj(f"{place}.projection", entry["projection"]).items():
        at = f"{place}.projection.{column}"
        if isinstance(shown, str):
            if shown.startswith("$$"):
                raise MappingError(at, "variables ($$...) are not supported")
            paths[column] = text(at, shown.removeprefix("$"))
        elif isinstance(shown, dict | list):
            raise MappingError(at, 'expressions are not supported yet: give 1, or a path such as "$address.city"')
        elif flag(shown) is True:
            paths[column] = column
        elif column != "_id" or flag(shown) is not False:  # {"_id": 0} is how MongoDB is told to leave it out
            raise MappingError(at, 'must be 1, true or a path such as "$address.city"')
    return paths


def _read_columns(place: str, data: Json) -> dict[str, _Column]:
    """The columns of our own form; a schema may give what they leave out."""
    columns: dict[str, _Column] = {}
    for name, value in obj(place, data).items():
        at = f"{place}.{name}"
        entry = obj(at, value)
        known_keys(at, entry, ("type", "path", "optional"))
        columns[name] = _Column(
            type=one_of(f"{at}.type", entry["type"], COLUMN_TYPES) if "type" in entry else None,
            path=text(f"{at}.path", entry["path"]) if "path" in entry else None,
            optional=boolean(f"{at}.optional", entry["optional"]) if "optional" in entry else None,
        )
    return columns


def _read_filter(place: str, entry: dict[str, Json]) -> dict[str, Json]:
    """``filter`` and ``discriminator`` as one filter."""
    given = obj(f"{place}.filter", entry.get("filter", {}))
    if "discriminator" not in entry:
        return given
    at = f"{place}.discriminator"
    discriminator = obj(at, entry["discriminator"])
    known_keys(at, discriminator, ("field", "value"))
    for key in ("field", "value"):
        if key not in discriminator:
            raise MappingError(f"{at}.{key}", "is missing")
    path = text(f"{at}.field", discriminator["field"])
    if path.startswith("$"):
        raise MappingError(f"{at}.field", "must be a field's path, which does not begin with '$'")
    value = discriminator["value"]
    if isinstance(value, dict | list):
        raise MappingError(f"{at}.value", "must be a string, a number, a boolean or null")
    if path in given:
        return {"$and": [given, {path: value}]}
    return {**given, path: value}


def _own_schema(name: str, entry: _Table) -> SchemaTable:
    """The schema that a mapping carries itself."""
    place = f"tables.{name}"
    if entry.columns is None:
        raise MappingError(f"{place}.columns", "is missing: without a schema the mapping must give its columns' types")
    if entry.primary_key is None:
        raise MappingError(f"{place}.primaryKey", "is missing")
    columns = []
    for column, said in entry.columns.items():
        if said.type is None:
            raise MappingError(f"{place}.columns.{column}.type", "is missing")
        columns.append(SchemaColumn(column, column, said.type, bool(said.optional)))
    return SchemaTable(name, name, tuple(columns), entry.primary_key)


def _entry_of(table: SchemaTable, mappings: Mappings) -> tuple[str, SchemaTable, _Table]:
    """The mapping of a schema's table, under either of its names, with the name that errors show."""
    given = [name for name in dict.fromkeys((table.alias, table.name)) if name in mappings.tables]
    if len(given) > 1:
        raise MappingError(f"tables.{given[1]}", f"is the same table as {given[0]!r}")
    if given:
        return given[0], table, mappings.tables[given[0]]
    default = _Table(
        table.name, {}, "fields", None, None, {}, (), id_type="", error_policy="coerce", enabled=True, description=""
    )
    return table.alias, table, default


def _complete(shown_name: str, table: SchemaTable, entry: _Table) -> TableSpec:
    """The schema's table as the mapping fills it."""
    place = f"tables.{shown_name}"
    paths = _known_columns(f"{place}.{entry.paths_key}", table, entry.paths)
    said = _known_columns(f"{place}.columns", table, entry.columns or {})
    columns = []
    for column in table.columns:
        own = said.get(column.name, _Column(None, None, None))
        at = f"{place}.columns.{column.alias}"
        if own.type not in (None, column.type):
            raise MappingError(f"{at}.type", f"is {own.type!r}, but the schema says {column.type!r}")
        if own.optional not in (None, column.optional):
            raise MappingError(
                f"{at}.optional", f"is {_word(own.optional)}, but the schema says {_word(column.optional)}"
            )
        if own.path is not None and column.name in paths:
            raise MappingError(f"{at}.path", f"is given in {entry.paths_key!r} too")
        path = own.path or paths.get(column.name) or ("_id" if column.name == "id" else column.name)
        columns.append(ColumnSpec(column.name, column.type, path, column.optional))
    key = table.primary_key
    if entry.primary_key is not None and tuple(table.server_name(name) for name in entry.primary_key) != key:
        raise MappingError(f"{place}.primaryKey", f"the schema says {list(key)}")
    return TableSpec(
        name=table.name,
        collection=entry.collection,
        columns=tuple(columns),
        primary_key=key,
        filter=entry.filter,
        pipeline=entry.pipeline,
        id_type=entry.id_type,
        error_policy=entry.error_policy,
        enabled=entry.enabled,
        description=entry.description,
    )


def _known_columns(place: str, table: SchemaTable, given: Mapping[str, T]) -> dict[str, T]:
    """``given`` by the schema's names of columns; a column that the schema lacks is refused."""
    known = {column.name for column in table.columns}
    found: dict[str, T] = {}
    for column, value in given.items():
        name = table.server_name(column)
        if place.endswith(".projection") and name == "_id" and "_id" not in known and "id" in known:
            # {"_id": 1} is how MongoDB is told to give the id, and `id` is what it is called in Zero.
            name = "id"
            if "id" in given:
                raise MappingError(f"{place}.id", "is given as '_id' too")
        if name not in known:
            raise MappingError(f"{place}.{column}", f"the table has no such column; it has {_listed(known)}")
        if name in found:
            raise MappingError(f"{place}.{column}", f"gives the column {name!r} twice")
        found[name] = value
    return found


def _listed(items: Iterable[str]) -> str:
    """Names in words, each once."""
    return ", ".join(sorted(set(items))) or "none"


def _word(value: bool | None) -> str:
    """As JSON writes it."""
    return "true" if value else "false"
