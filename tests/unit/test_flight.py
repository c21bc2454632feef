"""What is on its way to a zero-cache, and what follows from it after a reconnect."""

from __future__ import annotations

import asyncio

import pytest

from changesource.services import flight
from changesource.services.flight import Flight


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "MOST", 10)


async def has_room(it: Flight, transactions: int) -> bool:
    waiting = asyncio.create_task(it.room(transactions))
    for _ in range(3):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
    return not waiting.cancelled() and waiting.done()


async def test_no_more_is_sent_than_may_be_on_its_way_until_it_is_stored() -> None:
    it = Flight(3)
    assert await has_room(it, 10)
    it.sent("a", 6)
    assert await has_room(it, 4)
    assert not await has_room(it, 5)
    it.sent("b", 4)
    waiting = asyncio.create_task(it.room(3))
    it.acked("")
    await asyncio.sleep(0)
    assert not waiting.done()
    it.acked("a")
    await asyncio.wait_for(waiting, 5)


async def test_one_that_is_larger_goes_alone() -> None:
    it = Flight(3)
    assert await has_room(it, 50)
    it.sent("a", 50)
    assert not await has_room(it, 1)
    it.acked("a")
    assert await has_room(it, 50)


@pytest.mark.parametrize(("group", "most"), [(3, 10), (50, 100)], ids=["as a rule", "two groups"])
def test_as_many_as_may_have_been_on_their_way_are_not_joined(group: int, most: int) -> None:
    it = Flight(group)
    for number in range(most):
        assert it.singly
        it.sent(f"{number}", 1)
    assert not it.singly


def test_tables_that_are_read_anew_are_so_a_few_times() -> None:
    it = Flight(3)
    for _ in range(flight.REFILLS):
        assert it.singly
        it.refilled()
        it.sent("a", 1)
    assert not it.singly


def test_who_has_everything_may_be_sent_groups() -> None:
    it = Flight(3)
    it.caught_up()
    assert not it.singly
