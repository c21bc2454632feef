"""The mailbox: bounded, in order, and never in the way of who fills it."""

from __future__ import annotations

import asyncio

from changesource.services.mailbox import MAX_BATCHES, MAX_BYTES, Mailbox
from changesource.stream.batches import Batch

MINE = {"a": "0a"}


def batch(follows: int, end: int, **more: bool) -> Batch:
    return Batch(follows, end, MINE, **more)


def ends(mailbox: Mailbox, position: int) -> list[int]:
    """What a replica at ``position`` takes, one after the other."""
    found = []
    while (taken := mailbox.take(position, MINE)) is not None:
        position = taken.end
        found.append(position)
    return found


async def test_batches_come_in_their_order() -> None:
    mailbox = Mailbox()
    for end in (1, 2, 3):
        mailbox.offer(batch(end - 1, end), 10)
    assert ends(mailbox, 0) == [1, 2, 3]


async def test_silence_is_an_answer() -> None:
    assert not await Mailbox().wait(0.001)


async def test_who_waits_is_woken() -> None:
    mailbox = Mailbox()
    waiting = asyncio.create_task(mailbox.wait(30))
    await asyncio.sleep(0)
    mailbox.offer(batch(0, 1), 10)
    async with asyncio.timeout(5):
        assert await waiting


async def test_who_is_cancelled_while_a_batch_arrives_ends() -> None:
    mailbox = Mailbox()

    async def take_all() -> None:
        while True:
            await mailbox.wait(30)
            mailbox.take(0, MINE)

    waiting = asyncio.create_task(take_all())
    await asyncio.sleep(0)
    mailbox.offer(batch(0, 1), 10)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    assert waiting.cancelled()


async def test_a_mailbox_that_was_emptied_waits_again() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(0, 1), 10)
    assert mailbox.take(1, MINE) is None
    assert not await mailbox.wait(0.001)


async def test_beyond_its_number_the_oldest_go() -> None:
    mailbox = Mailbox()
    for end in range(1, MAX_BATCHES + 6):
        mailbox.offer(batch(end - 1, end), 1)
    assert mailbox.dropped == 5
    assert ends(mailbox, 5) == list(range(6, MAX_BATCHES + 6))


async def test_beyond_its_bytes_the_oldest_go() -> None:
    mailbox = Mailbox()
    for end in (1, 2, 3):
        mailbox.offer(batch(end - 1, end), MAX_BYTES // 2)
    assert mailbox.dropped == 1
    assert ends(mailbox, 1) == [2, 3]


async def test_bytes_that_were_taken_do_not_count_any_more() -> None:
    mailbox = Mailbox()
    for end in range(1, 10):
        mailbox.offer(batch(end - 1, end), MAX_BYTES // 2)
        assert ends(mailbox, end - 1) == [end]
    assert mailbox.dropped == 0


async def test_a_batch_larger_than_all_is_taken_alone() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(0, 1), 1)
    mailbox.offer(batch(1, 2), MAX_BYTES * 2)
    assert ends(mailbox, 1) == [2]
    mailbox.offer(batch(2, 3), 1)
    assert mailbox.dropped == 1
    assert ends(mailbox, 2) == [3]


async def test_it_connects_where_a_batch_follows_or_overlaps() -> None:
    mailbox = Mailbox()
    assert not mailbox.connects(10, MINE)
    mailbox.offer(batch(12, 15), 10)
    assert not mailbox.connects(10, MINE)
    assert mailbox.connects(12, MINE)
    assert mailbox.connects(14, MINE)
    assert mailbox.connects(15, MINE), "one that ends just there proves that the layer has come as far"
    # What is behind the position is of no use any more.
    assert not mailbox.connects(16, MINE)
    assert not mailbox.waiting


async def test_it_connects_behind_a_batch_that_does_not() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(20, 25), 10)
    mailbox.offer(batch(10, 20), 10)
    assert mailbox.connects(10, MINE)
    assert ends(mailbox, 10) == [20, 25], "the two came in the wrong order"


async def test_what_cannot_be_sent_stays_until_it_is_old() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(20, 25), 10)
    assert mailbox.take(10, MINE) is None
    assert mailbox.waiting
    assert mailbox.take(25, MINE) is None
    assert not mailbox.waiting
    assert mailbox.skipped == 1


async def test_announcements_and_other_mappings_do_not_connect() -> None:
    mailbox = Mailbox()
    mailbox.offer(batch(10, 20, pull=True), 10)
    mailbox.offer(Batch(10, 20, {"a": "other"}), 10)
    assert not mailbox.connects(10, MINE)
