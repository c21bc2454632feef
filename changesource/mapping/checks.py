"""What a table's mapping must be before it can be compiled: names, columns, the key, what is not supported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from changesource.exceptions import MappingError
from changesource.mapping.keys import KEY_TYPES
from changesource.mapping.paths import split_path
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.mapping.values import CONVERTERS

MAX_NAME_LENGTH = 63
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ID_TYPES = ("objectId", "string", "number", "uuid", "date")
_ERROR_POLICIES = ("coerce", "skip")


def check_table(spec: TableSpec) -> None:
    """Raise ``MappingError`` at the first thing in ``spec`` that is wrong; the filter is checked by its compiler."""
    place = f"tables.{spec.name}"
    _check_name(spec.name, place, "a table's name")
    _check_collection(spec.collection, f"{place}.collection")
    if spec.pipeline:
        raise MappingError(f"{place}.pipeline", "pipelines are not supported yet; use a filter and field paths")
    if spec.error_policy == "stop":
        raise MappingError(f"{place}.error_policy", "stop is not supported yet; supported are coerce and skip")
    _check_choice(spec.error_policy, _ERROR_POLICIES, f"{place}.error_policy")
    _check_columns(spec.columns, f"{place}.columns")
    _check_key(spec, place)


def _check_name(name: str, place: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise MappingError(place, f"{what} is letters, digits, _ and -, and begins with a letter or _")
    if len(name) > MAX_NAME_LENGTH:
        raise MappingError(place, f"{what} has at most {MAX_NAME_LENGTH} characters")
    # SQLite keeps the first prefix for itself, zero-cache the second; the last is lost on its way through JavaScript.
    if name.lower().startswith(("sqlite_", "_zero")) or name in ("_0_version", "__proto__"):
        raise MappingError(place, f"the name {name} is reserved")


def _check_collection(collection: str, place: str) -> None:
    if not collection:
        raise MappingError(place, "the collection is missing")
    if collection.startswith("system."):
        raise MappingError(place, "system collections cannot be mapped")
    if "$" in collection or "\0" in collection:
        raise MappingError(place, "a collection's name cannot hold $ or U+0000")


def _check_choice(value: str, choices: Iterable[str], place: str) -> None:
    if value not in choices:
        raise MappingError(place, f"{value!r} is not supported; supported are {', '.join(choices)}")


def _check_columns(columns: tuple[ColumnSpec, ...], place: str) -> None:
    if not columns:
        raise MappingError(place, "a table needs at least one column")
    seen: set[str] = set()
    for column in columns:
        own = f"{place}.{column.name}"
        _check_name(column.name, own, "a column's name")
        # The replica is SQLite, which does not tell upper from lower case in names.
        if column.name.lower() in seen:
            raise MappingError(own, "two columns have this name (upper and lower case count as one)")
        seen.add(column.name.lower())
        _check_choice(column.type, CONVERTERS, f"{own}.type")
        split_path(column.path, f"{own}.path")


def _check_key(spec: TableSpec, place: str) -> None:
    if len(spec.primary_key) != 1:
        raise MappingError(f"{place}.primary_key", "the primary key is exactly one column, whose path is _id")
    name = spec.primary_key[0]
    column = next((column for column in spec.columns if column.name == name), None)
    if column is None:
        raise MappingError(f"{place}.primary_key", f"there is no column {name}")
    own = f"{place}.columns.{name}"
    if column.path != "_id":
        raise MappingError(f"{own}.path", "the primary key's path is _id; other keys are not supported yet")
    if column.type not in KEY_TYPES:
        raise MappingError(f"{own}.type", f"a primary key is a string or a number, not {column.type}")
    if column.optional:
        raise MappingError(f"{own}.optional", "the primary key cannot be optional")
    if spec.id_type == "":
        return
    _check_choice(spec.id_type, _ID_TYPES, f"{place}.id_type")
    if spec.id_type not in KEY_TYPES[column.type]:
        raise MappingError(f"{place}.id_type", f"_id of type {spec.id_type} does not fit a {column.type} key column")
