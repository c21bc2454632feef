"""A real Zero client in Node.js, and the endpoint that tells zero-cache what its named queries mean."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import node
from devtools.processes import ManagedProcess, ProcessError, free_port, port_answers

Row = dict[str, object]
Views = dict[str, list[Row]]


def schema_in(module: Path) -> dict[str, Any]:
    """The ``schema`` that a TypeScript module exports, as JSON; a link to the npm packages is put beside it."""
    node.install()
    (module.parent / "node_modules").symlink_to(node.MODULES)
    program = f"process.stdout.write(JSON.stringify((await import({json.dumps(module.as_uri())})).schema))"
    done = subprocess.run(
        [node.node_binary(), "--input-type=module", "--eval", program],
        env=node.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise ProcessError(f"{module} cannot be imported: {done.stderr.strip()[-2000:]}")
    schema: dict[str, Any] = json.loads(done.stdout)
    return schema


class QueryServer:
    """The HTTP endpoint behind ``ZERO_QUERY_URL``, for one schema."""

    def __init__(self, directory: Path, schema: Mapping[str, object], port: int | None = None) -> None:
        self.log = directory / "query-server.log"
        self.schema = schema
        self.port = port or free_port()
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """What ``ZERO_QUERY_URL`` wants."""
        return f"http://127.0.0.1:{self.port}/query"

    def start(self) -> None:
        """Run it and wait until it listens."""
        node.install()
        argument = json.dumps({"schema": self.schema, "port": self.port})
        args: list[str | Path] = [node.node_binary(), node.SCRIPTS / "query-server.mjs", argument]
        self._process = ManagedProcess(args, self.log, node.environment())
        try:
            self._process.wait_until(lambda: port_answers("127.0.0.1", self.port), "the query server to listen")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()


@dataclass(frozen=True)
class QueryArguments:
    """What a view shows: a table's rows that meet all conditions ``(column, operator, value)``."""

    table: str
    where: tuple[tuple[str, str, object], ...] = ()
    order_by: tuple[tuple[str, str], ...] = ()
    limit: int | None = None

    def to_json(self) -> dict[str, object]:
        """The arguments of the query ``rows`` in queries.mjs."""
        optional = {} if self.limit is None else {"limit": self.limit}
        return {"table": self.table, "where": self.where, "orderBy": self.order_by, **optional}


@dataclass
class ClientState:
    """What a client has shown so far. ``updates`` holds each change: the views that changed together."""

    views: Views = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    updates: list[Views] = field(default_factory=list)
    errors: list[object] = field(default_factory=list)
    connection: str = ""
    reason: object = None
    replaced: int = 0


class ZeroClient:
    """A client of the zero-cache at ``cache_url`` with one materialized view for each of ``views``.

    ``views`` is ``{name: QueryArguments}``, or the names of tables that are shown whole.
    """

    def __init__(
        self,
        directory: Path,
        cache_url: str,
        schema: Mapping[str, object],
        views: Mapping[str, QueryArguments] | Sequence[str],
    ) -> None:
        self.log = directory / f"zero-client-{id(self):x}.log"
        self.cache_url = cache_url
        self.schema = schema
        named = views if isinstance(views, Mapping) else {table: QueryArguments(table) for table in views}
        self.view_names = set(named)
        self._arguments = {name: arguments.to_json() for name, arguments in named.items()}
        self._state = ClientState()
        self._changed = threading.Condition()
        self._process: ManagedProcess | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Run it, without waiting for its connection."""
        node.install()
        argument = json.dumps({"cacheURL": self.cache_url, "schema": self.schema, "views": self._arguments})
        args: list[str | Path] = [node.node_binary(), node.SCRIPTS / "client.mjs", argument]
        self._process = ManagedProcess(args, self.log, node.environment(), pipes=True)
        self._reader = threading.Thread(target=self._read, args=[self._process], name="zero client", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End it; what it showed stays."""
        process, self._process = self._process, None
        if process is not None and self._reader is not None:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                process.wait(5)
            if process.exit_code is None:
                process.signal(signal.SIGKILL)
            self._reader.join(5)  # it reads what the pipe still holds, and only then the pipe may be closed
            process.kill()

    @property
    def state(self) -> ClientState:
        """A copy of what it has shown up to now."""
        with self._changed:
            now = self._state
            copy = ClientState(dict(now.views), set(now.complete), list(now.updates), list(now.errors))
            copy.connection, copy.reason, copy.replaced = now.connection, now.reason, now.replaced
            return copy

    def rows(self, view: str) -> list[Row]:
        """The view's rows now, in its order."""
        with self._changed:
            return list(self._state.views.get(view, []))

    def wait_complete(self, timeout: float = 60) -> Views:
        """Wait until every view has been confirmed complete by zero-cache; returns them."""
        self._wait(lambda: self._state.complete >= self.view_names, timeout, "every view to be complete")
        return self.state.views

    def wait_for(self, predicate: Callable[[Views], object], timeout: float = 30, what: str = "the views") -> Views:
        """Wait until ``predicate`` of the views (``{name: rows}``) is true, asked after each change; returns them."""
        self._wait(lambda: bool(predicate(self._state.views)), timeout, what)
        return self.state.views

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if self._process is None or self._process.exit_code is not None:
                    raise TimeoutError(f"The Zero client ended before {what}. {self._shown()}")
                if not self._changed.wait(min(1.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise TimeoutError(f"The Zero client waited {timeout:g} s for {what}. {self._shown()}")

    def _shown(self) -> str:
        now = self._state
        log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        counts = {name: len(rows) for name, rows in now.views.items()}
        return f"Connection: {now.connection} {now.reason or ''}; rows: {counts}; errors: {now.errors}; log: {log}"

    def _read(self, process: ManagedProcess) -> None:
        for line in process.stdout:
            message = json.loads(line)
            with self._changed:
                self._apply(message)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _apply(self, message: dict[str, object]) -> None:
        state = self._state
        if message.get("event") == "replaced":
            state.replaced += 1
            state.complete.clear()
        elif "state" in message:
            state.connection, state.reason = str(message["state"]), message.get("reason")
        elif isinstance(views := message.get("views"), dict):
            state.updates.append({name: view["rows"] for name, view in views.items()})
            for name, view in views.items():
                state.views[name] = view["rows"]
                if view["complete"]:
                    state.complete.add(name)
                if "error" in view:
                    state.errors.append(view["error"])
