"""zerosource as operators run it: processes of ``manage.py`` under one configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devtools.node import PROJECT
from devtools.processes import ManagedProcess, ProcessError, free_port
from tests.harness.environment import blank_environment, process_environment

MANAGE = [sys.executable, str(PROJECT / "manage.py")]


class Running(ManagedProcess):
    """One running management command."""


class Server(Running):
    """A running ``manage.py serve``."""

    def __init__(self, port: int, options: tuple[str, ...], log: Path, environment: dict[str, str]) -> None:
        self.port = port
        super().__init__([*MANAGE, "serve", "--port", str(port), *options], log, environment, cwd=PROJECT)

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        """What zero-cache wants as ``ZERO_UPSTREAM_DB``."""
        return f"ws://127.0.0.1:{self.port}/changes/v0/stream"

    def answers(self, path: str = "/healthz") -> bool:
        """Whether the page at ``path`` says 200."""
        try:
            with urlopen(self.url + path, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class Deployment:
    """One configuration and database, and every process that was started under them.

    ``settings`` are environment variables over a blank environment; ``directory`` holds data, files and logs.
    """

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        defaults = {"DATA_DIR": str(data), "DEBUG": "1", "KEEPALIVE_SECONDS": "1", "PYTHONUNBUFFERED": "1"}
        self.environment = {**process_environment(), **blank_environment(), **defaults, **settings}
        self._running: list[Running] = []

    def configure(self, schema: object = None, mappings: object = None) -> None:
        """Write the schema and the table mappings as files, which processes started from now on read."""
        for name, content in (("SCHEMA_FILE", schema), ("TABLE_MAPPINGS_FILE", mappings)):
            if content is not None:
                path = self.directory / f"{name.lower()}.json"
                # Whole or not at all: a process that reads it again finds no half of it.
                new = path.with_suffix(".new")
                new.write_text(json.dumps(content))
                new.replace(path)
                self.environment[name] = str(path)

    def manage(self, *args: str, stdin: str = "") -> str:
        """Run a management command to its end and return its stdout; ``ProcessError`` holds both outputs."""
        done = subprocess.run(
            [*MANAGE, *args],
            env=self.environment,
            cwd=PROJECT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"manage.py {' '.join(args)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def server(self, *options: str, port: int | None = None, wait: bool = True, **settings: str) -> Server:
        """Start ``serve`` with these options (such as ``--no-watcher``) and wait until /healthz answers.

        A ``port`` of an earlier one starts it again in its place.
        """
        port = port or free_port()
        log = self.directory / f"serve-{port}.log"
        server = Server(port, options, log, {**self.environment, **settings})
        self._running.append(server)
        if wait:
            server.wait_until(server.answers, "/healthz", 60)
        return server

    def watcher(self, **settings: str) -> Running:
        """Start ``runwatcher``."""
        log = self.directory / f"runwatcher-{len(self._running)}.log"
        watcher = Running([*MANAGE, "runwatcher"], log, {**self.environment, **settings}, cwd=PROJECT)
        self._running.append(watcher)
        return watcher

    def close(self) -> None:
        """End every process that still runs, with its whole tree."""
        running, self._running = self._running, []
        for process in running:
            process.kill()


def ends_with(place: Deployment, *words: str) -> str:
    """Start ``serve``; it must end by itself with an error of one line that has these words. Return the log.

    Its exit code says that starting it again would change nothing.
    """
    server = place.server(wait=False)
    assert server.wait(60) == 78
    log: str = server.log_text()
    errors = [line for line in log.splitlines() if line.startswith("CommandError: ")]
    assert len(errors) == 1, log
    for word in words:
        assert word in errors[0], errors[0]
    assert "Traceback" not in log
    return log
