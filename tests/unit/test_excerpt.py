"""What people are shown of batches: which changes, how many, in which form."""

from __future__ import annotations

import pytest

from changesource.protocol.messages import TableFrames
from changesource.protocol.tables import mapped_table
from changesource.stream.batches import BARRIER, Batch, BatchBuilder
from changesource.stream.excerpt import (
    MAX_LINES,
    MAX_READ,
    MAX_READ_BYTES,
    READ_BYTES,
    SHOWN_BYTES,
    Change,
    Excerpt,
    Line,
    Wanted,
    readable,
)

MESSAGE = TableFrames(mapped_table("message", [("id", "string", False), ("content", "string", True)], ("id",)))
SEAT = TableFrames(mapped_table("seat", [("row", "number", False), ("name", "string", False)], ("row", "name")))
HELLO = {"id": "123", "content": "Hello"}
SECOND = 1_800_000_000


def batch(*runs: tuple[str, list[bytes]], follows: int = 0) -> Batch:
    """One transaction a run, one second after the other."""
    builder = BatchBuilder(follows, {})
    for number, (table, frames) in enumerate(runs, start=1):
        builder.end = (SECOND + number) << 32 | 7
        builder.add(builder.end, table, frames)
    return builder.build()


def messages(count: int, content: str = "", first: int = 0) -> list[bytes]:
    return [MESSAGE.insert({"id": f"m{number}", "content": content}) for number in range(first, first + count)]


def excerpt(made: Batch, wanted: Wanted | None = None, **options: bool) -> Excerpt:
    found = Excerpt(wanted or Wanted(), **options)
    found.add(made)
    return found


def keys(lines: list[Line]) -> list[object]:
    """The keys of the changes among the lines, and the notes."""
    found: list[object] = []
    for line in lines:
        change = line.get("change")
        found.append(change.get("key", change["type"]) if isinstance(change, dict) else line["note"])
    return found


@pytest.mark.parametrize(
    ("frame", "change"),
    [
        (MESSAGE.insert(HELLO), {"type": "insert", "table": "message", "key": {"id": "123"}, "value": HELLO}),
        (MESSAGE.update(HELLO), {"type": "update", "table": "message", "key": {"id": "123"}, "value": HELLO}),
        (MESSAGE.delete({"id": "123"}), {"type": "delete", "table": "message", "key": {"id": "123"}}),
        (
            SEAT.insert({"name": "a", "row": 5.0}),
            {"type": "insert", "table": "seat", "key": {"row": 5, "name": "a"}, "value": {"name": "a", "row": 5}},
        ),
        (MESSAGE.truncate, {"type": "truncate", "table": "message"}),
    ],
)
def test_a_frame_is_read_as_people_write_it(frame: bytes, change: Change) -> None:
    assert readable(frame) == change


def test_a_line_has_the_time_the_change_and_the_frame() -> None:
    frame = MESSAGE.update(HELLO)
    assert excerpt(batch(("message", [frame]))).lines == [
        {"time": SECOND + 1, "order": 7, "change": readable(frame), "frame": frame.decode(), "bytes": len(frame)}
    ]


def test_a_filter_by_table_leaves_others_out_and_counts_none_of_them() -> None:
    made = batch(("message", messages(2)), ("seat", [SEAT.truncate]), (BARRIER, []), ("message", messages(1, first=2)))
    found = excerpt(made, Wanted("message"))
    assert keys(found.lines) == [{"id": "m0"}, {"id": "m1"}, {"id": "m2"}]
    assert found.missed == 0
    assert keys(excerpt(made, Wanted("seat")).lines) == ["truncate"]
    assert keys(excerpt(made).lines)[2:4] == ["truncate", "heartbeat"]


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("a", [0]),
        ("5", [1, 2]),
        ("2.5", [3]),
        ('quoted "\\ é', [4]),
        ("true", [5]),
        ("other", []),
        ("content", []),
        ("5.0", []),
    ],
)
def test_a_filter_by_key_wants_one_column_of_the_key_to_be_just_that(key: str, rows: list[int]) -> None:
    """A truncate is of every key; values that stand elsewhere in the row do not count."""
    flexible = TableFrames(mapped_table("any", [("k", "json", False), ("content", "string", True)], ("k",)))
    values = ["a", "5", 5.0, 2.5, 'quoted "\\ é', True]
    frames = [flexible.insert({"k": value, "content": "other"}) for value in values]
    found = excerpt(batch(("any", frames), ("any", [flexible.truncate])), Wanted(key=key))
    assert keys(found.lines) == [*({"k": values[row]} for row in rows), "truncate"]
    assert found.missed == 0


