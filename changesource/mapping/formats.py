"""The JSON forms of mappings: reading every one of them, writing ours.

Places in errors are dotted from the table, such as ``tables.message.columns.id.type``. A mapping never holds a key that
is not understood: it would be ignored in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from changesource.exceptions import MappingError

from .json_reading import boolean, flag, known_keys, names, natural, obj, one_of, text
from .nestjs_forms import ALL_SHOWN, Shown, as_ours, mappings_in, shown_by
from .schema_formats import Schema, SchemaColumn, SchemaTable, is_schema, read_schema
from .spec import ColumnSpec, ColumnType, ErrorPolicy, IdType, Json, LargeIntegers, Specification, TableSpec

__all__ = ["Mappings", "Schema", "combine", "read_mappings", "read_schema", "read_specification", "write_specification"]

T = TypeVar("T")
COLUMN_TYPES: Final[tuple[ColumnType, ...]] = get_args(ColumnType)
ID_TYPES: Final[tuple[IdType, ...]] = get_args(IdType)
ERROR_POLICIES: Final[tuple[ErrorPolicy, ...]] = get_args(ErrorPolicy)
LARGE_INTEGERS: Final[tuple[LargeIntegers, ...]] = get_args(LargeIntegers)

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
    "largeIntegers",
    "enabled",
    "description",
)
COLUMN_KEYS = ("type", "path", "expression", "optional", "keyType")


@dataclass(frozen=True)
class _Source:
    """What a column shows: a field's path, or else an expression."""

    path: str = ""
    expression: Json = None


@dataclass(frozen=True)
class _Column:
    """What a mapping's ``columns`` says of one column; None is what it leaves open."""

    type: ColumnType | None
    path: str | None
    optional: bool | None
    expression: Json = None
    key_type: IdType = ""


@dataclass(frozen=True)
class _Table:
    """What a mapping says of one table; None is what it leaves to the schema."""

    collection: str
    sources: Mapping[str, _Source]  # of `fields` or `projection`, by column
    sources_key: str  # which of the two it was
    shown: Shown
    columns: Mapping[str, _Column] | None
    primary_key: tuple[str, ...] | None
    filter: dict[str, Json]
    pipeline: tuple[Json, ...]
    id_type: IdType
    error_policy: ErrorPolicy
    large_integers: LargeIntegers
    enabled: bool
    description: str


@dataclass(frozen=True)
class Mappings:
    """A file of mappings, before a schema completes it."""

    tables: Mapping[str, _Table] = field(default_factory=dict)
    publications: dict[str, tuple[str, ...]] = field(default_factory=dict)
    revision: int = 0


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
    top = obj("mappings", mappings_in(data))
    tables = top
    publications: dict[str, Json] = {}
    revision = 0
    if _is_wrapped(top):
        known_keys("mappings", top, ("tables", "publications", "revision"))
        revision = natural("revision", top.get("revision", 0))
        tables = obj("tables", top["tables"])
        publications = obj("publications", top.get("publications", {}))
    return Mappings(
        {name: _read_table(f"tables.{name}", entry) for name, entry in tables.items()},
        {name: names(f"publications.{name}", entry) for name, entry in publications.items()},
        revision,
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
    return Specification(tuple(tables), publications, mappings.revision)


def write_specification(spec: Specification) -> dict[str, Json]:
    """Our own form, from which ``read_specification`` gives ``spec`` again; tables and publications are sorted by name,
    so that equal specifications of one revision are written alike."""
    tables: dict[str, Json] = {}
    for table in sorted(spec.tables, key=lambda table: table.name):
        columns: dict[str, Json] = {column.name: _written(column) for column in table.columns}
        tables[table.name] = {
            "collection": table.collection,
            "columns": columns,
            "primaryKey": list(table.primary_key),
            "filter": table.filter,
            "pipeline": list(table.pipeline),
            "idType": table.id_type,
            "errorPolicy": table.error_policy,
            "largeIntegers": table.large_integers,
            "enabled": table.enabled,
            "description": table.description,
        }
    publications: dict[str, Json] = {name: [*sorted(spec.publications[name])] for name in sorted(spec.publications)}
    revision: dict[str, Json] = {"revision": spec.revision} if spec.revision else {}
    return {"tables": tables, "publications": publications, **revision}


def _written(column: ColumnSpec) -> dict[str, Json]:
    source: dict[str, Json] = {"path": column.path} if column.path else {"expression": column.expression}
    kind: dict[str, Json] = {"keyType": column.key_type} if column.key_type else {}
    return {"type": column.type, **source, "optional": column.optional, **kind}


def _is_wrapped(top: dict[str, Json]) -> bool:
    """Whether the mappings are under ``tables``; a table may also be called so."""
    tables = top.get("tables")
    return isinstance(tables, dict) and not any(isinstance(tables.get(key), str) for key in ("collection", "source"))


def _read_table(place: str, data: Json) -> _Table:
    """One table's mapping, in any form."""
    given = obj(place, data)
    entry = as_ours(given)
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
        sources=_read_sources(place, entry),
        sources_key="projection" if "projection" in entry else "fields",
        shown=shown_by(given.get("projection")),
        columns=_read_columns(f"{place}.columns", entry["columns"]) if "columns" in entry else None,
        primary_key=names(f"{place}.primaryKey", entry["primaryKey"]) if "primaryKey" in entry else None,
        filter=_read_filter(place, entry),
        pipeline=tuple(pipeline),
        id_type=one_of(f"{place}.idType", entry.get("idType", ""), ID_TYPES),
        error_policy=one_of(f"{place}.errorPolicy", entry.get("errorPolicy", "coerce"), ERROR_POLICIES),
        large_integers=one_of(f"{place}.largeIntegers", entry.get("largeIntegers", "reject"), LARGE_INTEGERS),
        enabled=boolean(f"{place}.enabled", entry.get("enabled", True)),
        description=text(f"{place}.description", entry.get("description", ""), empty=True),
    )


