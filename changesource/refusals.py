"""What is refused at the door, or cannot be served: counted, and logged, but no more of it than a disk can hold."""

from __future__ import annotations

import logging
from time import monotonic

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from changesource.exceptions import RequestRefused, ZerosourceError
from changesource.metrics import REFUSALS

logger = logging.getLogger(__name__)
# For each code: so many lines at once, and then one for each so many seconds.
LINES_AT_ONCE = 100
SECONDS_A_LINE = 2.0
SHOWN = 500


class Ration:
    """How many log lines are left of one code; those that were not written are counted."""

    def __init__(self) -> None:
        """Start with all."""
        self._left = float(LINES_AT_ONCE)
        self._at = monotonic()
        self._unlogged = 0

    def take(self) -> int | None:
        """Take a line: how many were not written since the last one, or None where this one is not either."""
        now = monotonic()
        self._left = min(float(LINES_AT_ONCE), self._left + (now - self._at) / SECONDS_A_LINE)
        self._at = now
        if self._left < 1:
            self._unlogged += 1
            return None
        self._left -= 1
        unlogged, self._unlogged = self._unlogged, 0
        return unlogged


_rations: dict[str, Ration] = {}


class StrangersRecords(logging.Filter):
    """Rations what Django itself logs of requests that it refuses (4xx), and leaves out its tracebacks.

    What is wrong with zerosource (5xx) passes as it is.
    """

    def __init__(self) -> None:
        """Start with all lines of each logger. Django may set logging up twice, so none is shared."""
        super().__init__()
        self._rations: dict[str, Ration] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if not 400 <= getattr(record, "status_code", 500) < 500:
            return True
        record.exc_info = None
        unlogged = self._rations.setdefault(record.name, Ration()).take()
        if unlogged:
            record.unlogged = unlogged
        return unlogged is not None


def refused(event: str, error: ZerosourceError, **fields: object) -> None:
    """Count a refusal by its code, and log it. ``fields`` hold nothing secret; what is not set is left out.

    The words are cut, since those of a stranger may be in them.
    """
    REFUSALS.labels(error.code).inc()
    unlogged = _rations.setdefault(error.code, Ration()).take()
    if unlogged is None:
        return
    extra = {name: text for name, text in fields.items() if text} | {"code": error.code, "why": str(error)[:SHOWN]}
    if unlogged:
        extra["unlogged"] = unlogged
    logger.warning(event, extra=extra)


class RefusalMiddleware(MiddlewareMixin):
    """Turns an error of ours that no view has dealt with into a page of one line, and one line in the log."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Say what is wrong: 503, since nothing is wrong with the request."""
        if not isinstance(error, ZerosourceError):
            return None
        logger.error("page refused", extra={"code": error.code, "why": str(error)})
        return HttpResponse(f"{error}\n", status=503, content_type="text/plain; charset=utf-8")


def show_codes() -> None:
    """Have the metrics show each code from the beginning, so that the first refusal is seen as a rise."""
    kinds: list[type[ZerosourceError]] = [RequestRefused]
    for kind in kinds:
        kinds += kind.__subclasses__()
        REFUSALS.labels(kind.code)


show_codes()
