"""Channels' own layer over Redis, quiet where Redis goes away."""

from __future__ import annotations

from contextlib import suppress

from channels_redis.core import RedisChannelLayer

from changesource.services.publisher import LAYER_ERRORS


class QuietRedisLayer(RedisChannelLayer):  # type: ignore[misc]  # the package has no types
    """A ``RedisChannelLayer`` whose tasks, which nobody awaits, do not fail with a traceback in the log."""

    async def _clean_receive_backup(self, index: int, channel: str) -> None:
        """Forget a message that was received; where that fails it comes once more, which does no harm."""
        with suppress(*LAYER_ERRORS):
            await super()._clean_receive_backup(index, channel)
