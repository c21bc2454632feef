"""A throw-away PostgreSQL on loopback, for zero-cache, tests and development."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from devtools.processes import ManagedProcess, ProcessError, free_port

BINARIES = Path("/usr/lib/postgresql")


class Postgres:
    """PostgreSQL with its data in ``directory``; trusts everybody who connects from this machine.

    It does not wait for the disk (fsync is off): quick, and its data may be lost with the machine's power.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.log = directory.with_name(directory.name + ".log")
        self._process: ManagedProcess | None = None

    def url(self, database: str = "postgres") -> str:
        """The connection URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the data directory where there is none, run, and wait until it answers."""
        if not (self.directory / "PG_VERSION").exists():
            self._initialise()
        options = ["fsync=off", "full_page_writes=off", "max_connections=400", "unix_socket_directories="]
        args = ["-D", str(self.directory), "-p", str(self.port), "-h", "127.0.0.1"]
        args += [word for option in options for word in ("-c", option)]
        self._process = ManagedProcess([*_as_postgres(), _binary("postgres"), *args], self.log, _environment())
        try:
            self._process.wait_until(self._answers, "PostgreSQL to answer", 30)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """A fast shutdown: open connections are dropped."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                process.signal(signal.SIGINT)
                process.wait(10)
            process.kill()

    def kill(self) -> None:
        """End it as a crash does; what was committed is there after ``start``."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        return self._process.pids() if self._process is not None else set()

    def create_database(self, name: str) -> str:
        """Make the database unless it exists, and return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove the database, whoever is connected to it."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        args = ["-D", str(self.directory), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(
            [*_as_postgres(), _binary("initdb"), *args],
            capture_output=True,
            text=True,
            env=_environment(),
            cwd="/",
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"initdb failed: {(done.stdout + done.stderr).strip()}")


def _binary(name: str) -> Path:
    versions = [path for path in BINARIES.glob("*") if (path / "bin" / name).exists()]
    if not versions:
        raise ProcessError("PostgreSQL is not installed: apt-get install postgresql")
    return max(versions, key=lambda path: float(path.name)) / "bin" / name


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root, so root becomes the postgres user.

    It keeps one capability, so that it reaches a data directory below one that only root may enter.
    """
    if os.geteuid() != 0:
        return []
    capability = "+dac_override"
    user = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
    return ["setpriv", *user, f"--inh-caps={capability}", f"--ambient-caps={capability}"]


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
