"""What the integration tests share."""

from __future__ import annotations

import pytest

from changesource.backoff import Backoff

HURRY = 10


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a tenth as long between tries, in this process: what counts is what comes of them. Servers wait as ever."""
    delay = Backoff.next_delay
    monkeypatch.setattr(Backoff, "next_delay", lambda self: delay(self) / HURRY)
