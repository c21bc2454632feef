"""Sessions of the admin end: SESSION_IDLE_SECONDS after the last page, SESSION_SECONDS after the first at the latest.

The end is a moment that is kept with the session, so the live page's WebSocket knows no later one either.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.base_session import AbstractBaseSession
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from changesource.conf import settings

BEGAN = "began"
# What a page asks for by itself does not keep its session alive.
BY_ITSELF = "admin:overview"
# A session is written again only where its end moves by more than this share of the idle time, and a minute at most.
SHARE, MOST_SECONDS = 0.1, 60.0
ALLOWED = frozenset(VALID_KEY_CHARS)


class SessionStore(DatabaseSessions):
    """A session, kept under a hash of its key: whoever reads the database, or a copy of it, has nobody's cookie.

    A cookie with any other key has none: PostgreSQL refuses to look for one with U+0000.
    """

    def _validate_session_key(self, key: str | None) -> bool:
        return bool(key) and len(key or "") >= 8 and ALLOWED.issuperset(key or "")

    def _get_session_from_db(self) -> Session | None:
        found = self._rows(self.session_key).filter(expire_date__gt=timezone.now()).first()
        if found is None:
            self._session_key = None
        return found

    async def _aget_session_from_db(self) -> Session | None:
        found = await self._rows(self.session_key).filter(expire_date__gt=timezone.now()).afirst()
        if found is None:
            self._session_key = None
        return found

    def _rows(self, key: str | None) -> QuerySet[Session]:
        return Session.objects.filter(session_key=kept_as(key or ""))

    def exists(self, session_key: str) -> bool:
        """Whether there is a session of this key."""
        return self._rows(session_key).exists()

    async def aexists(self, session_key: str) -> bool:
        """Whether there is a session of this key."""
        return await self._rows(session_key).aexists()

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        """The row for what the session holds."""
        row = super().create_model_instance(data)
        row.session_key = kept_as(row.session_key)
        return row

    async def acreate_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        """The row for what the session holds."""
        row = await super().acreate_model_instance(data)
        row.session_key = kept_as(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        """Delete the session of this key, or this one."""
        self._rows(session_key or self.session_key).delete()

    async def adelete(self, session_key: str | None = None) -> None:
        """Delete the session of this key, or this one."""
        await self._rows(session_key or self.session_key).adelete()


def kept_as(key: str) -> str:
    """What a session's key is kept as: of the 160 bits that have room."""
    return hashlib.sha256(key.encode()).hexdigest()[:40]


class SessionLimits(MiddlewareMixin):
    """Moves the end of the session with each page that somebody opens."""

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Do so before the page is made."""
        match = request.resolver_match
        if SESSION_KEY in request.session and match is not None and match.view_name != BY_ITSELF:
            prolong(request.session, timezone.now())


def prolong(session: SessionBase, now: datetime) -> None:
    """Have ``session`` end when it is idle from ``now`` on for too long, or has lasted for too long altogether."""
    chosen = settings()
    if BEGAN not in session:
        session[BEGAN] = now.timestamp()
    idle = timedelta(seconds=chosen.session_idle_seconds)
    last = datetime.fromtimestamp(session[BEGAN], UTC) + timedelta(seconds=chosen.session_seconds)
    end = min(now + idle, last)
    slack = timedelta(seconds=min(MOST_SECONDS, SHARE * chosen.session_idle_seconds))
    if abs(end - session.get_expiry_date()) > slack or "_session_expiry" not in session:
        session.set_expiry(end)


def clear_expired(request: HttpRequest, **_: Any) -> None:
    """Delete sessions that ended: at each login, so that there are never more than logins since the last."""
    request.session.clear_expired()
