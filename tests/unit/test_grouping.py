"""Grouping: no MongoDB transaction is ever split, and nothing is lost between two batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from bson.int64 import Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.stream.batches import Batch
from changesource.stream.events import Event
from changesource.stream.grouping import Bounds, Grouping

FINGERPRINTS = {"t": "01"}
WIDE = Bounds(rows=1_000_000, size=1 << 40, age=1e9)
ENDLESS = 1e9
NOTHING_MORE = None


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(cluster_time: int, transaction: int = 0) -> Event:
    return Event("insert", cluster_time, "c", transaction=("lsid", transaction) if transaction else None)


def feed(grouping: Grouping, *answers: tuple[int, int] | None, frames: int = 1) -> list[Batch]:
    """Give events as (cluster time, transaction number or 0), and the server's empty answer as None."""
    found: list[Batch] = []
    for answer in answers:
        if answer is NOTHING_MORE:
            found += grouping.nothing_more()
        else:
            rows = [b"%d.%d" % (answer[0], number) for number in range(frames)]
            found += grouping.add(event(*answer), [("t", rows)])
    return found


def spans(batches: list[Batch]) -> list[tuple[int, int, int, bool]]:
    return [(batch.follows, batch.end, len(batch.frames), batch.final) for batch in batches]


def test_transactions_without_rows_are_bounded_as_well() -> None:
    """Each may be a watermark, and what is on its way is counted by them."""
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=3, age=1e9), Clock())
    found = feed(grouping, *((time, 0) for time in range(1, 9)), NOTHING_MORE, frames=0)
    assert spans(found) == [(0, 3, 0, True), (3, 6, 0, True), (6, 8, 0, True)]


def test_nothing_is_given_before_its_end_is_proved() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=10))
    assert not grouping.waiting
    assert feed(grouping, (1, 0)) == []
    assert grouping.waiting
    assert spans(feed(grouping, NOTHING_MORE)) == [(0, 1, 1, True)]
    assert not grouping.waiting
    assert feed(grouping, NOTHING_MORE) == []


def test_transactions_are_joined_while_more_is_at_hand() -> None:
    grouping = Grouping(0, FINGERPRINTS, WIDE)
    assert spans(feed(grouping, (1, 0), (2, 7), (2, 7), (3, 0), (5, 8), NOTHING_MORE)) == [(0, 5, 5, True)]


def test_a_batch_is_closed_at_its_bound_of_rows() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=3, age=ENDLESS))
    found = feed(grouping, *((time, 0) for time in range(1, 9)), NOTHING_MORE)
    assert spans(found) == [(0, 3, 3, True), (3, 6, 3, True), (6, 8, 2, True)]


def test_a_batch_is_closed_at_its_bound_of_bytes() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(size=9, age=ENDLESS))
    assert spans(feed(grouping, *((time, 0) for time in range(1, 5)), NOTHING_MORE)) == [
        (0, 3, 3, True),
        (3, 4, 1, True),
    ]


def test_what_would_exceed_the_bound_together_is_not_joined() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=5, age=ENDLESS))
    assert spans(feed(grouping, (1, 0), (2, 0), (3, 0), NOTHING_MORE, frames=2)) == [(0, 2, 4, True), (2, 3, 2, True)]


def test_a_batch_is_closed_at_its_bound_of_age() -> None:
    clock = Clock()
    grouping = Grouping(0, FINGERPRINTS, Bounds(age=0.2), clock)
    assert feed(grouping, (1, 0), (2, 0)) == []
    clock.now = 0.19
    assert feed(grouping, (3, 0)) == []
    clock.now = 0.2
    assert spans(feed(grouping, (4, 0))) == [(0, 3, 3, True)]
    # The age of the next counts from its own first event.
    clock.now = 0.39
    assert feed(grouping, (5, 0)) == []
    clock.now = 0.4
    assert spans(feed(grouping, (6, 0))) == [(3, 5, 2, True)]
    clock.now = 9.0
    assert spans(feed(grouping, NOTHING_MORE)) == [(5, 6, 1, True)]


