"""What one event does to the mapped tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from changesource.exceptions import TableStopped
from changesource.mapping.compiled import RowFault, ignore_fault
from changesource.mapping.documents import Salvaged
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.stream.batches import BARRIER
from changesource.stream.events import Event, Kind
from changesource.stream.transform import Transform
from tests.harness.chat import MESSAGE, compiled

T = 7


def changes(event: Event, faults: list[RowFault] | None = None) -> dict[str, list[Any]]:
    """Return what each table gets, as (tag, row or key or None)."""
    transform = Transform(compiled(), (faults if faults is not None else []).append)
    found: dict[str, list[Any]] = {}
    for table, frames in transform.changes(event):
        assert table not in found
        found[table] = []
        assert frames is not None
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


# Tables whose rows follow from more than `_id`.

MEMBER = TableSpec(
    name="member",
    collection="accounts",
    columns=(ColumnSpec("accountId", "string", "_id"), ColumnSpec("userId", "string", "members.id"),
             ColumnSpec("role", "json", "members.role", optional=True)),
    primary_key=("accountId", "userId"),
    pipeline=({"$unwind": "$members"},),
    filter={"off": {"$ne": True}},
)  # fmt: skip


def account(*members: tuple[str, object], **more: object) -> dict[str, object]:
    return {"_id": "a", "members": [{"id": one, "role": role} for one, role in members], **more}


def member_changes(event: Event, spec: TableSpec = MEMBER) -> list[tuple[str, object]]:
    """Return what the table gets, as (tag, [key values] or the role)."""
    ((_, frames),) = Transform(compiled(spec)).changes(event)
    assert frames is not None
    found: list[tuple[str, object]] = []
    for change in (json.loads(frame)[1] for frame in frames):
        row = change.get("new")
        found.append((change["tag"], [row["userId"], row["role"]] if row else change.get("key", {}).get("userId")))
    return found


HISTORIES = [
    ("insert", None, account(("x", 1), ("y", 2)), [("insert", ["x", 1]), ("insert", ["y", 2])]),
    ("update", account(("x", 1), ("y", 2)), account(("x", 1), ("y", 3)), [("update", ["y", 3])]),
    ("update", account(("x", 1), ("y", 2)), account(("y", 2), ("x", 1)), []),
    ("update", account(("x", 1)), account(("x", 1), ("y", 1)), [("update", ["y", 1])]),
    ("update", account(("x", 1), ("y", 2)), account(("y", 2)), [("delete", "x")]),
    ("update", account(("x", 1)), account(("y", 1)), [("delete", "x"), ("update", ["y", 1])]),
    ("update", account(("x", 1)), account(("x", 1), off=True), [("delete", "x")]),
    ("update", account(("x", 1), off=True), account(("x", 1)), [("update", ["x", 1])]),
    # 1 and true are equal to Python alone.
    ("update", account(("x", 1)), account(("x", True)), [("update", ["x", True])]),
    ("update", account(("x", 1), ("x", 2)), account(("x", 1)), []),
    ("update", account(("x", 1)), None, [("delete", "x")]),
    ("replace", account(("x", 1)), account(("x", 2)), [("update", ["x", 2])]),
    ("delete", account(("x", 1), ("y", 2)), None, [("delete", "x"), ("delete", "y")]),
    ("delete", account(("x", 1), off=True), None, []),
    ("drop", None, None, [("truncate", None)]),
    ("rename", None, None, [("truncate", None)]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "before", "after", "expected"), HISTORIES)
def test_a_change_of_rows_with_history_is_the_least_difference(
    kind: Kind, before: dict[str, object] | None, after: dict[str, object] | None, expected: list[tuple[str, object]]
) -> None:
    assert member_changes(Event(kind, T, "accounts", "a", after, before=before)) == expected


def test_one_element_of_200_is_one_update() -> None:
    before = account(*((f"u{number}", number) for number in range(200)))
    after = account(*((f"u{number}", 0 if number == 77 else number) for number in range(200)))
    event = Event("update", T, "accounts", "a", after, before=before)
    assert member_changes(event) == [("update", ["u77", 0])]


@pytest.mark.parametrize("kind", ["update", "replace", "delete"])
def test_where_it_is_not_known_what_was_before_the_table_is_read_again(kind: Kind) -> None:
    """Never taken for a document without rows."""
    transform = Transform(compiled(MEMBER, replace(MEMBER, name="plain", primary_key=("accountId",), pipeline=(),
                                                   columns=(MEMBER.columns[0],))))  # fmt: skip
    event = Event(kind, T, "accounts", "a", None if kind == "delete" else account(("x", 1)))
    assert transform.refilled(event) == ["member"]
    frames = dict(transform.changes(event))
    assert [json.loads(frame)[1]["tag"] for frame in frames["member"] or ()] == ["truncate"]
    assert [json.loads(frame)[1]["tag"] for frame in frames["plain"] or ()] == ["delete" if kind == "delete" else
                                                                               "update"]  # fmt: skip
    assert transform.refilled(event._replace(before=account())) == []


def test_documents_that_swap_a_key_within_a_transaction_end_exact() -> None:
    spec = replace(
        MEMBER, primary_key=("userId",), pipeline=(), filter={},
        columns=(ColumnSpec("userId", "string", "seat"), ColumnSpec("role", "json", "_id")),
    )  # fmt: skip
    rows: dict[object, object] = {"1": "a", "2": "b"}
    for one, seat, now in (("a", "1", "tmp"), ("b", "2", "1"), ("a", "tmp", "2")):
        event = Event("update", T, "accounts", one, {"_id": one, "seat": now}, before={"_id": one, "seat": seat})
        for tag, value in member_changes(event, spec):
            if tag == "delete":
                rows.pop(value, None)
            else:
                assert isinstance(value, list)
                rows[value[0]] = value[1]
    assert rows == {"1": "b", "2": "a"}


def test_a_table_that_stops_is_raised_or_withheld() -> None:
    stops = replace(MESSAGE, error_policy="stop")
    event = Event("update", T, "messages", "m", {"_id": "m", "body": 5.5, "stats": {"likes": "many"}})
    with pytest.raises(TableStopped, match='Table message stopped at column likes of the document with _id "m": a val'):
        dict(Transform(compiled(stops)).changes(event))
    faults: list[RowFault] = []
    found = dict(Transform(compiled(stops), faults.append, withholds=True).changes(event))
    assert found == {"message": None}
    assert [fault.column for fault in faults] == ["likes"]
    # What it was before stopped it then, or never will.
    gone = event._replace(kind="delete", document=None)
    assert dict(Transform(compiled(stops)).changes(gone))["message"]


def test_a_document_that_becomes_too_much_gives_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows repeat what stands beside an array, so a document of 16 MB could fill the memory."""
    monkeypatch.setattr("changesource.mapping.compiled.MAX_DOCUMENT_BYTES", 10_000)
    few, many = account(*((f"u{n}", n) for n in range(5))), account(*((f"u{n}", n) for n in range(500)))
    faults: list[RowFault] = []
    transform = Transform(compiled(MEMBER), faults.append)
    ((_, frames),) = transform.changes(Event("update", T, "accounts", "a", many, before=few))
    assert [json.loads(frame)[1]["tag"] for frame in frames or ()] == ["delete"] * 5
    assert [fault.reason for fault in faults] == ["its rows have more than the 10000 bytes that are allowed"]
    ((_, frames),) = transform.changes(Event("update", T, "accounts", "a", few, before=many))
    assert [json.loads(frame)[1]["tag"] for frame in frames or ()] == ["update"] * 5


