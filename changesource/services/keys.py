"""What this process knows of the API keys of the database: asked once for all its connections."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from time import monotonic
from typing import NoReturn

from channels.db import database_sync_to_async
from django.db import Error as DatabaseFailure
from django.utils import timezone

from changesource.exceptions import AccessUnchecked, KeyExpired, KeyOfAnotherApp, KeyRevoked
from changesource.services.bookkeeping import read, write
from changesource.store import api_keys
from changesource.store.api_keys import KeptKey, KeptKeys

# A connection looks so often, and what it sees is as old at the most: a key that is no good ends it within two seconds.
LOOK_SECONDS = 0.5
MAX_AGE = 0.5
# A handshake has 20 seconds.
ASK_SECONDS = 10.0


def check_key(key: KeptKey) -> None:
    """Raise ``KeyRevoked`` or ``KeyExpired`` where the key is not good now."""
    if key.revoked:
        raise KeyRevoked(f"The API key {key.name!r} is revoked.")
    if key.expires is not None and key.expires <= timezone.now():
        raise KeyExpired(f"The API key {key.name!r} expired at {key.expires:%Y-%m-%d %H:%M:%S} UTC.")


def check_app(key: KeptKey | None, app_id: str) -> None:
    """Raise ``KeyOfAnotherApp`` where the key is bound, and not to this app id; with none (empty) it must be unbound.

    No key is one of the environment, or none is needed.
    """
    if key is not None and key.app_ids and app_id not in key.app_ids:
        what = "that of this connection" if app_id else "pages"
        raise KeyOfAnotherApp(f"The API key {key.name!r} is bound to app ids, and not good for {what}.")


class Keys:
    """The keys of the database, as of a moment ago. Belongs to one event loop."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._known = KeptKeys()
        self._asked = -MAX_AGE
        self._used: dict[str, float] = {}
        self._writing: set[asyncio.Task[bool]] = set()
        # The question that is being asked, and the one after it, for those who came since it began.
        self._asking: asyncio.Task[KeptKeys] | None = None
        self._next: asyncio.Task[KeptKeys] | None = None

    async def ask(self) -> KeptKeys:
        """Return the keys as they are now. Raises ``AccessUnchecked`` where the database refuses or hangs.

        All who come while a question is asked share the next one: many handshakes do not queue up at the database.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._ask(self._asking), name="keys")
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await asyncio.shield(self._next)
        except TimeoutError as error:
            raise AccessUnchecked("The database, which keeps the API keys, does not answer.") from error
        except DatabaseFailure as error:
            raise AccessUnchecked(f"The database, which keeps the API keys, did not answer: {error}") from error

    async def _ask(self, before: asyncio.Task[KeptKeys] | None) -> KeptKeys:
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._next = self._next, None
        async with asyncio.timeout(ASK_SECONDS):
            self._known = await database_sync_to_async(api_keys.kept)()
        self._asked = monotonic()
        return self._known

    async def guard(self, key: KeptKey, app_id: str) -> NoReturn:
        """Wait until the key, which was good for a connection, is so no more; then raise ``AccessRefused`` of a kind.

        While the database is away what was known last holds, so that only the key's time ends the connection.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            found = (await self._lately()).keys.get(key.hash)
            if found is None:
                raise KeyRevoked(f"The API key {key.name!r} was deleted.")
            check_key(found)
            check_app(found, app_id)
            self.used(found)

    async def _lately(self) -> KeptKeys:
        """Return the keys as of half a second ago, or as they were when the database last answered."""
        if monotonic() - self._asked >= MAX_AGE:
            # At once, so that of all connections one asks.
            self._asked = monotonic()
            self._known = await read(api_keys.kept, self._known)
            self._asked = monotonic()
        return self._known

    def used(self, key: KeptKey) -> None:
        """Have it written that the key is in use, once a minute; nobody waits for that."""
        now = monotonic()
        if now - self._used.get(key.hash, -api_keys.USE_SECONDS) < api_keys.USE_SECONDS:
            return
        self._used[key.hash] = now
        task = asyncio.create_task(write(api_keys.note_use, [key.hash]), name="key-used")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


@lru_cache(maxsize=1)
def _keys(loop: asyncio.AbstractEventLoop) -> Keys:
    return Keys()


def keys() -> Keys:
    """Return what the process of the running event loop knows."""
    return _keys(asyncio.get_running_loop())
