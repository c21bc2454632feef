"""What a table's mapping must be before it can be compiled: names, columns, the key, what is not supported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from changesource.exceptions import MappingError
from changesource.mapping.json_reading import check_values
from changesource.mapping.keys import ID_TYPES, KEY_TYPES
from changesource.mapping.paths import split_path
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.mapping.values import CONVERTERS

MAX_NAME_LENGTH = 63
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ERROR_POLICIES = ("coerce", "skip", "stop")
_LARGE_INTEGERS = ("reject", "round")


def check_table(spec: TableSpec) -> None:
    """Raise ``MappingError`` at the first thing in ``spec`` that is wrong.

    What is compiled (the filter, the pipeline, expressions) is checked by its compiler.
    """
    place = f"tables.{spec.name}"
    check_name(spec.name, place, "a table's name")
    _check_collection(spec.collection, f"{place}.collection")
    _check_choice(spec.error_policy, _ERROR_POLICIES, f"{place}.errorPolicy")
    _check_choice(spec.large_integers, _LARGE_INTEGERS, f"{place}.largeIntegers")
    check_values(f"{place}.filter", spec.filter)
    check_values(f"{place}.pipeline", list(spec.pipeline))
    _check_columns(spec.columns, f"{place}.columns")
    _check_key(spec, place)


def check_name(name: str, place: str, what: str) -> None:
    """Raise ``MappingError`` where ``name`` cannot be that of a table or column in Zero; ``what`` says which it is."""
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
        check_name(column.name, own, "a column's name")
        # The replica is SQLite, which does not tell upper from lower case in names.
        if column.name.lower() in seen:
            raise MappingError(own, "two columns have this name (upper and lower case count as one)")
        seen.add(column.name.lower())
        _check_choice(column.type, CONVERTERS, f"{own}.type")
        if column.expression is None:
            split_path(column.path, f"{own}.path")
        elif column.path:
            raise MappingError(f"{own}.expression", "is given beside a path; only one of the two may be")
        else:
            check_values(f"{own}.expression", column.expression)


def _check_key(spec: TableSpec, place: str) -> None:
    own = f"{place}.primaryKey"
    if not spec.primary_key:
        raise MappingError(own, "names no column")
    columns = {column.name: column for column in spec.columns}
    for name in spec.primary_key:
        if spec.primary_key.count(name) > 1:
            raise MappingError(own, f"names {name} twice")
        column = columns.get(name)
        if column is None:
            raise MappingError(own, f"there is no column {name}")
        at = f"{place}.columns.{name}"
        if column.type not in KEY_TYPES:
            raise MappingError(f"{at}.type", f"a primary key is a string or a number, not {column.type}")
        if column.optional:
            raise MappingError(f"{at}.optional", "the primary key cannot be optional")
    if spec.id_type:
        _check_choice(spec.id_type, ID_TYPES, f"{place}.idType")
    for column in spec.columns:
        if column.key_type:
            at = f"{place}.columns.{column.name}.keyType"
            _check_choice(column.key_type, ID_TYPES, at)
            if column.name not in spec.primary_key:
                raise MappingError(at, "only a column of the primary key has one")
