"""Takes traces as a collector of OpenTelemetry does: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from devtools.processes import wait_until


@dataclass(frozen=True)
class TakenSpan:
    """A span that came; times are in nanoseconds since 1970, ``service`` is that of its process."""

    trace: bytes
    own: bytes
    parent: bytes
    name: str
    kind: str
    began: int
    ended: int
    attributes: dict[str, object]
    links: tuple[bytes, ...]
    failed: bool
    service: str


def _attributes(pairs: Iterator[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _taken(span: SpanMessage, service: str) -> TakenSpan:
    return TakenSpan(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.name,
        SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(iter(span.attributes)),
        tuple(link.span_id for link in span.links),
        span.status.code == span.status.STATUS_CODE_ERROR,
        service,
    )


class Collector:
    """What came. ``status`` is what it answers; while ``hangs`` is set, it does not answer at all."""

    def __init__(self) -> None:
        """It takes what comes."""
        self.spans: list[TakenSpan] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.asked = 0

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Take what was sent to /v1/traces; the status to answer with."""
        self.asked += 1
        if self.hangs.is_set():
            self.released.wait(60)
        if self.status == 200:
            self.headers.append(headers)
            self.bodies.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = str(_attributes(iter(resource.resource.attributes))["service.name"])
                self.spans += [_taken(span, service) for scope in resource.scope_spans for span in scope.spans]
        return self.status

    def named(self, name: str, **attributes: object) -> list[TakenSpan]:
        """The spans of a name, with these attributes of ours (``app_id`` is ``zerosource.app_id``)."""
        wanted = {f"zerosource.{key}": value for key, value in attributes.items()}
        return [span for span in list(self.spans) if span.name == name and wanted.items() <= span.attributes.items()]

    def way_since(self, began: int) -> list[TakenSpan]:
        """Wait for the ack of a batch of one row, and return all spans that lead to it, the first one first.

        ``began`` is before the ack, in nanoseconds since 1970.
        """

        def ways() -> list[list[TakenSpan]]:
            found = [self._way(ack) for ack in self.named("ack") if ack.began >= began]
            return [way for way in found if not way[0].parent and way[0].attributes.get("zerosource.rows") == 1]

        wait_until(lambda: bool(ways()), "the ack's span", 20)
        return ways()[0]

    def _way(self, last: TakenSpan) -> list[TakenSpan]:
        by_id = {span.own: span for span in list(self.spans)}
        way = [last]
        while way[0].parent in by_id:
            way.insert(0, by_id[way[0].parent])
        return way

    def children(self, of: TakenSpan) -> dict[str, TakenSpan]:
        """The spans right below one, by name."""
        return {span.name: span for span in list(self.spans) if (span.trace, span.parent) == (of.trace, of.own)}


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    """A collector, and its address."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status = collector.take(dict(self.headers), body) if self.path == "/v1/traces" else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="collector", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()
