"""Puts batches on the channel layer, where every server process hears them.

The layer may lose what it likes: replicas find the gap and read it from MongoDB. So a failure here is counted and
logged, never raised.
"""

from __future__ import annotations

import logging
from typing import Protocol

from channels.exceptions import ChannelFull
from redis.exceptions import RedisError

from changesource.stream.batches import Batch, encode

logger = logging.getLogger(__name__)
GROUP = "zerosource.changes"
MESSAGE_TYPE = "changes.batch"
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull)


class Layer(Protocol):
    """What we need of a channel layer."""

    async def new_channel(self) -> str:
        """Return the name of a new channel of this process."""

    async def group_add(self, group: str, channel: str) -> None:
        """Join a group; a membership expires silently after a day or so."""

    async def group_discard(self, group: str, channel: str) -> None:
        """Leave a group."""

    async def group_send(self, group: str, message: dict[str, object]) -> None:
        """Send to all members; drops silently where a channel is full."""

    async def receive(self, channel: str) -> dict[str, object]:
        """Wait for the next message."""


class Publisher:
    """Publishes batches; ``failed`` counts those that the layer refused."""

    def __init__(self, layer: Layer) -> None:
        """``layer`` is the channel layer."""
        self._layer = layer
        self.published = 0
        self.failed = 0

    async def publish(self, batch: Batch) -> None:
        """Send ``batch`` to all server processes, as one opaque payload."""
        try:
            await self._layer.group_send(GROUP, {"type": MESSAGE_TYPE, "payload": encode(batch)})
        except LAYER_ERRORS as error:
            self.failed += 1
            logger.warning("channel layer refused a batch", extra={"error": repr(error), "failed": self.failed})
        else:
            self.published += 1
