"""An HTTP relay before another instance's pages: it notes every answer, and may give rubbish or none instead."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

Answer = tuple[int, bytes]
SILENT = -1
PASSED = ("ETag", "Content-Type")


class Relay(ThreadingHTTPServer):
    """Passes GET on to ``upstream`` (such as ``http://127.0.0.1:3000``), with its headers; ``statuses`` counts answers.

    ``instead`` is answered in its place, unless it is None. As the status, 0 closes the connection without a word, and
    ``SILENT`` keeps it open without one until the relay ends.
    ``held`` counts how often that was done since it was set.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.statuses: Counter[int] = Counter()
        self.held = 0
        self.instead: Answer | None = None
        self.ended = threading.Event()

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.server_port}"

    def answer(self, instead: Answer | None) -> None:
        """Answer so from now on."""
        self.held, self.instead = 0, instead


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        if self.server.instead is not None:
            self.server.held += 1
            status, body = self.server.instead
            if status == SILENT:
                self.server.ended.wait(60)
            elif status:
                self._say(status, body, {})
            return
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
        request = Request(self.server.upstream + self.path, headers=headers)  # noqa: S310 - the test's own
        try:
            with urlopen(request, timeout=10) as answer:  # noqa: S310
                status, body, given = answer.status, answer.read(), answer.headers
        except HTTPError as error:
            status, body, given = error.code, error.read(), error.headers
        self.server.statuses[status] += 1
        self._say(status, body, {name: given[name] for name in PASSED if given[name]})

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def relayed(upstream: str) -> Iterator[Relay]:
    """Run one."""
    with Relay(upstream) as relay:
        thread = threading.Thread(target=relay.serve_forever, name="relay")
        thread.start()
        try:
            yield relay
        finally:
            relay.ended.set()
            relay.shutdown()
            thread.join(10)
