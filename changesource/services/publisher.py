"""Puts batches on the channel layer, where every server process hears them.

The layer may lose what it likes: replicas find the gap and read it from MongoDB. So a failure here is counted and
logged, never raised.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol

from channels.exceptions import ChannelFull
from redis.exceptions import RedisError

from changesource import tracing
from changesource.metrics import PUBLISHED
from changesource.stream.batches import Batch, encode

logger = logging.getLogger(__name__)
MESSAGE_TYPE = "changes.batch"
# The last four: what a layer raises for a message that it cannot pack or unpack, or that is none of its own.
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull, ValueError, TypeError, LookupError, AttributeError)


def group_of(*identity: str) -> str:
    """Return the name of the group of one deployment, by all that tells which changes are meant.

    Two deployments may share one Redis, and the cluster times of two MongoDBs look alike.
    """
    return f"zerosource.{blake2b(json.dumps(identity).encode(), digest_size=12).hexdigest()}"


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

    def __init__(self, layer: Layer, group: str = "zerosource") -> None:
        """``layer`` is the channel layer; ``group`` is the deployment's, see ``group_of``."""
        self._layer = layer
        self._group = group
        self.published = 0
        self.failed = 0

    async def publish(self, batch: Batch) -> None:
        """Send ``batch`` to all server processes, as one opaque payload."""
        if not tracing.enabled():
            await self._publish(batch)
            return
        attributes: tracing.Attributes = {
            "messaging.system": "channels",
            "messaging.destination.name": self._group,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
        }
        with tracing.span("publish", attributes, "producer") as noted:
            failed = self.failed
            await self._publish(replace(batch, trace=tracing.traceparent()))
            if self.failed != failed:
                noted["error.type"] = "refused"

    async def _publish(self, batch: Batch) -> None:
        try:
            await self._layer.group_send(self._group, {"type": MESSAGE_TYPE, "payload": encode(batch)})
        except LAYER_ERRORS as error:
            self.failed += 1
            PUBLISHED.labels("refused").inc()
            logger.warning("channel layer refused a batch", extra={"error": repr(error), "failed": self.failed})
        else:
            self.published += 1
            PUBLISHED.labels("published").inc()
