"""Traces for OpenTelemetry, which are an option; docs/tracing.md lists the spans.

They are on where OpenTelemetry's own variables name an endpoint. Off, nothing of it is imported, and a span costs a
function call. Nothing waits for whoever takes them: a thread sends what is queued, and what the queue has no room for
is dropped. No span has values of documents, nor the words of an error, which may quote some.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from changesource import VERSION
from changesource.exceptions import ZerosourceError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
PROTOCOL = "http/protobuf"
# How long the end of a process waits until what is queued is sent.
LAST_SECONDS = 2.0
MOST_SAID = 50

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute: TypeAlias = str | int | float | bool
Attributes: TypeAlias = Mapping[str, Attribute]


@dataclass(frozen=True)
class _Started:
    """What sends traces."""

    tracer: Tracer
    ending: threading.Event
    ended: threading.Event


_started: _Started | None = None


def enabled() -> bool:
    """Whether spans are made."""
    return _started is not None


def tracer() -> Tracer:
    """Return what makes spans; ``RuntimeError`` where they are off."""
    if _started is None:
        raise RuntimeError("traces are off")
    return _started.tracer


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Send traces from now on, where the environment wishes it. Where that cannot be, the log says why."""
    if enabled() or not _wished(environment):
        return
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        why = f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, and only {PROTOCOL} is spoken"
        logger.warning("traces are not sent", extra={"why": why})
        return
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers = [_Once(_secrets(environment))]
    theirs.propagate = False
    try:
        _start()
    except ImportError:
        why = "the packages of requirements-tracing.txt are not installed"
        logger.warning("traces are not sent", extra={"why": why})
    except ValueError as error:
        logger.warning("traces are not sent", extra={"why": f"a variable of OpenTelemetry is wrong: {error}"})
    else:
        logger.info("traces are sent")


def _wished(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables have traces sent; they are read as its specification says."""
    return (
        any(environment.get(name, "").strip() for name in ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "").strip() in ("", "otlp")
    )


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """What its log may quote and must not tell, the longest first: wrong headers, and the user and query of URLs."""
    parts = [part.strip() for name in HEADERS for part in environment.get(name, "").split(",")]
    for name in ENDPOINTS:
        url, _, query = environment.get(name, "").strip().partition("?")
        # Not parsed: it may be no URL.
        parts += [query, url.rpartition("@")[0].rpartition("//")[2]]
    return sorted(filter(None, parts), key=len, reverse=True)


def _start() -> None:
    # Some hundred modules, which nobody needs otherwise.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    global _started  # noqa: PLW0603 - the one of the process
    given = OTELResourceDetector().detect()
    resource = Resource.create({"service.name": "zerosource", "service.version": VERSION}).merge(given)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _started = _Started(provider.get_tracer("zerosource", VERSION), threading.Event(), threading.Event())

    def end(started: _Started) -> None:
        started.ending.wait()
        provider.shutdown()
        started.ended.set()

    # Now, since a process that ends may begin no thread.
    threading.Thread(target=end, args=(_started,), name="traces-end", daemon=True).start()
    atexit.register(stop)


def stop() -> None:
    """Send what is queued, for at most ``LAST_SECONDS``; no spans are made afterwards."""
    global _started
    if _started is not None:
        started, _started = _started, None
        atexit.unregister(stop)
        started.ending.set()
        started.ended.wait(LAST_SECONDS)


class _Once(logging.Handler):
    """Tells our log what OpenTelemetry's says, each sort of it once: a receiver that is away would fill it."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(logging.WARNING)
        self._secrets = secrets
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in self._said and len(self._said) < MOST_SAID:
            self._said.add(record.msg)
            what = record.getMessage()
            for secret in self._secrets:
                what = what.replace(secret, "***")
            logger.warning("OpenTelemetry warns, which is told once", extra={"what": what})


@contextmanager
def span(
    name: str, attributes: Attributes | None = None, kind: Kind = "internal"
) -> Iterator[MutableMapping[str, Attribute]]:
    """Make a span of what is done within, a child of the one around it; what is put into the result is noted on it.

    An error that goes through is noted by its code, or its type.
    """
    noted: dict[str, Attribute] = {}
    if _started is None:
        yield noted
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - see _start

    with _started.tracer.start_as_current_span(
        name,
        kind=SpanKind[kind.upper()],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield noted
        except BaseException as error:
            note_error(made, error)
            raise
        finally:
            made.set_attributes(noted)


def rename(name: str) -> None:
    """Name the span that is open."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - see _start

    get_current_span().update_name(name)


def note_error(made: Span, error: BaseException) -> None:
    """Note what went wrong, by its code or type alone; being cancelled is no error."""
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - see _start

    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        made.set_attribute("zerosource.cancelled", True)
        return
    made.set_attribute("error.type", error.code if isinstance(error, ZerosourceError) else type(error).__qualname__)
    made.set_status(StatusCode.ERROR)


def traceparent() -> str:
    """Return the span that is open, in the form of W3C's Trace Context; empty outside one."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - see _start

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def context_of(parent: str) -> Context:
    """Return the context of a ``traceparent``, one without a span for an empty or a wrong one."""
    from opentelemetry.context import Context  # noqa: PLC0415 - see _start
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - see _start

    return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())
