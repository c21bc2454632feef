"""Takes batches from the channel layer, once a process, and hands them to the replicas that it serves.

One receiver a process, not one a connection: a batch is decoded once, however many replicas it goes to, and a layer
that fails closes no connection.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from changesource.backoff import Backoff
from changesource.metrics import UNREADABLE
from changesource.services.publisher import LAYER_ERRORS, Layer
from changesource.stream.batches import Batch, decode

logger = logging.getLogger(__name__)
REJOIN_SECONDS = 60.0


class Box(Protocol):
    """What batches are put into: a replica's mailbox, or a page that shows them."""

    def offer(self, batch: Batch, size: int) -> None:
        """Take a batch of ``size`` bytes; never blocks."""


class Subscriber:
    """This process's membership in the group of all that hear batches."""

    def __init__(self, layer: Layer, group: str = "zerosource") -> None:
        """``layer`` is the channel layer; ``group`` is the deployment's, see ``publisher.group_of``."""
        self._layer = layer
        self._group = group
        self._mailboxes: set[Box] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: tuple[Batch, int] | None = None
        self._last_came = 0.0
        self.received = 0
        self.unreadable = 0

    def attach(self, mailbox: Box, keepalive: float = 0.0) -> None:
        """Begin to fill ``mailbox``; the first one starts the receiver.

        The last batch that came comes first, unless it is older than ``keepalive`` seconds, so that the watcher may be
        gone: a replica that has read up to it can follow the layer at once, where nothing is written.
        """
        self._mailboxes.add(mailbox)
        if self._last is not None and monotonic() - self._last_came < keepalive:
            mailbox.offer(*self._last)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="layer-subscriber")

    def detach(self, mailbox: Box) -> None:
        """Fill ``mailbox`` no more; the last one stops the receiver."""
        self._mailboxes.discard(mailbox)
        if not self._mailboxes and self._task is not None:
            self._task.cancel()
            self._task = self._last = None

    async def _run(self) -> None:
        backoff = Backoff("layer")
        while True:
            try:
                await self._receive(backoff)
            except LAYER_ERRORS as error:
                self._last = None
                logger.warning("channel layer lost, replicas read from MongoDB", extra={"error": repr(error)})
                await backoff.wait()

    async def _receive(self, backoff: Backoff) -> None:
        channel = await self._layer.new_channel()
        renewal = asyncio.create_task(self._renew(channel), name="layer-membership")
        renewal.add_done_callback(_heed)
        receiving: asyncio.Future[dict[str, object]] | None = None
        try:
            while True:
                receiving = asyncio.ensure_future(self._layer.receive(channel))
                receiving.add_done_callback(_heed)
                done, _ = await asyncio.wait({receiving, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if renewal in done:
                    renewal.result()
                self._deliver(receiving.result())
                backoff.reset()
        finally:
            # A membership left behind would fill a channel that nobody reads.
            renewal.cancel()
            if receiving is not None:
                receiving.cancel()
            with suppress(*LAYER_ERRORS):
                await self._layer.group_discard(self._group, channel)

    async def _renew(self, channel: str) -> None:
        """Join again and again: a membership expires silently, in every layer."""
        while True:
            await self._layer.group_add(self._group, channel)
            await asyncio.sleep(REJOIN_SECONDS)

    def _deliver(self, message: dict[str, object]) -> None:
        payload = message.get("payload")
        if not isinstance(payload, bytes):
            return
        try:
            batch = decode(payload)
        except ValueError:
            # A process of another release, maybe: what it said is read from MongoDB.
            self.unreadable += 1
            UNREADABLE.inc()
            logger.warning("unreadable batch", extra={"bytes": len(payload), "unreadable": self.unreadable})
            return
        self.received += 1
        self._last, self._last_came = (batch, len(payload)), monotonic()
        for mailbox in self._mailboxes:
            mailbox.offer(batch, len(payload))


def _heed(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended. One fails beside the other, or when cancelled, and nobody awaits it any more."""
    if not task.cancelled():
        task.exception()
