"""What a database must offer to be a change source: the place where another one than MongoDB would plug in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Protocol, overload

from changesource.mapping.needs import CollectionNeeds, Needs
from changesource.stream.events import Event

Document = Mapping[str, object]

# How long a server waits where its empty answer is wanted only as the proof that what it gave has ended.
PROOF_WAIT_MS = 1


class ChangeFeed(Protocol):
    """Reads the events of some collections, in order, from a position on."""

    async def poll(self, wait_ms: int) -> Sequence[Event] | None:
        """Return events after the position.

        None says that the server, asked after the last event that was given, waited ``wait_ms`` and had nothing:
        proof that what was given has ended. An empty sequence proves nothing.
        """

    async def close(self) -> None:
        """Free what the server holds for it."""


class Batch(Sequence[Document]):
    """Some documents of a collection, read from their bytes once they are asked for."""

    def __init__(self, raw: bytes, read: Callable[[bytes], Sequence[Document]]) -> None:
        """``raw`` is all that decides what ``read`` makes of it: batches of the same bytes are alike."""
        self.raw = raw
        self._read = read

    @cached_property
    def documents(self) -> Sequence[Document]:
        """The documents, in their order."""
        return self._read(self.raw)

    @property
    def last(self) -> Document:
        """The last document."""
        return self.documents[-1]

    def __len__(self) -> int:
        """How many documents there are, at least one."""
        return len(self.documents)

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Document]: ...

    def __getitem__(self, place: int | slice) -> Document | Sequence[Document]:
        """The document at a place, or some of them."""
        return self.documents[place]


class CollectionCopy(Protocol):
    """Reads the documents of one collection, in one turn or several."""

    @property
    def resumable(self) -> bool:
        """False after a batch from behind which another turn could not go on, but would give it again."""

    def batches(self, not_before: int) -> AsyncGenerator[Batch, None]:
        """Give what is left, each batch read at the cluster time ``not_before`` or later.

        It may be closed after any batch; another call goes on after the last document that was given. So does a lost
        cursor: each document that is present throughout comes once.
        """


class Feeds(Protocol):
    """What opens feeds."""

    async def feed(self, needs: Needs, after: int, current_until: int = 0) -> ChangeFeed:
        """See ``ChangeSource.feed``."""


class ChangeSource(Protocol):
    """One database.

    Positions are cluster times: seconds << 32 | increment. Every method raises ``SourceUnavailable`` (or a
    subclass) for a passing fault, and ``SourceRefused`` for one that will not pass.
    """

    async def barrier(self, name: str) -> int:
        """Write a barrier and return the cluster time of its event, which is later than all that was read before."""

    async def mark(self, name: str) -> str:
        """Write a barrier without waiting for its event; return the mark by which the event is known."""

    async def feed(self, needs: Needs, after: int, current_until: int = 0) -> ChangeFeed:
        """Open a feed of what comes after ``after``, the cluster time of an event of these or of a barrier.

        Its events hold the fields that ``needs`` names of each collection, or more. Those up to ``current_until`` bear
        their documents as they are now, a ``delete`` among them too if the document is there again (as ``replace``).

        The feed raises ``HistoryLost`` where the event at ``after`` does not come again.
        """

    def copy(self, collection: str, needs: CollectionNeeds) -> CollectionCopy:
        """Return a copy, not begun, of the collection's documents that ``needs`` names, or more."""

    async def prepare(self, collections: Collection[str], history: Collection[str] = ()) -> None:
        """Check that these collections can be watched, and switch on in them what watching needs.

        Those of ``history`` need to tell what documents were before a change. Raises ``SourceRefused`` where they
        cannot be.
        """

    async def find(self, collection: str, document_ids: Sequence[object], needs: CollectionNeeds) -> Sequence[Document]:
        """Return those of the documents with these ids that are there, as a copy gives them."""

    async def estimate(self, collection: str) -> int:
        """Return about how many documents the collection has."""

    async def close(self) -> None:
        """Close all connections."""
