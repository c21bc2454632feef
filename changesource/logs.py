"""Log lines as an event name and fields: ``logger.info("snapshot done", extra={"table": "message", "rows": 3})``."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, quote_plus

from changesource.conf import settings
from changesource.exceptions import SettingError

# What every record has; all else on a record came from `extra`. Django adds the request to its own records, whose text
# has the query string: an API key may be in it.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}

# An API key in a URL, wherever it got into a line: in an exception's text, in the repr of a request, in a path where
# somebody forgot the question mark or encoded too much; and the part of a URL that holds a password.
_KEYS = (
    (re.compile(r"""((?:\bapiKey|[?&]k)(?:=|%3D))[^&\s"'\\<>]+""", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bzs_[\w-]{8,}"), "zs_***"),
    (re.compile(r"//[^/\s@\"']+@"), "//***@"),
)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the call gave as ``extra``, in the order in which it gave it."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


class _Formatter(logging.Formatter):
    """Knows the time's form: UTC, to the millisecond."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601."""
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback, or nothing."""
        return self.formatException(record.exc_info) if record.exc_info else ""


class TextFormatter(_Formatter):
    """``TIME LEVEL logger: event key=value ...``, with a traceback on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        pairs = "".join(f" {name}={_shown(value)}" for name, value in fields_of(record).items())
        trouble = self.trouble(record)
        return without_keys(f"{line}{pairs}\n{trouble}" if trouble else line + pairs)


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, event, then the fields, then the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((name, value) for name, value in fields_of(record).items() if name not in line)
        if trouble := self.trouble(record):
            line["traceback"] = trouble
        return without_keys(json.dumps(line, default=str))


def without_keys(line: str) -> str:
    """Return ``line`` without what is or may be an API key or a password: those of the settings, and by their form."""
    for key in _own_keys():
        line = line.replace(key, "***")
    for pattern, instead in _KEYS:
        line = pattern.sub(instead, line)
    return line


@lru_cache(maxsize=1)
def _own_keys() -> tuple[str, ...]:
    """The keys of the settings, also percent-encoded; the longest first, since one may be the beginning of another."""
    try:
        keys = settings().api_keys
    except SettingError:
        return ()  # the process is about to say so, and to end
    forms = {form for key in keys for form in (key, quote(key, safe=""), quote_plus(key))}
    return tuple(sorted(forms, key=len, reverse=True))


def _shown(value: object) -> str:
    """A field's value in a text line; what has blanks or quotes is written as JSON, so that lines stay one line."""
    text = str(value)
    return text if text and text.isprintable() and not any(c in ' "=' for c in text) else json.dumps(text)


class RefusedRequests(logging.Filter):
    """Leaves out the traceback of requests that Django itself refuses, for their Host say: anybody may send them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.name.startswith("django.security."):
            record.exc_info = record.exc_text = None
        return True
