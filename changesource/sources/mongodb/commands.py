"""Spans of the commands that MongoDB is sent, for the traces; see docs/tracing.md."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from changesource import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# One for each batch of a snapshot, and many that wait for changes: those that are asked of them tell more.
LEFT_OUT = frozenset({"getMore", "killCursors"})
# Of one that nobody waits for any more, the driver tells no end.
MOST_UNDER_WAY = 1000


class CommandSpans(CommandListener):
    """Makes a span of each command that is sent within another span. What it asks and is answered is in none."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._spans: dict[int, Span] = {}

    def started(self, event: CommandStartedEvent) -> None:
        """A command is sent."""
        if event.command_name in LEFT_OUT or not tracing.enabled() or not get_current_span().is_recording():
            return
        operation, collection = event.command_name, event.command.get(event.command_name)
        attributes: dict[str, tracing.Attribute] = {
            "db.system.name": "mongodb",
            "db.namespace": event.database_name,
            "db.operation.name": operation,
            "server.address": event.connection_id[0],
        }
        if event.connection_id[1] is not None:
            attributes["server.port"] = event.connection_id[1]
        name = operation
        if isinstance(collection, str):
            attributes["db.collection.name"] = collection
            name = f"{operation} {collection}"
        if len(self._spans) >= MOST_UNDER_WAY:
            oldest = self._spans.pop(next(iter(self._spans)))
            oldest.set_attribute("zerosource.cancelled", True)
            oldest.end()
        self._spans[event.request_id] = tracing.tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was answered."""
        if span := self._spans.pop(event.request_id, None):
            span.end(time_ns())

    def failed(self, event: CommandFailedEvent) -> None:
        """It failed: by a code of MongoDB's, or without an answer."""
        if span := self._spans.pop(event.request_id, None):
            code = event.failure.get("code")
            if code is not None:
                span.set_attribute("db.response.status_code", str(code))
            span.set_attribute("error.type", str(event.failure.get("codeName") or event.failure.get("errtype") or code))
            span.set_status(StatusCode.ERROR)
            span.end()
