"""What one event does to the mapped tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from changesource.mapping.compiled import RowFault
from changesource.stream.batches import BARRIER
from changesource.stream.events import Event, Kind
from changesource.stream.transform import Transform
from tests.harness.chat import compiled

T = 7


def changes(event: Event, faults: list[RowFault] | None = None) -> dict[str, list[Any]]:
    """Return what each table gets, as (tag, row or key or None)."""
    transform = Transform(compiled(), (faults if faults is not None else []).append)
    found: dict[str, list[Any]] = {}
    for table, frames in transform.changes(event):
        assert table not in found
        found[table] = []
        for frame in frames:
            change = json.loads(frame)[1]
            found[table].append((change["tag"], change.get("new", change.get("key"))))
    return found


ROW = {"id": "m", "body": "hi", "likes": 3, "tags": ["x"]}
DOCUMENT = {"_id": "m", "body": "hi", "stats": {"likes": 3}, "tags": ["x"]}


@pytest.mark.parametrize(("kind", "tag"), [("insert", "insert"), ("update", "update"), ("replace", "update")])
def test_a_document_becomes_a_row(kind: Kind, tag: str) -> None:
    assert changes(Event(kind, T, "messages", "m", DOCUMENT)) == {"message": [(tag, ROW)]}


@pytest.mark.parametrize("kind", ["update", "replace", "delete"])
def test_a_document_that_is_gone_is_deleted(kind: Kind) -> None:
    assert changes(Event(kind, T, "messages", "m")) == {"message": [("delete", {"id": "m"})]}


def test_each_table_of_a_collection_gets_its_part() -> None:
    """Entering a filter is an upsert, leaving it a delete, whatever was before."""
    room = {"_id": 1, "kind": "chat", "title": "t"}
    assert changes(Event("update", T, "rooms", 1, room)) == {
        "chat": [("update", {"id": 1, "title": "t"})],
        "channel": [("delete", {"id": 1})],
    }
    assert changes(Event("replace", T, "rooms", 1, {"_id": 1})) == {
        "chat": [("delete", {"id": 1})],
        "channel": [("delete", {"id": 1})],
    }
    assert changes(Event("insert", T, "rooms", 1, {**room, "kind": "channel"})) == {
        "chat": [],
        "channel": [("insert", {"id": 1, "title": "t", "open": None})],
    }


def test_a_document_without_a_valid_row_is_deleted_and_reported() -> None:
    faults: list[RowFault] = []
    assert changes(Event("update", T, "messages", "m", {"_id": "m"}), faults) == {"message": [("delete", {"id": "m"})]}
    assert [(f.table, f.document_id, f.column, f.left_out) for f in faults] == [("message", '"m"', "body", True)]


def test_a_document_without_a_valid_row_is_not_inserted() -> None:
    faults: list[RowFault] = []
    assert changes(Event("insert", T, "messages", "m", {"_id": "m", "body": None}), faults) == {"message": []}
    assert len(faults) == 1


def test_an_id_that_can_have_no_row_has_nothing_to_delete() -> None:
    assert changes(Event("delete", T, "messages", 5)) == {"message": []}
    assert changes(Event("update", T, "messages", 5, {"_id": 5, "body": "x"})) == {"message": []}


def test_a_value_that_was_nulled_is_reported_and_the_row_stays() -> None:
    faults: list[RowFault] = []
    document = {"_id": "m", "body": "hi", "stats": {"likes": 2**60}}
    found = changes(Event("insert", T, "messages", "m", document), faults)
    assert found == {"message": [("insert", {"id": "m", "body": "hi", "likes": None, "tags": None})]}
    assert [(f.column, f.left_out) for f in faults] == [("likes", False)]


def test_a_dropped_collection_empties_its_tables() -> None:
    gone = ("truncate", None)
    assert changes(Event("drop", T, "rooms")) == {"chat": [gone], "channel": [gone]}
    assert changes(Event("dropDatabase", T)) == {"message": [gone], "chat": [gone], "channel": [gone]}


def test_a_renamed_collection_empties_its_tables_and_those_of_its_new_name() -> None:
    gone = ("truncate", None)
    away = Event("rename", T, "messages", target="elsewhere")
    assert changes(away) == {"message": [gone]}
    assert Transform(compiled()).refilled(away) == []
    into = Event("rename", T, "temporary", target="rooms")
    assert changes(into) == {"chat": [gone], "channel": [gone]}
    assert Transform(compiled()).refilled(into) == ["chat", "channel"]


def test_a_barrier_is_a_run_of_its_own() -> None:
    assert changes(Event("barrier", T, "_zerosource", target="x")) == {BARRIER: []}


def test_collections_that_are_not_mapped_say_nothing() -> None:
    assert changes(Event("insert", T, "other", 1, {"_id": 1})) == {}
    assert changes(Event("drop", T, "other")) == {}


def test_the_same_event_gives_the_same_frames_anywhere() -> None:
    event = Event("update", T, "messages", "m", DOCUMENT)
    assert list(Transform(compiled()).changes(event)) == list(Transform(compiled()).changes(event))
