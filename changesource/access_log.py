"""Keeps API keys out of Daphne's access log, which plain ``daphne`` writes."""

from __future__ import annotations

import re
from typing import Any

from daphne.access import AccessLogGenerator

from changesource.logs import without_keys

_write_entry = AccessLogGenerator.write_entry
# Where a query begins, or was meant to.
_QUERY = re.compile(r"[?&;]|%3F|%26|%3B", re.IGNORECASE)


def _without_query(self: object, *args: Any, request: str, **fields: Any) -> None:
    _write_entry(self, *args, request=without_keys(_QUERY.split(request, maxsplit=1)[0]), **fields)


def leave_out_queries() -> None:
    """Have the access log show paths alone, without what may be a key in them.

    It shows the whole URL of an HTTP request, and so the key of a zero-cache's URL that somebody opened as a page or
    that a proxy forwarded without the upgrade. It writes past the loggers and has no setting for it.
    """
    AccessLogGenerator.write_entry = _without_query
