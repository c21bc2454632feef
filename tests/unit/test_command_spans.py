"""Spans of MongoDB's commands: of those that nobody waits for any more, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pymongo.monitoring import CommandStartedEvent

from changesource import tracing
from changesource.sources.mongodb.commands import MOST_UNDER_WAY, CommandSpans


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is exported, traces being on."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    started = tracing._Started(provider.get_tracer("test"), threading.Event(), threading.Event())
    monkeypatch.setattr(tracing, "_started", started)
    yield exporter
    provider.shutdown()


def test_commands_that_never_end_are_few(exported: InMemorySpanExporter) -> None:
    """The driver says nothing of a command whose task was cancelled, as each replica's that leaves early."""
    spans = CommandSpans()
    with tracing.span("look up"):
        for number in range(MOST_UNDER_WAY + 3):
            spans.started(CommandStartedEvent({"find": "items"}, "library", number, ("localhost", 27017), number))
    found = [span for span in exported.get_finished_spans() if span.name == "find items"]
    assert [dict(span.attributes or {}).get("zerosource.cancelled") for span in found] == [True] * 3
