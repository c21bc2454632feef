"""Waits between tries: they grow, are spread at random, and are counted by what is tried again."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from prometheus_client import REGISTRY

from changesource.backoff import Backoff
from changesource.metrics import Retry


def counted(what: str) -> float:
    """How many retries Prometheus is told of."""
    found = REGISTRY.get_sample_value("zerosource_retries_total", {"what": what})
    assert found is not None
    return found


@pytest.mark.parametrize("what", get_args(Retry))
def test_each_kind_is_told_from_the_beginning(what: str) -> None:
    assert counted(what) >= 0


def test_waits_double_and_are_spread() -> None:
    runs = []
    for _ in range(50):
        backoff = Backoff("copy", first=0.1, longest=1.0)
        runs.append([backoff.next_delay() for _ in range(6)])
    for number, limit in enumerate([0.1, 0.2, 0.4, 0.8, 1.0, 1.0]):
        waits = [run[number] for run in runs]
        assert limit / 2 <= min(waits) < max(waits) <= limit
        assert len(set(waits)) > 40


def test_a_success_begins_anew() -> None:
    backoff = Backoff("copy", first=0.1)
    for _ in range(2000):
        assert backoff.next_delay() <= backoff.longest
    backoff.reset()
    assert backoff.next_delay() <= 0.1


async def test_each_wait_is_counted_once() -> None:
    before, others = counted("layer"), counted("copy")
    backoff = Backoff("layer", first=0.001)
    await backoff.wait()
    began = time.monotonic()
    backoff.block()
    assert time.monotonic() - began >= 0.001
    backoff.reset()
    await backoff.wait()
    assert (counted("layer"), counted("copy")) == (before + 3, others)