def _read_sources(place: str, entry: dict[str, Json]) -> dict[str, _Source]:
    """What ``fields`` (column: path or expression) or ``projection`` (column: 1, "$path" or expression) gives."""
    key = "projection" if "projection" in entry else "fields"
    sources: dict[str, _Source] = {}
    for column, shown in obj(f"{place}.{key}", entry.get(key, {})).items():
        at = f"{place}.{key}.{column}"
        if isinstance(shown, dict | list) or (isinstance(shown, str) and shown.startswith("$$")):
            sources[column] = _Source(expression=_expression(at, shown))
        elif isinstance(shown, str):
            sources[column] = _Source(text(at, shown.removeprefix("$")))
        elif key == "fields":
            raise MappingError(at, "must be a field's path, or an expression")
        elif flag(shown) is True:
            sources[column] = _Source(column)
        elif column != "_id" or flag(shown) is not False:  # {"_id": 0} is how MongoDB is told to leave it out
            raise MappingError(at, 'must be 1, true, a path such as "$address.city", or an expression')
    return sources


def _expression(place: str, value: Json) -> Json:
    """``value``, which must say something; what it says is checked when it is compiled."""
    if value is None:
        raise MappingError(place, 'is null; a column that is always null is written as {"$literal": null}')
    return value


def _read_columns(place: str, data: Json) -> dict[str, _Column]:
    """The columns of our own form; a schema may give what they leave out."""
    columns: dict[str, _Column] = {}
    for name, value in obj(place, data).items():
        at = f"{place}.{name}"
        entry = obj(at, value)
        known_keys(at, entry, COLUMN_KEYS)
        if "path" in entry and "expression" in entry:
            raise MappingError(f"{at}.expression", "is given together with 'path'; only one of the two may be")
        columns[name] = _Column(
            type=one_of(f"{at}.type", entry["type"], COLUMN_TYPES) if "type" in entry else None,
            path=text(f"{at}.path", entry["path"]) if "path" in entry else None,
            optional=boolean(f"{at}.optional", entry["optional"]) if "optional" in entry else None,
            expression=_expression(f"{at}.expression", entry["expression"]) if "expression" in entry else None,
            key_type=one_of(f"{at}.keyType", entry.get("keyType", ""), ID_TYPES),
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
    if table.mapping is not None:
        return table.alias, table, _read_table(f"tables.{table.alias}", table.mapping)
    default = _Table(
        table.name,
        {},
        "fields",
        ALL_SHOWN,
        None,
        None,
        {},
        (),
        id_type="",
        error_policy="coerce",
        large_integers="reject",
        enabled=True,
        description="",
    )
    return table.alias, table, default


def _complete(shown_name: str, table: SchemaTable, entry: _Table) -> TableSpec:
    """The schema's table as the mapping fills it."""
    place = f"tables.{shown_name}"
    sources = _known_columns(f"{place}.{entry.sources_key}", table, entry.sources)
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
        source = _Source(own.path or "", own.expression)
        if source != _Source() and column.name in sources:
            key = "path" if own.path else "expression"
            raise MappingError(f"{at}.{key}", f"is given in {entry.sources_key!r} too")
        if source == _Source():
            source = sources.get(column.name) or _default(place, column, entry)
        columns.append(
            ColumnSpec(column.name, column.type, source.path, column.optional, source.expression, own.key_type)
        )
    primary_key = table.primary_key
    if entry.primary_key is not None and tuple(table.server_name(name) for name in entry.primary_key) != primary_key:
        raise MappingError(f"{place}.primaryKey", f"the schema says {list(primary_key)}")
    return TableSpec(
        name=table.name,
        collection=entry.collection,
        columns=tuple(columns),
        primary_key=primary_key,
        filter=entry.filter,
        pipeline=entry.pipeline,
        id_type=entry.id_type,
        error_policy=entry.error_policy,
        large_integers=entry.large_integers,
        enabled=entry.enabled,
        description=entry.description,
    )


def _default(place: str, column: SchemaColumn, entry: _Table) -> _Source:
    """What a column shows of which nothing is said: the field of its name, unless the projection leaves that out."""
    path = _default_path(column.name, entry.pipeline)
    if path == "_id" or entry.shown.has(column.name, column.alias):
        return _Source(path)
    if not column.optional:
        at = f"{place}.projection.{column.alias}"
        raise MappingError(at, "is left out, so that the column is always null: add it, or make the column optional")
    return _Source(expression={"$literal": None})


def _default_path(column: str, pipeline: Iterable[Json]) -> str:
    """What a column shows of which nothing is said: ``id`` is ``_id``, unless a stage makes an ``id``."""
    return "_id" if column == "id" and not any(map(_makes_id, pipeline)) else column


def _makes_id(stage: Json) -> bool:
    """Whether a stage gives documents a field ``id``."""
    if isinstance(stage, list):
        return any(map(_makes_id, stage))
    if not isinstance(stage, dict):
        return False
    known = ("$project", "$addFields", "$set", "$replaceRoot", "newRoot", "$replaceWith", "$mergeObjects")
    return "id" in stage or any(_makes_id(inner) for name, inner in stage.items() if name in known)


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
