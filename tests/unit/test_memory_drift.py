"""What the tests of memory call flat, and what they do not; and a tally that takes no wrong row."""

from __future__ import annotations

import mmap
import os

import pytest

from changesource.protocol.messages import TableFrames, begin, create_tables
from changesource.protocol.tables import mapped_table
from changesource.protocol.watermark import Watermark
from tests.harness.memory import MIB, Memory, drift
from tests.harness.model import ModelError
from tests.harness.tally import TABLE, Tally, name

SECONDS = 60


def samples(size):
    """Ten a second, in bytes, of a ``size`` in MiB that depends on the time."""
    return [(1000 + n / 10, int(size(n / 10) * MIB)) for n in range(SECONDS * 10 + 1)]


@pytest.mark.parametrize(
    ("size", "grown"),
    [
        pytest.param(lambda at: 100, 0, id="constant"),
        pytest.param(lambda at: 100 + at / 2, SECONDS / 2 * 2 / 3, id="rises by half a MiB a second"),
        pytest.param(lambda at: 100 - at / 4, -SECONDS / 4 * 2 / 3, id="falls"),
        pytest.param(lambda at: 100 + min(at, 15), 0, id="fills a queue in the first third"),
        pytest.param(lambda at: 100 + (at % 2) * 8, 0, id="a reply of 16 MB comes and goes"),
    ],
)
def test_drift_is_what_the_last_two_thirds_add(size, grown):
    assert drift(samples(size)) == pytest.approx(grown * MIB, abs=MIB)


def test_a_step_in_the_middle_is_a_drift():
    """What grows once, late, must not pass for flat."""
    assert drift(samples(lambda at: 100 if at < 40 else 120)) > 20 * MIB


@pytest.mark.parametrize("few", [[], [(1.0, 5)], [(1.0, 5), (1.0, 9)]])
def test_too_few_samples_have_no_drift(few):
    assert drift(few) == 0


def test_a_phase_tells_of_what_was_held_in_it():
    with Memory(os.getpid()) as memory:
        with memory.phase("before"):
            pass
        with memory.phase("held"):
            # Not of the heap, which may have so much left from before.
            held = mmap.mmap(-1, 50 * MIB)
            for _ in range(50):
                held.write(b"x" * MIB)
    held.close()
    before, during = memory.phases
    assert (before.name, during.name) == ("before", "held")
    assert before.growth < 5 * MIB
    assert during.growth > 45 * MIB
    assert "held: idle " in str(during)


def test_a_tally_counts_each_row_once_and_takes_no_wrong_one():
    table = mapped_table(TABLE, [("id", "string", False), ("name", "string", False)], ("id",))
    frames = TableFrames(table)
    tally = Tally(width=20, rows=3)
    tally.apply(begin(Watermark(1 << 32, 1)).decode())
    for frame in create_tables([table], "app", 0):
        tally.apply(frame.decode())
    for number in (0, 2, 2):
        tally.apply(frames.update({"id": f"{number:07}", "name": name(number, 20)}).decode())
    assert (tally.count, tally.changes) == (2, 3)
    with pytest.raises(ModelError, match="row 1 is"):
        tally.apply(frames.update({"id": f"{1:07}", "name": name(2, 20)}).decode())
    tally.disconnect()
    assert tally.cut