def test_age_never_splits_a_transaction() -> None:
    clock = Clock()
    grouping = Grouping(0, FINGERPRINTS, Bounds(age=0.2), clock)
    for _ in range(10):
        assert feed(grouping, (5, 1)) == []
        clock.now += 1
    assert spans(feed(grouping, (6, 0))) == [(0, 5, 10, True)]


def test_a_transaction_beyond_the_bounds_comes_in_pieces() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=3, age=ENDLESS))
    found = feed(grouping, (1, 0), *[(5, 1)] * 7, (6, 0), NOTHING_MORE)
    assert spans(found) == [(0, 1, 1, True), (1, 5, 3, False), (1, 5, 3, False), (1, 5, 1, True), (5, 6, 1, True)]


def test_pieces_follow_what_came_before_however_often_the_server_had_nothing() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=2, age=ENDLESS))
    assert spans(feed(grouping, (3, 0), *[NOTHING_MORE] * 3)) == [(0, 3, 1, True)]
    assert spans(feed(grouping, *[(5, 1)] * 2)) == [(3, 5, 2, False)]
    assert spans(feed(grouping, *[NOTHING_MORE] * 3)) == [(3, 5, 0, True)]
    assert spans(feed(grouping, (6, 0), NOTHING_MORE)) == [(5, 6, 1, True)]


def test_the_last_piece_comes_even_where_it_is_empty() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=3, age=ENDLESS))
    assert spans(feed(grouping, *[(5, 1)] * 3)) == [(0, 5, 3, False)]
    assert grouping.waiting
    assert spans(feed(grouping, NOTHING_MORE)) == [(0, 5, 0, True)]
    assert not grouping.waiting


def test_events_of_one_cluster_time_stay_together() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=1000, age=-1.0))
    assert spans(feed(grouping, (1, 0), (1, 0), (1, 1), (1, 2), (2, 0))) == [(0, 1, 4, True)]


def test_a_transaction_stays_together_over_several_cluster_times() -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=1000, age=-1.0))
    assert spans(feed(grouping, (1, 4), (2, 4), (3, 4), (4, 5), (5, 0))) == [(0, 3, 3, True), (3, 4, 1, True)]


def test_what_makes_no_frames_moves_the_end() -> None:
    grouping = Grouping(0, FINGERPRINTS, WIDE)
    assert list(grouping.add(event(4), [])) == []
    assert spans(feed(grouping, NOTHING_MORE)) == [(0, 4, 0, True)]


def test_a_refill_is_announced_by_its_batch_alone() -> None:
    grouping = Grouping(0, FINGERPRINTS, WIDE)
    assert list(grouping.add(event(4), [("t", [b"x"])], ["t", "u"])) == []
    (first,) = feed(grouping, NOTHING_MORE)
    (second,) = feed(grouping, (5, 0), NOTHING_MORE)
    assert first.refill == {"t": 4, "u": 4}
    assert second.refill == {}
    assert first.fingerprints == FINGERPRINTS


@dataclass(frozen=True)
class Unit:
    """What must stay together: one transaction (of one cluster time or several), or events of one time."""

    events: tuple[tuple[int, int, int], ...]  # cluster time, transaction, frames


@st.composite
def histories(draw: st.DrawFn) -> list[Unit]:
    """A source's history."""
    units: list[Unit] = []
    now = 10
    for number in range(1, draw(st.integers(1, 12)) + 1):
        now += draw(st.integers(1, 3))
        sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=draw(st.sampled_from([1, 1, 12]))))
        kind = draw(st.sampled_from(["one", "spread", "alike"]))
        events = []
        for place, frames in enumerate(sizes):
            now += 1 if kind == "spread" and place else 0
            events.append((now, 0 if kind == "alike" else number, frames))
        units.append(Unit(tuple(events)))
    return units


BOUNDS = st.builds(
    Bounds,
    rows=st.sampled_from([1, 2, 3, 5, 1000]),
    size=st.sampled_from([1, 10, 40, 10_000]),
    age=st.sampled_from([-1.0, 1.5, 1e9]),
)


