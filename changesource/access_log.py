"""Keeps API keys out of Daphne's access log, which plain ``daphne`` writes."""

from __future__ import annotations

from typing import Any

from daphne.access import AccessLogGenerator

_write_entry = AccessLogGenerator.write_entry


def _without_query(self: object, *args: Any, request: str, **fields: Any) -> None:
    _write_entry(self, *args, request=request.partition("?")[0], **fields)


def leave_out_queries() -> None:
    """Have the access log show paths alone.

    It shows the whole URL of an HTTP request, and so the key of a zero-cache's URL that somebody opened as a page or
    that a proxy forwarded without the upgrade. It writes past the loggers and has no setting for it.
    """
    AccessLogGenerator.write_entry = _without_query
