"""What an open page costs, and what it is told of changes that it is not shown."""

from __future__ import annotations

from time import monotonic
from typing import Any

import orjson
import pytest
from channels.layers import InMemoryChannelLayer

from changesource.services import live
from changesource.services.live import MAX_BATCHES, MAX_BYTES, LiveFeed
from changesource.services.publisher import Publisher
from changesource.services.subscriber import Subscriber
from changesource.stream.batches import Batch
from changesource.stream.excerpt import MAX_LINES, Wanted
from tests.unit.test_excerpt import MESSAGE, SEAT


def feed(silent_for: float = 0) -> LiveFeed:
    return LiveFeed(keepalive=10, silent_for=silent_for)


def made(number: int, changes: int = 1, frame: bytes = MESSAGE.truncate, table: str = "message") -> Batch:
    """The batch of this number: so many changes of one transaction."""
    return Batch(number, number + 1, {}, ((number + 1, table, changes),), (frame,) * changes)


async def message(page: LiveFeed) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await page.message())
    return found


def changes(told: dict[str, Any]) -> int:
    return sum("change" in line for line in told["lines"])


async def test_a_change_is_told_at_once_and_the_next_ones_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MESSAGE_SECONDS", 1.0)
    page, began = feed(), monotonic()
    page.offer(made(1), 100)
    assert changes(await message(page)) == 1
    assert monotonic() - began < 1
    page.offer(made(2), 100)
    page.offer(made(3), 100)
    assert changes(await message(page)) == 2
    assert monotonic() - began >= 1


async def test_a_page_that_does_not_ask_holds_bounded_memory_and_hears_how_much_it_missed() -> None:
    page = feed()
    for number in range(1, 1001):
        page.offer(made(number, 20), 100)
    assert len(page._batches) == MAX_BATCHES
    told = await message(page)
    assert told["lines"][0] == {"note": "missed", "count": (1000 - MAX_BATCHES) * 20}
    assert changes(told) == MAX_LINES
    assert told["missed"] == 20_000 - MAX_LINES
    assert told["lines"][-1]["count"] == MAX_BATCHES * 20 - MAX_LINES
    for number in range(1001, 1101):
        page.offer(made(number), MAX_BYTES // 4)
    assert (len(page._batches), page._size) == (4, MAX_BYTES)
    told = await message(page)
    assert (changes(told), told["missed"]) == (4, 20_000 - MAX_LINES + 96)


async def test_only_what_the_filter_wants_is_missed(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "MAX_BATCHES", 1)
    page = feed()
    page.wanted = Wanted("message")
    page.offer(made(1, 3), 100)
    page.offer(made(2, 5, SEAT.truncate, "seat"), 100)
    page.offer(made(3), 100)
    told = await message(page)
    assert (told["missed"], told["filter"]) == (3, {"table": "message", "key": "", "paused": False})


async def test_while_paused_nothing_is_shown_and_afterwards_only_what_is_new() -> None:
    page = feed()
    page.paused = True
    page.offer(made(1, 3), 100)
    told = await message(page)
    assert (told["lines"], told["missed"]) == ([], 3)
    page.paused = False
    page.offer(made(2), 100)
    told = await message(page)
    assert (changes(told), told["missed"]) == (1, 3)


async def test_an_idle_page_is_told_so_once_a_second(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.05)
    page = feed()
    page.offer(made(1, 10), 100)
    assert changes(await message(page)) == 10
    told = await message(page)
    assert told["lines"] == []
    assert 0 < told["rate"] <= 10 / 0.05
    told = await message(page)
    assert told["rate"] == 0


async def test_whether_a_watcher_is_heard_is_said(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.01)
    assert (await message(feed(silent_for=20)))["heard"]
    page = feed(silent_for=22)
    assert not (await message(page))["heard"]
    # Also by what holds no change.
    page.offer(Batch(1, 1, {}, pull=True), 50)
    assert (await message(page))["heard"]


async def test_a_process_listens_only_while_a_page_is_open() -> None:
    layer = InMemoryChannelLayer()
    subscriber, publisher = Subscriber(layer), Publisher(layer)
    page = feed()
    with page.attached(subscriber):
        while not layer.groups:
            await live.asyncio.sleep(0)
        await publisher.publish(made(1))
        assert changes(await message(page)) == 1
    while layer.groups:
        await live.asyncio.sleep(0)
    await publisher.publish(made(2))
    assert (subscriber.received, len(page._batches)) == (1, 0)
