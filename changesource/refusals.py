"""What pages answer where a request cannot be served for a reason that we can name."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from changesource.exceptions import ZerosourceError

logger = logging.getLogger(__name__)


class RefusalMiddleware(MiddlewareMixin):
    """Turns an error of ours that no view has dealt with into a page of one line, and one line in the log."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Say what is wrong: 503, since nothing is wrong with the request."""
        if not isinstance(error, ZerosourceError):
            return None
        logger.error("page refused", extra={"code": error.code, "why": str(error)})
        return HttpResponse(f"{error}\n", status=503, content_type="text/plain; charset=utf-8")
