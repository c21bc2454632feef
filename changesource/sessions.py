"""Django's sessions in the database, asked only for keys that it makes itself."""

from __future__ import annotations

from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions

ALLOWED = frozenset(VALID_KEY_CHARS)


class SessionStore(DatabaseSessions):
    """A session. A cookie with any other key has none: PostgreSQL refuses to look for one with U+0000."""

    def _validate_session_key(self, key: str | None) -> bool:
        return bool(key) and len(key or "") >= 8 and ALLOWED.issuperset(key or "")
