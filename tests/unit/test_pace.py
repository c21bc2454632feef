"""How fast rows flow, over the last seconds."""

from __future__ import annotations

import pytest

from changesource.services import progress


def test_the_pace_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    pace = progress.Pace(10.0)
    assert pace.per_second(500) == 0.0
    seen = []
    for _ in range(20):
        now += 1
        seen.append(pace.per_second(500 + int(min(now - 100, 5)) * 30))
    assert seen[:5] == [30.0] * 5
    assert seen[9] == 15.0
    assert seen[14:] == [0.0] * 6
    assert seen == sorted(seen, reverse=True)