@settings(max_examples=150)
@given(histories(), BOUNDS, st.data())
def test_every_border_of_a_batch_is_one_of_a_transaction(
    units: list[Unit], bounds: Bounds, data: st.DataObject
) -> None:
    clock = Clock()
    grouping = Grouping(10, FINGERPRINTS, bounds, clock)
    found: list[Batch] = []
    wanted: list[bytes] = []
    for unit in units:
        for cluster_time, transaction, count in unit.events:
            clock.now += data.draw(st.sampled_from([0.0, 1.0]))
            frames = [b"%d-%d" % (cluster_time, len(wanted) + place) for place in range(count)]
            wanted += frames
            found += grouping.add(event(cluster_time, transaction), [("t", frames)])
        # The server has nothing more: it can only say so where a transaction ended.
        if data.draw(st.booleans()):
            found += grouping.nothing_more()
            assert not grouping.waiting
    found += grouping.nothing_more()
    assert not grouping.waiting

    assert [frame for batch in found for frame in batch.frames] == wanted
    check_borders(found, units)
    check_bounds(found, bounds)


def check_borders(batches: list[Batch], units: list[Unit]) -> None:
    """Each batch ends where a unit ends, and follows what came before; runs tell the frames' own times."""
    ends = {unit.events[-1][0] for unit in units}
    position = 10
    for batch in batches:
        assert batch.follows == position
        assert batch.end > position
        frames = iter(batch.frames)
        for cluster_time, _, count in batch.runs:
            assert position < cluster_time <= batch.end
            assert all(next(frames).startswith(b"%d-" % cluster_time) for _ in range(count))
        assert next(frames, None) is None
        if batch.final:
            assert batch.end in ends
            position = batch.end
    assert batches[-1].final
    assert position == units[-1].events[-1][0]
    # Pieces are of one unit alone.
    of = {time: number for number, unit in enumerate(units) for time, _, _ in unit.events}
    pieces: set[int] = set()
    for batch in batches:
        if pieces or not batch.final:
            pieces |= {of[run[0]] for run in batch.runs}
            assert len(pieces) <= 1
        if batch.final:
            pieces = set()


def check_bounds(batches: list[Batch], bounds: Bounds) -> None:
    """A batch is no larger than its bounds and one event allow."""
    for batch in batches:
        assert len(batch.frames) <= bounds.rows + 3
        assert batch.final or len(batch.frames) >= bounds.rows or sum(map(len, batch.frames)) >= bounds.size


@pytest.mark.parametrize("length", [1, 99, 100, 101, 250, 1000])
def test_memory_stays_bounded_within_one_transaction(length: int) -> None:
    grouping = Grouping(0, FINGERPRINTS, Bounds(rows=100, age=ENDLESS))
    found = feed(grouping, *[(5, 1)] * length, NOTHING_MORE)
    assert sum(len(batch.frames) for batch in found) == length
    assert all(len(batch.frames) <= 100 for batch in found)
    assert [batch.final for batch in found] == [False] * (len(found) - 1) + [True]


def test_a_batch_says_when_its_first_event_was_made() -> None:
    """However many source transactions it joins, and of one that comes in pieces, of each piece."""
    first = 1_767_225_600_000
    moments = [Int64(first + number) for number in range(5)]
    grouping = Grouping(0, FINGERPRINTS, WIDE)
    for number in range(3):
        grouping.add(event(number + 1)._replace(wall=moments[number]), [("t", [b"x"])])
    (joined,) = grouping.nothing_more()
    grouping.add(event(9)._replace(wall=moments[4]), [("t", [b"x"])])
    (next_one,) = grouping.nothing_more()
    assert (joined.time_ms, next_one.time_ms) == (first, first + 4)
    pieces = Grouping(0, FINGERPRINTS, Bounds(rows=1, size=1 << 40, age=1e9))
    found = [pieces.add(event(1, 7)._replace(wall=moment), [("t", [b"x"])])[0].time_ms for moment in moments[:2]]
    assert found == [first, first + 1]


@pytest.mark.parametrize("wall", [None, -5, "2026", 1.5, datetime.now(UTC), Int64(2**60)])
def test_a_time_that_cannot_be_read_is_none(wall: object) -> None:
    grouping = Grouping(0, FINGERPRINTS, WIDE)
    grouping.add(event(1)._replace(wall=wall), [])
    assert [batch.time_ms for batch in grouping.nothing_more()] == [0]
