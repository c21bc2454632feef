"""``make zero``: a PostgreSQL and a zero-cache that follow a change source, and what arrives in the replica.

Everything is kept under ``.zero/``; removing that folder begins anew. Environment: ``ZERO_UPSTREAM_DB`` (the change
source; else that of ``make run``, by ``PORT``), ``ZERO_APP_ID``, ``ZERO_APP_PUBLICATIONS`` (comma-separated),
``ZERO_PORT``, ``ZERO_QUERY_URL``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading
from hashlib import sha256
from urllib.parse import urlsplit

from devtools import node
from devtools.postgres import Postgres
from devtools.processes import ProcessError, port_answers
from devtools.replica import quoted
from devtools.zerocache import RESET_EXIT_CODE, ZeroCache

UPSTREAM = f"ws://localhost:{os.environ.get('PORT', '').strip() or 3000}/changes/v0/stream"
POLL_SECONDS = 0.5
REFUSED = b"Unexpected server response: 403"
SHOWN_ROWS = 5
SHOWN_CHARACTERS = 200


class Supervisor:
    """Runs until ``stopping`` is set, and says on stdout what happens."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        upstream = os.environ.get("ZERO_UPSTREAM_DB") or UPSTREAM
        parts = urlsplit(upstream)
        if not parts.hostname or parts.scheme not in ("ws", "wss", "http", "https"):
            raise ProcessError("ZERO_UPSTREAM_DB must be a URL such as " + UPSTREAM)
        try:
            port = parts.port
        except ValueError as error:
            raise ProcessError(f"ZERO_UPSTREAM_DB, or PORT: {error}") from error
        self._host = parts.hostname
        self._source_port = port or (443 if parts.scheme in ("wss", "https") else 80)
        self._source = f"{parts.scheme}://{self._host}:{self._source_port}{parts.path}"
        app_id = os.environ.get("ZERO_APP_ID") or "zero"
        # A replica belongs to one app id and one set of publications; another one begins with nothing.
        publications = tuple(filter(None, os.environ.get("ZERO_APP_PUBLICATIONS", "").split(",")))
        name = f"{app_id}-{sha256(repr(sorted(publications)).encode()).hexdigest()[:8]}" if publications else app_id
        self._postgres = Postgres(node.DATA / "postgres")
        self._database = name
        self._cache = ZeroCache(
            node.DATA / "zero-cache" / name,
            upstream,
            self._postgres.url(name),
            app_id=app_id,
            publications=publications,
            port=int(os.environ.get("ZERO_PORT") or 4848),
            query_url=os.environ.get("ZERO_QUERY_URL", ""),
            on_exit=self._exited,
        )
        self._counts: dict[str, int] = {}
        self._watermark = ""
        self._was_ready = False
        self._was_refused = False
        self._log_read = self._cache.log.stat().st_size if self._cache.log.exists() else 0

    def run(self) -> None:
        """Start everything, report until told to stop, and end everything."""
        if not node.MODULES.exists():
            say("installing zero-cache (once) ...")
        node.install()
        try:
            self._postgres.start()
            self._postgres.create_database(self._database)
            say("PostgreSQL is ready")
            self._wait_for_source()
            if not self.stopping.is_set():
                self._cache.start()
                say(f"zero-cache starts; its log is {self._cache.log.relative_to(node.PROJECT)}")
            self._report()
        finally:
            say("stopping ...")
            self._cache.stop()
            self._postgres.stop()
            say("stopped; `make zero` goes on where it ended")

    def _wait_for_source(self) -> None:
        told = False
        while not self.stopping.is_set() and not port_answers(self._host, self._source_port):
            if not told:
                say(f"no change source answers at {self._source}: start it with `make run`; waiting for it ...")
                told = True
            self.stopping.wait(POLL_SECONDS)

    def _report(self) -> None:
        while not self.stopping.wait(POLL_SECONDS):
            self._report_refusal()
            if self._cache.ready():
                if not self._was_ready:
                    say(f"zero-cache is ready: clients use cacheURL {self._cache.url}")
                    self._was_ready = True
                with contextlib.suppress(sqlite3.OperationalError):  # it may end just now, and be reset
                    self._report_rows()

    def _report_rows(self) -> None:
        replica = self._cache.replica
        before = self._watermark
        if (watermark := replica.watermark()) == before:
            return
        if before:
            self._report_changes(before)
        else:
            say(f"the replica is synced, at watermark {watermark}")
        self._watermark = watermark
        counts = {table: replica.count(table) for table in replica.tables()}
        for table, count in counts.items():
            if count != self._counts.get(table):
                say(f"  {table}: {count} rows")
        self._counts = counts

    def _report_changes(self, before: str) -> None:
        """Show the first rows of each table that came or changed after the watermark ``before``."""
        for table in self._cache.replica.tables():
            sql = f'SELECT * FROM {quoted(table)} WHERE "_0_version" > ? ORDER BY "_0_version" LIMIT {SHOWN_ROWS}'  # noqa: S608
            for row in self._cache.replica.query(sql, [before]):
                del row["_0_version"]
                shown = json.dumps(row, ensure_ascii=False)
                say(f"  {table} {shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + ' ...'}")

    def _report_refusal(self) -> None:
        """Say so where the change source refuses zero-cache, which itself only goes on trying."""
        with contextlib.suppress(FileNotFoundError), self._cache.log.open("rb") as log:
            log.seek(self._log_read)
            new = log.read()
            if REFUSED in new and not self._was_refused:
                say("the change source refuses this zero-cache (403); its log says why. An API key goes into")
                say(f"ZERO_UPSTREAM_DB, such as {UPSTREAM}?apiKey=KEY")
            self._was_refused = self._was_refused or REFUSED in new
            self._log_read += len(new)

    def _exited(self, code: int) -> None:
        if code == RESET_EXIT_CODE:
            say("zero-cache was told to reset (exit 14) and syncs anew")
        else:
            say(f"zero-cache ended with {code} and is started again. {self._last_error()}")
        self._was_ready, self._watermark, self._counts = False, "", {}
        self._wait_for_source()

    def _last_error(self) -> str:
        for line in reversed(self._cache.log_text().splitlines()):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") == "ERROR":
                return f"Its last error: {str(entry.get('errorMsg') or entry.get('message'))[:300]}"
        return f"See {self._cache.log.relative_to(node.PROJECT)}."


def say(text: str) -> None:
    """One line of progress."""
    print(f"[zero] {text}", flush=True)


def main() -> None:
    """Run until Ctrl-C, SIGTERM or a closed terminal."""
    try:
        supervisor = Supervisor()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.stopping.set())
        supervisor.run()
    except ProcessError as error:
        sys.exit(f"[zero] {error}")


if __name__ == "__main__":
    main()