def test_a_field_that_cannot_be_decoded_counts_only_where_it_is_read() -> None:
    """A pre-image comes whole, a copy without what is not mapped: both must give the same rows."""
    spec = replace(MEMBER, error_policy="skip")
    before = Salvaged(account(("x", 1), ("y", 2)), ("elsewhere",))
    event = Event("update", T, "accounts", "a", account(("x", 1)), before=before)
    assert member_changes(event, spec) == [("delete", "y")]
    unread = Salvaged(account(("x", 1)), ("members",))
    assert member_changes(event._replace(before=unread), spec) == [("update", ["x", 1])]


def test_a_row_has_one_size_however_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied must be deleted again: it counts as much then."""
    (table,) = compiled(MEMBER).tables.values()
    document = account(*((f"u{n}", "é\u2028" * n) for n in range(50)))
    sizes = [
        sum(len(frame) - encoder.overhead for frame in table.encoded(document, encoder, ignore_fault))
        for encoder in (table.inserts, table.updates, table.values)
    ]
    assert len(set(sizes)) == 1
    monkeypatch.setattr("changesource.mapping.compiled.MAX_DOCUMENT_BYTES", sizes[0])
    assert len(table.encoded(document, table.values, ignore_fault)) == 50
    assert len(table.changed(document, None, ignore_fault)) == 50
    monkeypatch.setattr("changesource.mapping.compiled.MAX_DOCUMENT_BYTES", sizes[0] - 1)
    assert table.encoded(document, table.values, ignore_fault) == table.changed(document, None, ignore_fault) == []
