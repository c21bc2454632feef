"""Everything that reads what comes from outside, fuzzed in process."""

from __future__ import annotations

import pytest

from tests.fuzz import documents, files, layer, wire
from tests.fuzz.targets import LIMIT_SECONDS, Hang, Plant, Target, fuzz, hangs

TARGETS: list[Target] = [*wire.TARGETS, *files.TARGETS, *documents.TARGETS, *layer.TARGETS]
QUICK_IN_ALL = 2_000
FULL_IN_ALL = 100_000
PLANTED = [(target, plant) for target in TARGETS for plant in target.plants]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_some(target: Target) -> None:
    assert fuzz(target, target.quick) >= target.quick + len(target.corpus)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many(target: Target) -> None:
    assert fuzz(target, target.full) >= target.full + len(target.corpus)


@pytest.mark.parametrize(("target", "plant"), PLANTED, ids=[f"{target.name}-{plant.what}" for target, plant in PLANTED])
def test_a_planted_fault_is_found(target: Target, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant.place, plant.replacement, raising=False)
    # Short for what hangs alone: on a busy machine another input may take as long.
    seconds = 0.5 if plant.replacement is hangs else LIMIT_SECONDS
    with pytest.raises((Exception, BaseExceptionGroup)) as found:
        fuzz(target, target.quick, seconds=seconds)
    if plant.replacement is hangs:
        assert found.errisinstance(Hang)


def test_enough_is_drawn() -> None:
    assert sum(target.quick for target in TARGETS) >= QUICK_IN_ALL
    assert sum(target.full for target in TARGETS) >= FULL_IN_ALL
    assert all(target.plants for target in TARGETS)
