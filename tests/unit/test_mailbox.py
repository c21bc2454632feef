"""The mailbox: bounded, in order, and never in the way of who fills it."""

from __future__ import annotations

import asyncio

from changesource.services.mailbox import MAX_BATCHES, MAX_BYTES, Mailbox
from changesource.stream.batches import Batch

MINE = {"a": "0a"}


def batch(follows: int, end: int, **more: bool) -> Batch:
    return Batch(follows, end, MINE, **more)


async def ends(mailbox: Mailbox) -> list[int]:
    found = []
    while (taken := await mailbox.get(0.001)) is not None:
        found.append(taken.end)
    return found


async def test_batches_come_in_their_order() -> None:
    mailbox = Mailbox()
    for end in (1, 2, 3):
        mailbox.offer(batch(end - 1, end), 10)
    assert await ends(mailbox) == [1, 2, 3]


async def test_silence_is_an_answer() -> None:
    assert await Mailbox().get(0.001) is None


async def test_who_waits_is_woken() -> None:
    mailbox = Mailbox()
    waiting = asyncio.create_task(mailbox.get(30))
    await asyncio.sleep(0)
    mailbox.offer(batch(0, 1), 10)
    async with asyncio.timeout(5):
        assert await waiting == batch(0, 1)


async def test_a_mailbox_that_was_emptied_waits_again() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(0, 1), 10)
    assert not mailbox.connects(1, MINE)
    assert await mailbox.get(0.001) is None


async def test_beyond_its_number_the_oldest_go() -> None:
    mailbox = Mailbox()
    for end in range(1, MAX_BATCHES + 6):
        mailbox.offer(batch(end - 1, end), 1)
    assert mailbox.dropped == 5
    assert await ends(mailbox) == list(range(6, MAX_BATCHES + 6))


async def test_beyond_its_bytes_the_oldest_go() -> None:
    mailbox = Mailbox()
    for end in (1, 2, 3):
        mailbox.offer(batch(end - 1, end), MAX_BYTES // 2)
    assert mailbox.dropped == 1
    assert await ends(mailbox) == [2, 3]


async def test_a_batch_larger_than_all_is_taken_alone() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(0, 1), 1)
    mailbox.offer(batch(1, 2), MAX_BYTES * 2)
    assert await ends(mailbox) == [2]
    mailbox.offer(batch(2, 3), 1)
    assert mailbox.dropped == 1
    assert await ends(mailbox) == [3]


async def test_what_is_put_back_comes_first() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(1, 2), 10)
    mailbox.put_back(batch(0, 1))
    assert await ends(mailbox) == [1, 2]


async def test_it_connects_where_a_batch_follows_or_overlaps() -> None:
    mailbox = Mailbox()
    assert not mailbox.connects(10, MINE)
    mailbox.offer(batch(12, 15), 10)
    assert not mailbox.connects(10, MINE)
    assert mailbox.connects(12, MINE)
    assert mailbox.connects(14, MINE)
    # What is behind the position is of no use any more.
    assert not mailbox.connects(15, MINE)
    assert await ends(mailbox) == []


async def test_it_connects_behind_a_batch_that_does_not() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(20, 25), 10)
    mailbox.offer(batch(10, 20), 10)
    assert mailbox.connects(10, MINE)
    assert await ends(mailbox) == [25, 20]


async def test_announcements_and_other_mappings_do_not_connect() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(10, 20, pull=True), 10)
    mailbox.offer(Batch(10, 20, {"a": "other"}), 10)
    assert not mailbox.connects(10, MINE)
