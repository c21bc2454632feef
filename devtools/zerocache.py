"""zero-cache 1.9.0 as a process tree, with the supervisor that it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devtools import node
from devtools.processes import ManagedProcess, ProcessError, free_port, port_is_free, wait_until
from devtools.replica import Replica, Row

RESET_EXIT_CODE = 14
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class ZeroCache:
    """A zero-cache with its files in ``directory``, which follows the change source at ``upstream``.

    ``database_url`` is a PostgreSQL database of its own; ``query_url`` is asked for named queries;
    ``settings`` are more ``ZERO_*`` variables. While it is started and ends by itself, it is started again
    (``supervised=False`` leaves it ended): ``exits`` holds the exit codes, and ``on_exit`` is called with each.
    """

    def __init__(  # noqa: PLR0913
        self,
        directory: Path,
        upstream: str,
        database_url: str,
        *,
        app_id: str = "zero",
        publications: Sequence[str] = (),
        port: int | None = None,
        query_url: str = "",
        settings: Mapping[str, str] | None = None,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        self.directory = directory
        self.upstream = upstream
        self.database_url = database_url
        self.app_id = app_id
        self.publications = tuple(publications)
        self.port = port or free_port(span=2)
        self.query_url = query_url
        self.settings = dict(settings or {})
        self.exits: list[int] = []
        self.log = directory / "zero-cache.log"
        self.replica = Replica(directory / "replica.db")
        self._on_exit = on_exit
        self._process: ManagedProcess | None = None
        self._supervisor: threading.Thread | None = None
        self._ending = threading.Event()

    @property
    def url(self) -> str:
        """What a Zero client wants as ``cacheURL``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its launcher runs."""
        return self._process is not None and self._process.exit_code is None

    def start(self, supervised: bool = True) -> None:
        """Start it, without waiting until it is ready; after ``stop`` or ``kill`` it goes on with its replica."""
        if self._process is not None:
            raise ProcessError("zero-cache was started already.")
        for port in (self.port, self.port + 1):
            if not port_is_free(port):
                raise ProcessError(f"Port {port} is taken; zero-cache needs {self.port} and {self.port + 1}.")
        node.install()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._ending.clear()
        self._process = self._spawn()
        if supervised:
            self._supervisor = threading.Thread(target=self._supervise, name="zero-cache supervisor", daemon=True)
            self._supervisor.start()

    def wait_ready(self, timeout: float = 90) -> None:
        """Wait until its initial sync is done and clients are served; exits and restarts meanwhile are allowed."""
        wait_until(self.ready, "zero-cache to be ready", timeout, detail=self.log_tail)

    def ready(self) -> bool:
        """Whether it answers at /keepalive."""
        try:
            with urlopen(f"{self.url}/keepalive", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def wait_exit(self, count: int = 1, timeout: float = 60) -> int:
        """Wait until it has ended by itself ``count`` times in all; returns the last exit code."""
        wait_until(
            lambda: len(self.exits) >= count, f"zero-cache to exit ({count} in all)", timeout, detail=self.log_tail
        )
        return self.exits[count - 1]

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        process = self._process
        return process.pids() if process is not None else set()

    def kill(self) -> None:
        """SIGKILL to the whole tree and an end of the supervision; returns when every process is gone."""
        self._end(ManagedProcess.kill)

    def stop(self) -> None:
        """End it in order, and the supervision and the replica's reader with it."""
        self._end(ManagedProcess.stop)
        self.replica.close()

    def rows(self, table: str) -> list[Row]:
        """The replica's rows of a table; see ``Replica.rows``."""
        return self.replica.rows(table)

    def query(self, sql: str) -> list[Row]:
        """Any SELECT on the replica; see ``Replica.query``."""
        return self.replica.query(sql)

    def log_text(self) -> str:
        """All it logged so far, over all its starts. It holds the upstream URL, API key included."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the log, for error messages."""
        return f"Exits: {self.exits}. The log ends:\n" + "\n".join(self.log_text().splitlines()[-lines:])

    def _end(self, end: Callable[[ManagedProcess], object]) -> None:
        self._ending.set()
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            # It spawns nothing once `_ending` is set, but may be about to.
            supervisor.join(30)
        process, self._process = self._process, None
        if process is not None:
            end(process)

    def _supervise(self) -> None:
        failures = 0
        while not self._ending.is_set():
            process = self._process
            if process is None or process.exit_code is None:
                self._ending.wait(0.05)
                continue
            process.kill()
            code = process.wait()
            # A reset is no failure: what follows is a start from nothing.
            failures = 0 if code == RESET_EXIT_CODE else failures + 1
            self.exits.append(code)
            if self._on_exit is not None:
                self._on_exit(code)
            if not self._ending.wait(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]):
                self._process = self._spawn()

    def _spawn(self) -> ManagedProcess:
        cli = node.MODULES / "@rocicorp" / "zero" / "out" / "zero" / "src" / "cli.js"
        # It reads an `.env` in its working directory, so that is one of its own.
        return ManagedProcess([node.node_binary(), cli], self.log, self._environment(), cwd=self.directory)

    def _environment(self) -> dict[str, str]:
        variables = {
            "ZERO_UPSTREAM_TYPE": "custom",
            "ZERO_UPSTREAM_DB": self.upstream,
            "ZERO_CVR_DB": self.database_url,
            "ZERO_CHANGE_DB": self.database_url,
            "ZERO_REPLICA_FILE": str(self.replica.file),
            "ZERO_APP_ID": self.app_id,
            "ZERO_PORT": str(self.port),
            # One that it draws itself may begin with a dash, which its own workers then refuse (exit 255).
            "ZERO_TASK_ID": "zerosource",
            "ZERO_ADMIN_PASSWORD": "admin",
            "ZERO_LOG_LEVEL": "info",
            "ZERO_LOG_FORMAT": "json",
            "ZERO_ENABLE_TELEMETRY": "false",
            "ZERO_ENABLE_CRUD_MUTATIONS": "false",
            "ZERO_NUM_SYNC_WORKERS": "1",
            "ZERO_CVR_MAX_CONNS": "5",
        }
        if self.publications:
            variables["ZERO_APP_PUBLICATIONS"] = ",".join(self.publications)
        if self.query_url:
            variables["ZERO_QUERY_URL"] = self.query_url
        return {**node.environment(), **variables, **self.settings}
