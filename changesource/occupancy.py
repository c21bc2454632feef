"""How many connections of each kind one process serves, and how many each key has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from changesource.conf import Settings
from changesource.exceptions import ConnectionsExhausted, KeyExhausted, LivePagesExhausted
from changesource.metrics import CONNECTIONS, Place

# Of all connections so many are kept for the admin and the health pages, whoever else comes.
KEPT_SHARE = 0.1
Release = Callable[[], None]


class Occupancy:
    """The WebSockets that were admitted. Belongs to one event loop."""

    def __init__(self) -> None:
        """Start with none."""
        self._kinds: Counter[Place] = Counter()
        self._holders: Counter[str] = Counter()

    def replica(self, holder: str, chosen: Settings) -> Release:
        """Take a place for a replica, and return what gives it back.

        ``holder`` stands for a key, or for an app id where keys are not told apart. Raises ``LimitReached``.
        """
        self._room(chosen)
        if self._holders[holder] >= chosen.max_connections_per_key:
            raise KeyExhausted(
                f"{chosen.max_connections_per_key} replicas are connected with one key (of the environment: with one"
                " app id), as many as MAX_CONNECTIONS_PER_KEY allows."
            )
        return self._take("replica", holder)

    def live_page(self, chosen: Settings) -> Release:
        """Take a place for a live page, and return what gives it back. Raises ``LimitReached``."""
        self._room(chosen)
        if self._kinds["live_page"] >= chosen.max_live_pages:
            raise LivePagesExhausted(f"{chosen.max_live_pages} live pages are open, as many as MAX_LIVE_PAGES allows.")
        return self._take("live_page", "")

    def most_pages(self, chosen: Settings) -> int:
        """How many requests for pages may wait for their turn: half of the connections that are left for them."""
        return max(1, (chosen.max_connections - self._kinds.total()) // 2 - chosen.max_requests)

    def _room(self, chosen: Settings) -> None:
        most = chosen.max_connections - max(1, int(chosen.max_connections * KEPT_SHARE))
        if self._kinds.total() >= most:
            raise ConnectionsExhausted(
                f"{most} WebSockets are open, as many as MAX_CONNECTIONS ({chosen.max_connections}) allows: a tenth is"
                " kept for the admin and the health pages."
            )

    def _take(self, kind: Place, holder: str) -> Release:
        self._kinds[kind] += 1
        self._holders[holder] += 1
        CONNECTIONS.labels(kind).inc()
        given = False

        def release() -> None:
            nonlocal given
            if given:
                return
            given = True
            self._kinds[kind] -= 1
            self._holders[holder] -= 1
            if not self._holders[holder]:
                del self._holders[holder]
            CONNECTIONS.labels(kind).dec()

        return release


occupancy = Occupancy()
