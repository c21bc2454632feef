"""An embedded MongoDB for development: SecantusDB, in a process of its own, spoken to over the wire only.

It is a development dependency. With DEBUG off, or with MONGODB_URI set, it is never started.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from changesource.exceptions import SettingError

PROGRAM = "secantusd-py"
START_SECONDS = 30.0
# `retryWrites` slows this server down; the short heartbeat avoids stalls after not-primary errors.
OPTIONS = "retryWrites=false&heartbeatFrequencyMS=500"


class EmbeddedMongoDB:
    """One SecantusDB process that keeps its data under ``storage``. ``uri`` is there after ``start``."""

    def __init__(self, storage: Path) -> None:
        """``storage`` is a folder; one process may use it at a time."""
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = ""

    def start(self) -> None:
        """Start it on a free port of 127.0.0.1 and wait until it listens; ``SettingError`` where it cannot."""
        program = Path(sys.executable).with_name(PROGRAM)
        if not program.exists():
            raise SettingError(
                "MONGODB_URI is not set and no embedded MongoDB is installed.",
                remedy="Set MONGODB_URI, or install requirements-dev.txt for the embedded one.",
            )
        self._storage.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        log = (self._storage.parent / "mongodb.log").open("ab")
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(self._storage)]
        arguments += ["--sync-on-commit", "--noop-heartbeat-seconds", "10"]
        arguments += ["--oplog-max-entries", "5000000", "--oplog-retention-seconds", "604800"]
        # A session of its own: Ctrl-C reaches us alone, and we end it after the last read.
        self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
            [str(program), *arguments], stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while not listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SettingError(
                    "The embedded MongoDB did not start.", remedy=f"Read {self._storage.parent / 'mongodb.log'}."
                )
            time.sleep(0.05)
        self.uri = f"mongodb://127.0.0.1:{port}/?{OPTIONS}"

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
