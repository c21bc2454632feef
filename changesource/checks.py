"""System checks that ask MongoDB. ``manage.py check`` alone registers them: no other command waits for MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import Error as DatabaseFailure

from changesource.conf import settings
from changesource.exceptions import DatabaseUnavailable, MappingError, SourceRefused, SourceUnavailable, ZerosourceError
from changesource.logs import without_keys
from changesource.mapping.spec import TableSpec
from changesource.services.findings import Finding, table_findings
from changesource.services.inspection import inspector
from changesource.store.mappings import read_draft

TAG = "changesource"
SECONDS_A_TABLE = 10.0  # a command may wait longer than a page


@register(TAG)
def check_source(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Whether MongoDB, and the collections that are mapped in the draft, are as they must be."""
    inspect = inspector(switch=False)
    if inspect is None:
        return [Warning("MONGODB_URI is not set, so MongoDB was not checked.", id=f"{TAG}.W001")]
    try:
        tables = [table for table in read_draft().tables if table.enabled]
    except DatabaseFailure as error:
        return [_message(Warning, DatabaseUnavailable.of(error))]
    try:
        inspect({})
    except SourceRefused as error:
        return [_message(Error, error)]
    except SourceUnavailable as error:
        return [_message(Warning, error)]
    # What is said of a collection, or of MongoDB, is said once, whatever the number of its tables.
    return list({str(message): message for message in _of_tables(tables)}.values())


@register("security", deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Of ``check --deploy``: what Django cannot know of our own settings."""
    chosen, found = settings(), list[CheckMessage]()
    if chosen.debug:
        found.append(Warning("DEBUG is on.", hint="Leave it unset in production.", id=f"{TAG}.W002"))
    if chosen.secure_cookies and not (chosen.trusted_proxies or chosen.csrf_trusted_origins):
        found.append(
            Warning(
                "Cookies go by https alone, but no proxy that ends TLS is named, so nobody can log in through one.",
                hint="Put its address into TRUSTED_PROXIES.",
                id=f"{TAG}.W003",
            )
        )
    return found


def _of_tables(tables: Sequence[TableSpec]) -> Iterator[CheckMessage]:
    for table in tables:
        try:
            findings = table_findings(settings(), table, SECONDS_A_TABLE)
        except MappingError as error:
            yield _message(Error, error)
            continue
        yield from (_of_finding(table, finding) for finding in findings if finding.level in ("warning", "error"))
        if findings and findings[-1].code == SourceUnavailable.code:
            return  # nor will it answer for the others


def _of_finding(table: TableSpec, finding: Finding) -> CheckMessage:
    kind = Error if finding.level == "error" else Warning
    # The key, the filter and what does not fit are the table's; all else is the collection's.
    own = finding.about in ("key", "filter", "row errors")
    message = f"Table {table.name}: {finding.message}" if own else finding.message
    return kind(message, hint=finding.remedy or None, id=f"{TAG}.{finding.code}")


def _message(kind: type[Error] | type[Warning], error: ZerosourceError) -> CheckMessage:
    return kind(without_keys(error.message), hint=error.remedy, id=f"{TAG}.{error.code}")
