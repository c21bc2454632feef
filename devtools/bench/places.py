"""Starts what takes part in a benchmark, each in processes of its own, pinned where a case wishes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Set
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

from pymongo import MongoClient

from devtools.bench import dataset, processors
from devtools.bench.reading import Counts
from devtools.node import PROJECT
from devtools.processes import ManagedProcess, ProcessError, free_port, wait_until

MANAGE = [sys.executable, str(PROJECT / "manage.py")]
API_KEY = "for-benchmarks-only"
START_SECONDS = 120
BEGIN_SECONDS = 3
SETTLE_SECONDS = 30  # KEEPALIVE_SECONDS, after which the watcher writes a heartbeat, is 10


def environment() -> dict[str, str]:
    """Return what any process needs of ours, and nothing that says where a service is."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


class Replayed:
    """A running replayed MongoDB (see ``devtools.bench.replayed``); a context manager."""

    def __init__(self, directory: Path, documents: int, tables: int = 1, cores: Set[int] = processors.OTHERS) -> None:
        self.port = free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}/?replicaSet=replayed"
        args = ["--port", self.port, "--documents", documents, "--tables", tables]
        command = [sys.executable, "-m", "devtools.bench.replayed", *map(str, args)]
        log = directory / f"replayed-{self.port}.log"
        with processors.pinned(cores):
            self._process = ManagedProcess(command, log, environment(), cwd=PROJECT)
        self._client: MongoClient[dict[str, Any]] = MongoClient(self.uri, heartbeatFrequencyMS=600_000)

    def __enter__(self) -> Self:
        try:
            self._process.wait_until(lambda: "ready" in self._process.log_text(), "replayed", START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.kill()

    def pids(self) -> set[int]:
        """Its processes."""
        return self._process.pids()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give the command ``replayed``; see there."""
        return self._client.admin.command({"replayed": 1, **command})

    def commands(self) -> int:
        """Return how many commands it was sent, but for hello."""
        return int(sum(self.ask()["commands"].values()))

    def settle(self) -> None:
        """Wait until all replicas hear the watcher and read nothing by themselves; the figures tell where they do not.

        One that has just connected does until the next heartbeat, and begins a moment after it has connected.
        """
        with suppress(TimeoutError):
            wait_until(lambda: self.ask()["streams"] > 1, "a replica that reads", BEGIN_SECONDS)
        with suppress(TimeoutError):
            wait_until(lambda: self.ask()["streams"] <= 1, "one change stream", SETTLE_SECONDS, interval=0.5)
        time.sleep(1)


class Ours:
    """A deployment of zerosource: its data in ``directory``, mappings imported, processes started as asked."""

    def __init__(self, directory: Path, mongodb_uri: str, tables: int = 1, **settings: str) -> None:
        """``settings`` are environment variables over the defaults, which are those of production."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        own = {
            "CHANGE_SOURCE_API_KEYS": API_KEY,
            "DATA_DIR": str(directory / "data"),
            "DATABASE_URL": f"sqlite:///{directory / 'zerosource.sqlite3'}",
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": dataset.DATABASE,
            "SECRET_KEY": "for-benchmarks-only",
        }
        self._environment = {**environment(), **own, **settings}
        self._running: list[ManagedProcess] = []
        mappings = directory / "mappings.json"
        mappings.write_text(json.dumps(dataset.mappings(tables)))
        self.manage("importmappings", str(mappings))

    @property
    def url(self) -> str:
        """What zero-cache wants as ``ZERO_UPSTREAM_DB``."""
        return f"ws://127.0.0.1:{self.port}/changes/v0/stream?apiKey={API_KEY}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def manage(self, *args: str) -> None:
        """Run a management command to its end."""
        done = subprocess.run(
            [*MANAGE, *args],
            env=self._environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"manage.py {' '.join(args)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def serve(self, *options: str, cores: Set[int] = processors.MEASURED) -> ManagedProcess:
        """Start ``serve`` and wait until it is ready."""
        server = self.start("serve", "--host", "127.0.0.1", "--port", str(self.port), *options, cores=cores)
        server.wait_until(self.ready, "/readyz", START_SECONDS)
        return server

    def start(self, *args: str, cores: Set[int] = processors.MEASURED) -> ManagedProcess:
        """Start a management command that goes on."""
        log = self.directory / f"{args[0]}.log"
        with processors.pinned(cores):
            process = ManagedProcess([*MANAGE, *args], log, self._environment, cwd=PROJECT)
        self._running.append(process)
        return process

    def ready(self) -> bool:
        """Whether /readyz says 200."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def pids(self) -> set[int]:
        """All of its processes."""
        return {pid for process in self._running for pid in process.pids()}

    def close(self) -> None:
        """End all of its processes."""
        with ExitStack() as stack:
            for process in self._running:
                stack.callback(process.kill)
        self._running = []


class Reading:
    """The quick client (see ``devtools.bench.reading``) in a process of its own; a context manager."""

    def __init__(self, directory: Path, url: str, *options: str, cores: Set[int] = processors.OTHERS) -> None:
        self.cpu = 0.0
        command = [sys.executable, "-m", "devtools.bench.reading", url, *options]
        self._log = directory / f"reading-{free_port()}.log"
        with processors.pinned(cores):
            self._process = ManagedProcess(command, self._log, environment(), cwd=PROJECT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()

    def pids(self) -> set[int]:
        """Its processes."""
        return self._process.pids()

    def log_text(self) -> str:
        """What it printed so far."""
        return self._process.log_text()

    def wait_following(self, seconds: float = 60) -> None:
        """Wait until its connections follow."""
        self._process.wait_until(lambda: "following" in self._process.log_text(), "the reader to follow", seconds)

    def counts(self, seconds: float) -> list[Counts]:
        """Wait for its end; return what each connection counted. ``cpu`` is then what it took in all, in seconds."""
        if self._process.wait(seconds):
            raise ProcessError(f"The reader failed. {self._process.log_tail()}")
        found = json.loads(self._process.log_text().splitlines()[-1])
        self.cpu = round(found["cpu"], 3)
        return [Counts(**one) for one in found["counts"]]


class Bare(ManagedProcess):
    """``devtools.bench.bare`` while it runs."""

    def __init__(self, directory: Path, *args: str, cores: Set[int] = processors.OTHERS) -> None:
        command = [sys.executable, "-m", "devtools.bench.bare", *args]
        with processors.pinned(cores):
            super().__init__(command, directory / f"bare-{free_port()}.log", environment(), cwd=PROJECT)


def bare_rate(directory: Path, *args: str, cores: Set[int] = processors.MEASURED) -> float:
    """Run ``devtools.bench.bare`` to its end; return the rate that it tells."""
    process = Bare(directory, *args, cores=cores)
    try:
        if process.wait(START_SECONDS):
            raise ProcessError(f"bare {args[0]} failed. {process.log_tail()}")
    finally:
        process.kill()
    return float(json.loads(process.log_text().splitlines()[-1])["rate"])
