"""What one cursor reads of a collection, mapped and encoded once, for all snapshots of a process that want it.

Who reads a collection puts the blocks down here; the latest are kept, a few MiB. Whoever stands where one of them
begins can follow from there instead of opening a cursor. Such places are the beginning of the collection and what lies
behind each block, so that those who followed to the end of a cursor can follow the next one as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import NamedTuple, TypeAlias

from changesource.mapping.blocks import EncodedRows
from changesource.mapping.compiled import RowFault
from changesource.sources.base import CollectionCopy

# What is kept of one cursor: less while a snapshot runs alone, so that others can follow from the beginning of small
# collections only. Of cursors that ended all this is kept in sum.
WINDOW_BYTES = 4 * 1024 * 1024
ALONE_BYTES = 256 * 1024
ENDED_BYTES = 8 * 1024 * 1024
# How long who reads waits for one that follows and takes nothing.
PATIENCE_SECONDS = 2.0

Place: TypeAlias = CollectionCopy | None
"""A copy that is never read itself, only forked; None at the beginning of a collection. Compared by identity."""


class Block(NamedTuple):
    """What was read at once: of so many ``documents``, the rows of each table, and what did not fit.

    ``after`` is the place behind it.
    """

    documents: int
    rows: Sequence[Sequence[EncodedRows]]
    faults: Sequence[RowFault]
    after: CollectionCopy

    @property
    def size(self) -> int:
        """The bytes of the rows."""
        return sum(len(some.body) for rows in self.rows for some in rows)


class _News:
    """Wakes all that wait for something to change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class SharedCopy:
    """What one cursor reads, which sees nothing older than ``not_before``; ``until`` is when it is to end.

    ``end`` is the place to which it has come. ``whole`` says that nothing is behind that.
    """

    def __init__(self, begin: Place, not_before: int, until: float) -> None:
        """The cursor begins at ``begin``."""
        self.not_before = not_before
        self.until = until
        self.end = begin
        self.open, self.whole = True, False
        self.size = 0
        # The blocks that are kept, each with the place where it begins; the number of the first of them.
        self._blocks: deque[tuple[Place, Block]] = deque()
        self._first = 0
        # The number of the block that each who follows has not taken yet.
        self._followers: dict[object, int] = {}
        self._news = _News()

    @property
    def followed(self) -> bool:
        """Whether anybody follows."""
        return bool(self._followers)

    def leads_on(self, place: Place) -> bool:
        """Whether it can be followed from there."""
        return self._number(place) is not None

    def _number(self, place: Place) -> int | None:
        for number, (begin, _) in enumerate(self._blocks, self._first):
            if begin is place:
                return number
        at_the_end = place is self.end and (self.open or self.whole)
        return self._first + len(self._blocks) if at_the_end else None

    async def put(self, block: Block, window: int) -> None:
        """Give a block to those who follow, and keep ``window`` bytes.

        Waits a while for those who have not begun what has to go, then goes on without them.
        """
        self._blocks.append((self.end, block))
        self.end = block.after
        self.size += block.size
        self._news.tell()
        patience = monotonic() + PATIENCE_SECONDS
        while self.size > window and self._blocks:
            late = [follower for follower, number in self._followers.items() if number <= self._first]
            if late and monotonic() < patience:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience - monotonic()):
                        await self._news.wait()
                continue
            for follower in late:
                del self._followers[follower]
            self.size -= self._blocks.popleft()[1].size
            self._first += 1

    def close(self) -> None:
        """The cursor reads nothing more; who follows takes what is kept."""
        self.open = False
        self._news.tell()

    async def blocks(self, place: Place) -> AsyncGenerator[Block, None]:
        """Give what is behind ``place``, to the end, or until whoever takes it is too slow."""
        number = self._number(place)
        if number is None:
            return
        me = object()
        self._followers[me] = number
        try:
            while me in self._followers:
                number = self._followers[me]
                if number < self._first + len(self._blocks):
                    block = self._blocks[number - self._first][1]
                    self._followers[me] = number + 1
                    self._news.tell()
                    yield block
                elif self.open:
                    await self._news.wait()
                else:
                    return
        finally:
            self._followers.pop(me, None)
            self._news.tell()


class SharedCopies:
    """The shared copies of one process, by what decides their rows. Kept while a snapshot runs that may want them."""

    def __init__(self) -> None:
        """There are none."""
        self._copies: dict[Hashable, list[SharedCopy]] = {}
        self._users = 0
        self._news = _News()

    @property
    def window(self) -> int:
        """How many bytes of a copy are to be kept now."""
        return WINDOW_BYTES if self._users > 1 else ALONE_BYTES

    @contextmanager
    def used(self) -> Iterator[None]:
        """Say that a snapshot runs."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._copies.clear()

    def find(self, key: Hashable, place: Place, not_before: int) -> SharedCopy | None:
        """Return the copy that can be followed from ``place``, and has read nothing older than ``not_before``."""
        now = monotonic()
        for copy in self._copies.get(key, ()):
            if copy.not_before >= not_before and now < copy.until and copy.leads_on(place):
                return copy
        return None

    def begin(self, key: Hashable, copy: SharedCopy) -> None:
        """Let others follow a copy; those that ended make room for it."""
        now = monotonic()
        size = sum(one.size for copies in self._copies.values() for one in copies if not one.open)
        for known, copies in list(self._copies.items()):
            for one in list(copies):
                if not one.open and (size > ENDED_BYTES or now >= one.until):
                    size -= one.size
                    copies.remove(one)
            if not copies:
                del self._copies[known]
        self._copies.setdefault(key, []).append(copy)
        self.tell()

    def tell(self) -> None:
        """Wake those who wait for ``news``."""
        self._news.tell()

    async def news(self) -> None:
        """Wait until another copy begins, or somebody tells something."""
        await self._news.wait()
