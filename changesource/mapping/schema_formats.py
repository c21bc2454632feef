"""The JSON forms of a Zero schema: keyed by table, Zero's own ``createSchema``, and a list of protocol table specs.

All are read; ``createSchema`` is written too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeAlias, get_args

from changesource.exceptions import MappingError

from .json_reading import boolean, known_keys, names, obj, one_of, text
from .nestjs_forms import beside_schema, mapping_of_name, schema_in
from .spec import ColumnType, Json, TableSpec

COLUMN_TYPES: Final[tuple[ColumnType, ...]] = get_args(ColumnType)
# Beside zero-cache's own, those of PostgreSQL that Zero takes for the same.
PROTOCOL_TYPES: Final[dict[str, ColumnType]] = {
    "text": "string",
    "varchar": "string",
    "character": "string",
    "float8": "number",
    "int8": "number",
    "int4": "number",
    "numeric": "number",
    "boolean": "boolean",
    "json": "json",
    "jsonb": "json",
}


@dataclass(frozen=True)
class SchemaColumn:
    """A column; ``name`` is the upstream's name for it, ``alias`` the client's, mostly the same."""

    name: str
    alias: str
    type: ColumnType
    optional: bool


@dataclass(frozen=True)
class SchemaTable:
    """A table; ``name`` is the upstream's name for it, ``alias`` the client's, mostly the same. ``primary_key`` holds
    columns by their upstream names, ``mapping`` what the schema's file says of where its rows come from."""

    name: str
    alias: str
    columns: tuple[SchemaColumn, ...]
    primary_key: tuple[str, ...]
    mapping: Json = None

    def alias_of(self, column: str) -> str:
        """The client's name of a column that is given by the upstream's."""
        return next(c.alias for c in self.columns if c.name == column)

    def server_name(self, column: str) -> str:
        """The upstream's name of a column given by either name; an unknown one as it is."""
        return self._server_names.get(column, column)

    @cached_property
    def _server_names(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for column in self.columns:
            found.setdefault(column.alias, column.name)
            found.setdefault(column.name, column.name)
        return found


Schema: TypeAlias = tuple[SchemaTable, ...]
IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# No client can have a column or table of these names; see ``mapping.checks``.
RESERVED: Final = ("__proto__", "_0_version")


def schema_of(tables: Iterable[TableSpec]) -> Schema:
    """The schema of valid mapped tables, by name. Clients get names that are identifiers of JavaScript."""
    ordered = sorted(tables, key=lambda table: table.name)
    aliases = _aliases(table.name for table in ordered)
    return tuple(_schema_table(table, aliases[table.name]) for table in ordered)


def _schema_table(table: TableSpec, alias: str) -> SchemaTable:
    aliases = _aliases(column.name for column in table.columns)
    columns = tuple(SchemaColumn(c.name, aliases[c.name], c.type, c.optional) for c in table.columns)
    return SchemaTable(table.name, alias, columns, table.primary_key)


def _aliases(upstream: Iterable[str]) -> dict[str, str]:
    """A client's name for each: itself where it is an identifier, else with ``_``, and with a number where taken."""
    given = list(upstream)
    aliases = {name: name for name in given if IDENTIFIER.fullmatch(name)}
    taken = {*aliases, *RESERVED}
    for name in given:
        if name not in aliases:
            plain = alias = re.sub(r"^(?![A-Za-z_])|[^A-Za-z0-9_]", "_", name)
            number = 2
            while alias in taken:
                alias, number = f"{plain}_{number}", number + 1
            aliases[name] = alias
            taken.add(alias)
    return aliases


def write_schema(schema: Schema) -> dict[str, Json]:
    """The JSON of Zero's own ``createSchema``, from which ``read_schema`` gives ``schema`` again."""
    return {"tables": {table.alias: _written_table(table) for table in schema}, "relationships": {}}


def _written_table(table: SchemaTable) -> Json:
    columns: dict[str, Json] = {
        column.alias: {
            "type": column.type,
            "optional": column.optional,
            **({"serverName": column.name} if column.alias != column.name else {}),
        }
        for column in table.columns
    }
    return {
        "name": table.alias,
        **({"serverName": table.name} if table.alias != table.name else {}),
        "columns": columns,
        "primaryKey": [table.alias_of(column) for column in table.primary_key],
    }


def is_schema(data: Json) -> bool:
    """Whether ``data`` is one of the schema forms, rather than mappings."""
    data = schema_in(data)
    if isinstance(data, list):
        return True
    if not isinstance(data, dict) or not data:
        return False
    tables = data["tables"] if _is_create_schema(data) else data
    entries = list(tables.values()) if isinstance(tables, dict) else []
    return bool(entries) and all(
        isinstance(entry, dict)
        and ("name" in entry or "tableName" in entry)
        and not {"collection", "source"} & set(entry)
        for entry in entries
    )


def read_schema(data: Json) -> Schema:
    """The schema in ``data``, in whichever form. Raises ``MappingError``; places begin with ``schema``."""
    beside = beside_schema(data)
    data = schema_in(data)
    if isinstance(data, list):
        tables = [_protocol_table(f"schema.{index}", entry) for index, entry in enumerate(data)]
    else:
        top = obj("schema", data)
        if _is_create_schema(top):
            # The rest (relationships and the like) concerns clients alone.
            entries = obj("schema.tables", top["tables"])
            tables = [_zero_table(f"schema.{name}", name, entry) for name, entry in entries.items()]
        else:
            tables = [_keyed_table(f"schema.{name}", name, entry) for name, entry in top.items()]
    known: set[str] = set()
    for table in tables:
        if table.name in known:
            raise MappingError(f"schema.{table.alias}", f"the table {table.name!r} is given twice")
        known.add(table.name)
    return tuple(_with_mappings(tables, beside))


def _with_mappings(tables: list[SchemaTable], mappings: dict[str, Json]) -> list[SchemaTable]:
    """The tables with the mappings that come beside them, under either of their names."""
    names = {name for table in tables for name in (table.alias, table.name)}
    for name in mappings:
        if name not in names:
            raise MappingError(f"schema.mapping.{name}", "the schema has no such table")
    return [replace(t, mapping=mappings.get(t.alias, mappings.get(t.name, t.mapping))) for t in tables]


def _is_create_schema(top: dict[str, Json]) -> bool:
    """Whether tables are under ``tables``; a table may also be called so."""
    tables = top.get("tables")
    return isinstance(tables, dict) and not isinstance(tables.get("tableName"), str)


def _keyed_table(place: str, key: str, data: Json) -> SchemaTable:
    """``{"tableName": ..., "columns": {NAME: {"type", "optional"}}, "primaryKey": [...]}``."""
    entry = obj(place, data)
    known_keys(place, entry, ("tableName", "columns", "primaryKey", "relationships"))
    columns = []
    for name, value in _columns(place, entry).items():
        at = f"{place}.columns.{name}"
        column = obj(at, value)
        known_keys(at, column, ("type", "optional", "notNull"))
        columns.append(_column(at, name, column))
    return _table(place, text(f"{place}.tableName", entry.get("tableName", key)), key, columns, entry)


def _zero_table(place: str, key: str, data: Json) -> SchemaTable:
    """As ``createSchema`` gives it: ``serverName`` is the upstream's name, of tables and columns alike."""
    entry = obj(place, data)
    columns = [
        _column(f"{place}.columns.{name}", name, obj(f"{place}.columns.{name}", value))
        for name, value in _columns(place, entry).items()
    ]
    alias = text(f"{place}.name", entry.get("name", key))
    name = text(f"{place}.serverName", entry.get("serverName", alias))
    if (mapping := mapping_of_name(name)) is not None:
        return replace(_table(place, alias, alias, columns, entry), mapping=mapping)
    return _table(place, name, alias, columns, entry)


def _protocol_table(place: str, data: Json) -> SchemaTable:
    """As zero-cache is told of a table; columns are in the order of ``pos``. One may be as in a keyed schema."""
    entry = obj(place, data)
    if isinstance(name := entry.get("tableName"), str) and "name" not in entry:
        return _keyed_table(f"schema.{name}", name, entry)
    # The last two are PostgreSQL's own details of tables.
    known_keys(place, entry, ("schema", "name", "primaryKey", "columns", "tableMapping", "oid", "publications"))
    if entry.get("schema", "public") != "public":
        raise MappingError(f"{place}.schema", "must be 'public'")
    if "name" not in entry:
        raise MappingError(f"{place}.name", "is missing")
    name = text(f"{place}.name", entry["name"])
    place = f"schema.{name}"
    placed: list[tuple[float, SchemaColumn]] = []
    for column_name, value in _columns(place, entry).items():
        at = f"{place}.columns.{column_name}"
        column = obj(at, value)
        # The last five are zero-cache's own details of PostgreSQL columns.
        details = ("characterMaximumLength", "dflt", "pgTypeClass", "elemPgTypeClass", "typeOID")
        known_keys(at, column, ("pos", "dataType", "notNull", *details))
        type_ = PROTOCOL_TYPES[one_of(f"{at}.dataType", column.get("dataType"), tuple(PROTOCOL_TYPES))]
        not_null = column.get("notNull")
        optional = True if not_null is None else not boolean(f"{at}.notNull", not_null)
        pos = column.get("pos", len(placed))
        if isinstance(pos, bool) or not isinstance(pos, int | float):
            raise MappingError(f"{at}.pos", "must be a number")
        placed.append((pos, SchemaColumn(column_name, column_name, type_, optional)))
    columns = [column for _, column in sorted(placed, key=lambda pair: pair[0])]
    return replace(_table(place, name, name, columns, entry), mapping=entry.get("tableMapping"))


def _columns(place: str, entry: dict[str, Json]) -> dict[str, Json]:
    if "columns" not in entry:
        raise MappingError(f"{place}.columns", "is missing")
    return obj(f"{place}.columns", entry["columns"])


def _column(place: str, name: str, entry: dict[str, Json]) -> SchemaColumn:
    if "type" not in entry:
        raise MappingError(f"{place}.type", "is missing")
    return SchemaColumn(
        name=text(f"{place}.serverName", entry.get("serverName", name)),
        alias=name,
        type=one_of(f"{place}.type", entry["type"], COLUMN_TYPES),
        optional=boolean(f"{place}.optional", entry.get("optional", _may_lack(place, entry))),
    )


def _may_lack(place: str, entry: dict[str, Json]) -> bool:
    """Whether a column that does not say whether it is optional may lack a value: by the word of protocol tables."""
    return "notNull" in entry and not boolean(f"{place}.notNull", entry["notNull"])


def _table(place: str, name: str, alias: str, columns: list[SchemaColumn], entry: dict[str, Json]) -> SchemaTable:
    """The table, once its columns are told apart and its key is made of them."""
    known: set[str] = set()
    for column in columns:
        if column.name in known:
            raise MappingError(f"{place}.columns.{column.alias}", f"the column {column.name!r} is given twice")
        known.add(column.name)
    if "primaryKey" not in entry:
        raise MappingError(f"{place}.primaryKey", "is missing")
    table = SchemaTable(name, alias, tuple(columns), ())
    key = tuple(table.server_name(column) for column in names(f"{place}.primaryKey", entry["primaryKey"]))
    for column_name in key:
        if column_name not in known:
            raise MappingError(f"{place}.primaryKey", f"there is no column {column_name!r}")
    return SchemaTable(name, alias, tuple(columns), key)
