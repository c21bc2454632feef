"""What a replica does with a batch that came over the channel layer."""

from __future__ import annotations

import pytest

from changesource.stream.batches import Batch
from changesource.stream.continuity import Verdict, judge

MINE = {"a": "0a"}


@pytest.mark.parametrize(
    ("follows", "end", "verdict"),
    [
        (10, 20, Verdict.SEND),  # follows directly
        (5, 20, Verdict.SEND),  # overlaps
        (10, 11, Verdict.SEND),
        (11, 20, Verdict.PULL),  # a gap
        (20, 30, Verdict.PULL),
        (5, 10, Verdict.SKIP),  # all known
        (1, 9, Verdict.SKIP),
        (0, 10, Verdict.SKIP),
    ],
)
def test_by_position(follows: int, end: int, verdict: Verdict) -> None:
    assert judge(10, Batch(follows, end, MINE), MINE) is verdict


def test_an_announcement_is_pulled_unless_it_is_known() -> None:
    assert judge(10, Batch(10, 20, MINE, pull=True), MINE) is Verdict.PULL
    assert judge(20, Batch(10, 20, MINE, pull=True), MINE) is Verdict.SKIP


def test_rows_made_by_another_mapping_are_a_gap() -> None:
    assert judge(10, Batch(10, 20, {"a": "other"}), MINE) is Verdict.PULL
    assert judge(10, Batch(10, 20, {}), MINE) is Verdict.PULL
    assert judge(20, Batch(10, 20, {}), MINE) is Verdict.SKIP


def test_tables_of_others_do_not_matter() -> None:
    assert judge(10, Batch(10, 20, {"a": "0a", "b": "any"}), MINE) is Verdict.SEND
    assert judge(10, Batch(10, 20, {"b": "any"}), {}) is Verdict.SEND
