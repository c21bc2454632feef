"""A span for each page that is asked for, where traces are on; see docs/tracing.md."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase

from changesource import tracing

FAILED = 500
# Asked for every few seconds.
LEFT_OUT = frozenset({"/healthz", "/readyz", "/metrics"})


class PageTraces:
    """Makes a span of each request. Its path and query, in which a key may be, are in none: its route is.

    What a client says of a trace of its own is not heeded, since it may be anybody.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        """Raises ``MiddlewareNotUsed`` while traces are off, so that Django leaves it out."""
        if not tracing.enabled():
            raise MiddlewareNotUsed
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer."""
        if request.path in LEFT_OUT:
            return self._get_response(request)
        method = request.method if request.method in ("GET", "HEAD", "POST", "OPTIONS") else "_OTHER"
        with tracing.span(method, {"http.request.method": method}, "server") as noted:
            response = self._get_response(request)
            noted["http.response.status_code"] = response.status_code
            # Known once the request was matched; many pages have one.
            if request.resolver_match is not None:
                noted["http.route"] = request.resolver_match.route
                tracing.rename(f"{method} {request.resolver_match.route}")
            if response.status_code >= FAILED:
                noted["error.type"] = str(response.status_code)
        return response
