"""The chaos run, short: ``make chaos`` runs it for half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Run
from tests.chaos.schedule import Pace

# Every kind of fault once within about twenty seconds: one after the other at once, and each short.
HURRIED = Pace(gap=0.4, scale=0.5)


# What is waited for in turn, on a machine that is busy with other things, may be minutes.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seconds", "at_least", "pace"),
    [
        pytest.param(20, 1, HURRIED, id="each fault once"),
        pytest.param(120, 1, Pace(gap=3, scale=0.8), id="two minutes", marks=pytest.mark.slow),
    ],
)
def test_everything_fails_while_writers_never_stop(tmp_path: Path, seconds: float, at_least: int, pace: Pace) -> None:
    """Every replica ends equal to MongoDB, no watermark was sent twice or out of order, and nobody was reset."""
    outcome = Run(tmp_path, 1, seconds, at_least, pace).run()
    print(outcome.table())
    assert not outcome.violations, outcome.report()
