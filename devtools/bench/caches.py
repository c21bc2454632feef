"""Real zero-caches, each with nothing at its start, and the change source that only sends (see ``generator``)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self
from urllib.request import urlopen

import psycopg

from changesource.exceptions import WatermarkInvalid
from changesource.protocol.watermark import Watermark
from devtools.bench import processors
from devtools.bench.generator import APP_ID
from devtools.bench.places import START_SECONDS, environment
from devtools.node import PROJECT
from devtools.postgres import Postgres
from devtools.processes import ManagedProcess, free_port, wait_until
from devtools.zerocache import ZeroCache

SYNC_SECONDS = 300.0
# Its own measure of an initial sync: from before it connects to the change source until the replica is complete.
SYNCED = re.compile(r"Running replica-\S+ at schema v\d+ \((\d+) ms\)")
POLL_SECONDS = 0.01


class Caches:
    """A PostgreSQL for zero-caches; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._postgres = Postgres(directory / "postgres")
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self._postgres.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._postgres.stop()

    def pids(self) -> set[int]:
        """PostgreSQL's processes."""
        return self._postgres.pids()

    @contextmanager
    def cache(self, upstream: str) -> Iterator[ZeroCache]:
        """A zero-cache that has taken its initial sync."""
        name = f"cache{next(self._numbers)}"
        url = self._postgres.create_database(name)
        cache = ZeroCache(self._directory / name, upstream, url, app_id=APP_ID)
        try:
            cache.start(supervised=False)
            cache.wait_ready(SYNC_SECONDS)
            yield cache
        finally:
            cache.kill()
            cache.replica.close()
            self._postgres.drop_database(name)


def sync_seconds(cache: ZeroCache) -> float:
    """Return how long a zero-cache's initial sync took, by itself."""
    found = SYNCED.search(cache.log_text())
    if found is None:
        raise ValueError(f"zero-cache does not say how long it took. {cache.log_tail()}")
    return int(found[1]) / 1000


def wait_stored(cache: ZeroCache, cluster_time: int, seconds: float) -> float:
    """Wait until zero-cache has stored, and so acknowledges, all up to a cluster time; return when (monotonic)."""
    state = f'SELECT "lastWatermark" FROM "{APP_ID}_0/cdc"."replicationState"'  # noqa: S608
    with psycopg.connect(cache.database_url, autocommit=True) as connection:

        def stored() -> bool:
            found = connection.execute(state).fetchone()
            try:
                return found is not None and Watermark.parse(str(found[0])).cluster_time >= cluster_time
            except WatermarkInvalid:
                return False

        wait_until(stored, "zero-cache to store the last change", seconds, POLL_SECONDS, cache.log_tail)
    return time.monotonic()


class Generator:
    """A running generator; a context manager."""

    def __init__(
        self, directory: Path, documents: int, updates: int = 0, by: int = 100, cores: Set[int] = processors.ANY
    ) -> None:
        self._port = free_port()
        self.url = f"ws://127.0.0.1:{self._port}/changes/v0/stream"
        args = ["--port", self._port, "--documents", documents, "--updates", updates, "--by", by]
        command = [sys.executable, "-m", "devtools.bench.generator", *map(str, args)]
        with processors.pinned(cores):
            self._process = ManagedProcess(
                command, directory / f"generator-{self._port}.log", environment(), cwd=PROJECT
            )

    def __enter__(self) -> Self:
        try:
            self._wait(lambda: "ready" in self._process.log_text(), "the generator")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()

    def pids(self) -> set[int]:
        """Its processes."""
        return self._process.pids()

    def go(self) -> float:
        """Send the updates to the zero-cache that follows; return when it began (monotonic)."""
        self._wait(lambda: "following" in self._process.log_text(), "zero-cache to follow the generator")
        with urlopen(f"http://127.0.0.1:{self._port}/go", timeout=30) as answer:
            return float(json.loads(answer.read())["moment"])

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        self._process.wait_until(condition, what, seconds)
