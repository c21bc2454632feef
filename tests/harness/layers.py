"""A real channel layer that loses, repeats and swaps what goes through it, on purpose and counted."""

from __future__ import annotations

import random
from dataclasses import dataclass

from changesource.services.publisher import Layer


@dataclass
class Mischief:
    """How often each happened; what is ``held`` waits to be swapped with the next."""

    sent: int = 0
    dropped: int = 0
    repeated: int = 0
    swapped: int = 0


class FaultyLayer:
    """A ``Layer`` over ``inner`` that drops a third of the messages, repeats a third and swaps neighbours.

    The choices follow from ``seed`` alone.
    """

    def __init__(self, inner: Layer, seed: int) -> None:
        self.mischief = Mischief()
        self._inner = inner
        self._random = random.Random(seed)
        self._held: list[tuple[str, dict[str, object]]] = []

    async def new_channel(self) -> str:
        """See ``Layer``."""
        return await self._inner.new_channel()

    async def group_add(self, group: str, channel: str) -> None:
        """See ``Layer``."""
        await self._inner.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """See ``Layer``."""
        await self._inner.group_discard(group, channel)

    async def receive(self, channel: str) -> dict[str, object]:
        """See ``Layer``."""
        return await self._inner.receive(channel)

    async def group_send(self, group: str, message: dict[str, object]) -> None:
        """Send ``message`` once, twice, later or never."""
        self.mischief.sent += 1
        held, self._held = self._held, []
        match self._random.randrange(4):
            case 0:
                self.mischief.dropped += 1
            case 1:
                self.mischief.repeated += 1
                await self._inner.group_send(group, message)
                await self._inner.group_send(group, message)
            case 2 if not held:
                self.mischief.swapped += 1
                self._held = [(group, message)]
            case _:
                await self._inner.group_send(group, message)
        for late in held:
            await self._inner.group_send(*late)
