"""Fingerprints change with all that decides what is sent, and with nothing else."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from changesource.mapping import fingerprint
from changesource.mapping.fingerprint import replica_fingerprint, table_fingerprint
from changesource.mapping.spec import ColumnSpec, TableSpec

COLUMNS = (ColumnSpec("id", "string", "_id"), ColumnSpec("body", "string", "content"))
SPEC = TableSpec("message", "messages", COLUMNS, ("id",), filter={"a": 1, "b": {"x": 1, "y": 2}})
KNOWN = table_fingerprint("app", SPEC)

DECISIVE = [
    {"name": "note"},
    {"collection": "notes"},
    {"columns": COLUMNS[:1]},
    {"columns": (COLUMNS[0], replace(COLUMNS[1], name="text"))},
    {"columns": (COLUMNS[0], replace(COLUMNS[1], type="json"))},
    {"columns": (COLUMNS[0], replace(COLUMNS[1], path="body"))},
    {"columns": (COLUMNS[0], replace(COLUMNS[1], optional=True))},
    {"primary_key": ("body",)},
    {"filter": {}},
    {"filter": {"a": 1, "b": {"y": 2, "x": 1}}},
    {"pipeline": ({"$match": {"a": 1}},)},
    {"id_type": "objectId"},
    {"error_policy": "skip"},
    {"large_integers": "round"},
    {"columns": (COLUMNS[0], replace(COLUMNS[1], path="", expression={"$toLower": "$content"}))},
    {"columns": (replace(COLUMNS[0], key_type="string"), COLUMNS[1])},
]
INDIFFERENT = [{"description": "words"}, {"enabled": False}, {"columns": COLUMNS[::-1]}]


def test_fingerprint_is_short_and_stable():
    assert re.fullmatch("[0-9a-f]{12}", KNOWN)
    assert table_fingerprint("app", replace(SPEC, columns=tuple(replace(column) for column in COLUMNS))) == KNOWN


@pytest.mark.parametrize("changes", DECISIVE)
def test_it_changes_with_what_decides(changes):
    assert table_fingerprint("app", replace(SPEC, **changes)) != KNOWN


@pytest.mark.parametrize("changes", INDIFFERENT)
def test_it_stays_with_what_does_not(changes):
    assert table_fingerprint("app", replace(SPEC, **changes)) == KNOWN


def test_every_field_of_a_table_is_judged():
    judged = {name for changes in DECISIVE + INDIFFERENT for name in changes}
    assert judged == {field.name for field in fields(TableSpec)}


def test_it_changes_with_database_and_transform_version(monkeypatch):
    assert table_fingerprint("other", SPEC) != KNOWN
    monkeypatch.setattr(fingerprint, "TRANSFORM_VERSION", fingerprint.TRANSFORM_VERSION + 1)
    assert table_fingerprint("app", SPEC) != KNOWN


def test_replica_fingerprint_depends_on_the_set_of_tables_alone():
    one = replica_fingerprint(["aa", "bb"])
    assert one == replica_fingerprint(iter(["bb", "aa", "bb"]))
    assert one not in (replica_fingerprint(["aa"]), replica_fingerprint(["aab", "b"]), replica_fingerprint([]))
    assert all(0 <= replica_fingerprint([str(number)]) < 2**40 for number in range(100))


def test_it_changes_with_the_bound_of_rows_and_is_as_before_without_one():
    assert table_fingerprint("app", SPEC, 32 * 1024 * 1024) == KNOWN
    assert table_fingerprint("app", SPEC, 64 * 1024) != KNOWN