def test_what_a_page_cannot_show_is_counted_where_it_is_missing() -> None:
    made = batch(("message", messages(MAX_LINES + 30)), ("seat", [SEAT.truncate]), ("message", messages(10)))
    found = excerpt(made)
    assert len(found.lines) == MAX_LINES + 1
    assert found.lines[-1] == {"note": "missed", "count": 41}
    assert found.missed == 41
    found = excerpt(made, Wanted("seat"))
    assert (len(found.lines), found.missed) == (1, 0)


def test_a_filter_by_key_reads_no_more_frames_than_it_may() -> None:
    """All of them hold the value, in another column than the key's."""
    found = excerpt(batch(("message", messages(MAX_READ + 30, content="x"))), Wanted(key="x"))
    assert found.lines == [{"note": "missed", "count": 30}]
    # One that is far down among others is found all the same.
    made = batch(("message", [*messages(10_000), *messages(1, first=99_999)]))
    found = excerpt(made, Wanted(key="m99999"))
    assert (keys(found.lines), found.missed) == ([{"id": "m99999"}], 0)


def test_of_long_frames_the_beginning_is_shown() -> None:
    [long, longer] = [MESSAGE.insert({"id": "m", "content": "é" * (size // 2)}) for size in (SHOWN_BYTES, READ_BYTES)]
    found = excerpt(batch(("message", [long, longer])))
    for line, frame in zip(found.lines, (long, longer), strict=True):
        assert line["bytes"] == len(frame)
        assert len(str(line["frame"]).encode()) in (SHOWN_BYTES, SHOWN_BYTES - 1)
    assert [line["change"] for line in found.lines] == [
        {"type": "insert", "table": "message", "key": {"id": "m"}},
        {"type": "insert", "table": "message"},
    ]
    # The key of the longer one is not known.
    found = excerpt(batch(("message", [long, longer])), Wanted(key="m"))
    assert keys(found.lines) == [{"id": "m"}, "missed"]


def test_no_more_bytes_are_read_than_a_message_may_take() -> None:
    frames = messages(20, content="x" * (READ_BYTES - 1000))
    found = excerpt(batch(("message", frames)))
    assert len(found.lines) - 1 == MAX_READ_BYTES // len(frames[0]) < 10
    assert found.missed == 20 - len(found.lines) + 1


def test_what_is_no_change_is_noted() -> None:
    moment = {"time": SECOND + 1, "order": 7}
    assert excerpt(batch((BARRIER, []))).lines == [{**moment, "note": "heartbeat"}]
    end = (SECOND + 1) << 32 | 7
    large = Batch(1, end, {}, pull=True, refill={"seat": end})
    assert excerpt(large).lines == [{**moment, "note": "large"}, {**moment, "note": "refill", "table": "seat"}]
    assert keys(excerpt(large, Wanted("message")).lines) == ["large"]
    # A watcher that begins says so by a batch that holds nothing.
    assert excerpt(Batch(end, end, {}, pull=True)).lines == []


def test_what_was_seen_is_not_shown_again_and_what_is_missing_is_said() -> None:
    made = batch(("message", messages(1)), ("message", messages(1, first=1)))
    found = Excerpt(Wanted())
    found.add(made, after=(SECOND + 1) << 32 | 7)
    assert keys(found.lines) == [{"id": "m1"}]
    found.add(batch(("message", messages(1)), follows=5), after=4)
    assert keys(found.lines) == [{"id": "m1"}, "gap", {"id": "m0"}]


def test_while_it_is_paused_changes_are_counted_alone() -> None:
    found = excerpt(batch(("message", messages(7)), (BARRIER, [])), paused=True)
    assert (found.lines, found.missed) == ([], 7)
