"""The receiver of a process: what happens when the channel layer fails under it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from redis.exceptions import RedisError

from changesource.redis_layer import QuietRedisLayer
from changesource.services.mailbox import Mailbox
from changesource.services.publisher import Publisher
from changesource.services.subscriber import Subscriber
from changesource.stream.batches import Batch
from devtools.processes import free_port
from tests.harness.waiting import until


class LostLayer:
    """A ``Layer`` that is lost to the receiver while its membership is being renewed, which then fails as well."""

    def __init__(self) -> None:
        self.failures = 0

    async def new_channel(self) -> str:
        """See ``Layer``."""
        return "channel"

    async def group_add(self, group: str, channel: str) -> None:
        """Fail once it is cancelled, as the Redis client does while it connects."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.failures += 1
            raise ConnectionError("lost while connecting") from None

    async def group_discard(self, group: str, channel: str) -> None:
        """See ``Layer``."""
        raise ConnectionError("lost")

    async def group_send(self, group: str, message: dict[str, object]) -> None:
        """See ``Layer``."""
        raise ConnectionError("lost")

    async def receive(self, channel: str) -> dict[str, object]:
        """See ``Layer``."""
        await asyncio.sleep(0.001)
        raise ConnectionError("lost")


async def test_a_layer_that_fails_twice_at_once_is_lost_once(caplog: pytest.LogCaptureFixture) -> None:
    """No failure is left to asyncio, which would tell of it with a traceback."""
    layer = LostLayer()
    subscriber, mailbox = Subscriber(layer), Mailbox()
    subscriber.attach(mailbox)
    await until(lambda: layer.failures >= 2)
    subscriber.detach(mailbox)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    gc.collect()
    assert "channel layer lost" in caplog.text
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_message_of_somebody_else_ends_no_receiver() -> None:
    """Whoever may write to Redis: the layer itself fails at a message that it did not make."""
    layer = InMemoryChannelLayer()
    subscriber, mailbox = Subscriber(layer), Mailbox()
    receive, failures = layer.receive, [KeyError("__asgi_channel__"), AttributeError("get"), IndexError()]

    async def fails_at_first(channel: str) -> Any:
        if failures:
            raise failures.pop()
        return await receive(channel)

    layer.receive = fails_at_first
    subscriber.attach(mailbox)
    async with asyncio.timeout(20):
        while not mailbox.waiting:
            await Publisher(layer).publish(Batch(1, 2, {}))
            await asyncio.sleep(0.05)
    subscriber.detach(mailbox)
    assert not failures


async def test_who_comes_later_hears_what_came_last() -> None:
    """So that it can tell, where nothing is written, that the layer leads on from where it stands."""
    layer = InMemoryChannelLayer()
    subscriber, publisher = Subscriber(layer), Publisher(layer)
    first, second, third = Mailbox(), Mailbox(), Mailbox()
    subscriber.attach(first)
    await until(lambda: bool(layer.groups))
    await publisher.publish(Batch(1, 5, {"t": "1"}))
    await publisher.publish(Batch(5, 7, {"t": "1"}))
    await until(lambda: subscriber.received == 2)
    subscriber.attach(second, 60)
    assert not second.connects(6, {"t": "2"})
    subscriber.attach(third, 60)
    assert third.connects(7, {"t": "1"})
    long_after = Mailbox()
    subscriber.attach(long_after, 0)
    assert not long_after.waiting, "the watcher may be gone"
    subscriber.detach(long_after)
    for mailbox in (first, second, third):
        subscriber.detach(mailbox)
    late = Mailbox()
    subscriber.attach(late, 60)
    assert not late.waiting, "the receiver was gone meanwhile"
    subscriber.detach(late)


async def test_a_received_message_that_redis_cannot_forget_is_nobodys_failure() -> None:
    """Channels' own layer does that in a task of its own."""
    hosts = [("127.0.0.1", free_port())]
    with pytest.raises(RedisError):
        await RedisChannelLayer(hosts=hosts)._clean_receive_backup(0, "channel")
    await QuietRedisLayer(hosts=hosts)._clean_receive_backup(0, "channel")
