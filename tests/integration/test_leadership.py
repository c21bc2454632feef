"""Of several processes one leads: until it stops, dies, is stuck or paused; and nobody compares clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.db import OperationalError

from changesource.models import Lease
from changesource.services import leadership
from changesource.services.leadership import Leadership
from changesource.store import leases
from tests.harness.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
SECONDS = 0.45


class Candidate:
    """A process that would lead."""

    def __init__(self, seconds: float | None = SECONDS) -> None:
        self.runs = 0
        self.sign: float | None = None
        self.failure: Exception | None = None
        self.leadership = Leadership("test", self._lead, lambda: self.sign or monotonic(), seconds)
        self.task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return self.leadership.leads

    async def _lead(self) -> None:
        self.runs += 1
        while self.failure is None:
            await asyncio.sleep(0.01)
        raise self.failure

    def start(self) -> Candidate:
        self.task = asyncio.create_task(self.leadership.run())
        return self

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def die(self) -> None:
        """End without a last word, as a process that is killed does."""
        self.leadership._release = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        await self.stop()


@asynccontextmanager
async def candidates(count: int, seconds: float = SECONDS) -> AsyncIterator[list[Candidate]]:
    made = [Candidate(seconds).start() for _ in range(count)]
    try:
        yield made
    finally:
        for one in made:
            await one.stop()
        # What was cancelled goes on in its thread; the next there comes after it.
        await database_sync_to_async(int)()


def leaders(made: list[Candidate]) -> list[Candidate]:
    return [one for one in made if one.leads]


async def test_one_of_many_leads_and_stays() -> None:
    async with candidates(4) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        began = monotonic()
        while monotonic() - began < 3 * SECONDS:
            assert leaders(made) == [leader]
            await asyncio.sleep(0.02)
        assert [one.runs for one in made].count(1) == 1
        row = await database_sync_to_async(Lease.objects.get)()
        assert row.token > 4


async def test_a_clean_stop_hands_over_at_once() -> None:
    seconds = 3.0
    async with candidates(2, seconds) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        (other,) = (one for one in made if one is not leader)
        await leader.stop()
        began = monotonic()
        await until(lambda: other.leads)
        assert monotonic() - began < seconds, "it need not wait until the lease counts as given up"


async def test_a_leader_that_dies_is_replaced_after_a_while() -> None:
    seconds = 1.0
    async with candidates(3, seconds) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        await leader.die()
        began = monotonic()
        await until(lambda: len(leaders(made)) == 1)
        assert seconds / 3 < monotonic() - began < 6 * seconds


async def test_a_leader_that_was_paused_steps_down_when_it_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another took over meanwhile: for a moment both lead."""
    async with candidates(2) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        (other,) = (one for one in made if one is not leader)
        renew, resume = leader.leadership._renew, asyncio.Event()

        async def paused() -> bool:
            await resume.wait()
            return await renew()

        monkeypatch.setattr(leader.leadership, "_renew", paused)
        await until(lambda: other.leads)
        assert leader.leads
        resume.set()
        await until(lambda: not leader.leads)
        assert other.leads
        assert (leader.runs, other.runs) == (1, 1)


async def test_a_leader_that_is_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "STUCK_SECONDS", 0.5)
    async with candidates(2) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        (other,) = (one for one in made if one is not leader)
        leader.sign = monotonic()
        await until(lambda: other.leads and not leader.leads)


async def test_alone_it_leads_without_a_lease_and_begins_anew_when_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "STUCK_SECONDS", 0.3)
    alone = Candidate(seconds=None).start()
    await until(lambda: alone.leads)
    alone.sign = monotonic() - 10
    await until(lambda: alone.runs > 1)
    await alone.stop()
    assert not await database_sync_to_async(Lease.objects.exists)()


async def test_what_the_task_raises_ends_it_and_frees_the_lease() -> None:
    async with candidates(2) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)
        (other,) = (one for one in made if one is not leader)
        leader.failure = RuntimeError("gone wrong")
        await until(lambda: other.leads)
        assert leader.task is not None
        with pytest.raises(RuntimeError, match="gone wrong"):
            await leader.task


async def test_while_the_database_is_away_the_leader_leads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with candidates(2) as made:
        await until(lambda: len(leaders(made)) == 1)
        (leader,) = leaders(made)

        def away(*args: Any) -> Any:
            raise OperationalError("nobody there")

        with monkeypatch.context() as broken:
            for name in ("look", "take"):
                broken.setattr(leases, name, away)
            await asyncio.sleep(3 * SECONDS)
            assert leaders(made) == [leader]
        await asyncio.sleep(2 * SECONDS)
        assert leaders(made) == [leader]
        assert leader.runs == 1


async def test_a_renewal_that_was_written_without_an_answer_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with candidates(1) as made:
        await until(lambda: made[0].leads)
        take, once = leases.take, [True]

        def unanswered(*args: Any) -> bool:
            done = take(*args)
            if once:
                once.pop()
                raise OperationalError("written, and gone")
            return done

        monkeypatch.setattr(leases, "take", unanswered)
        await until(lambda: not once)
        await asyncio.sleep(2 * SECONDS)
        assert made[0].leads
        assert made[0].runs == 1
