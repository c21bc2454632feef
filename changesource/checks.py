"""System checks that ask MongoDB. ``manage.py check`` alone registers them: no other command waits for MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import Error as DatabaseFailure

from changesource.exceptions import DatabaseUnavailable, MappingError, SourceRefused, SourceUnavailable, ZerosourceError
from changesource.mapping.questions import questions_of
from changesource.mapping.rows import CompiledTable, compile_table
from changesource.mapping.spec import TableSpec
from changesource.services.inspection import inspector
from changesource.store.mappings import read_draft

TAG = "changesource"


@register(TAG)
def check_source(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Whether MongoDB, and the collections that are mapped in the draft, can be watched."""
    inspect = inspector(switch=False)
    if inspect is None:
        return [Warning("MONGODB_URI is not set, so MongoDB was not checked.", id=f"{TAG}.W001")]
    try:
        tables = [table for table in read_draft().tables if table.enabled]
    except DatabaseFailure as error:
        return [_message(Warning, DatabaseUnavailable.of(error))]
    found: list[CheckMessage] = []
    try:
        inspect({})
        # One by one, so that each that is refused is told.
        for table in _compiled(tables, found):
            try:
                inspect(questions_of([table]))
            except SourceRefused as error:
                told = _message(Error, error)
                if told not in found:  # another table of the collection
                    found.append(told)
    except SourceRefused as error:
        found.append(_message(Error, error))
    except SourceUnavailable as error:
        found.append(_message(Warning, error))
    return found


def _compiled(tables: Sequence[TableSpec], found: list[CheckMessage]) -> Iterator[CompiledTable]:
    """Give the tables that can be compiled; the others are told of in ``found``."""
    for table in tables:
        try:
            yield compile_table(table)
        except MappingError as error:
            found.append(_message(Error, error))


def _message(kind: type[Error] | type[Warning], error: ZerosourceError) -> CheckMessage:
    return kind(error.message, hint=error.remedy, id=f"{TAG}.{error.code}")
