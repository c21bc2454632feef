"""A throw-away SecantusDB: the stand-in for MongoDB, a process of its own, spoken to over the wire only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from devtools.processes import ManagedProcess, ProcessError, free_port

URI_OPTIONS = "retryWrites=false&heartbeatFrequencyMS=500&serverSelectionTimeoutMS=30000"


class SecantusDB:
    """A single-node replica set with its storage in ``directory``.

    ``oplog_entries`` bounds its history; ``test_commands`` allows failpoints; ``options`` are more of its command
    line, such as ``--auth`` or ``--standalone``. It may be stopped or killed and
    started again on the same port and storage: acknowledged writes are kept.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        oplog_entries: int = 5_000_000,
        test_commands: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.oplog_entries = oplog_entries
        self.test_commands = test_commands
        self.options = tuple(options)
        self.log = directory / "secantusdb.log"
        self._process: ManagedProcess | None = None

    @property
    def uri(self) -> str:
        """What ``MONGODB_URI`` wants, with the options that this server needs."""
        return f"mongodb://127.0.0.1:{self.port}/?{URI_OPTIONS}"

    def start(self) -> None:
        """Run it and wait until it answers."""
        binary = Path(sys.executable).with_name("secantusd-py")
        if not binary.exists():
            raise ProcessError("SecantusDB is not installed: pip install -r requirements-dev.txt")
        storage = self.directory / "storage"
        storage.mkdir(parents=True, exist_ok=True)
        args = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(storage), "--sync-on-commit"]
        args += ["--noop-heartbeat-seconds", "10", "--oplog-retention-seconds", "604800"]
        args += ["--oplog-max-entries", str(self.oplog_entries)]
        if self.test_commands:
            args.append("--enable-test-commands")
        args += self.options
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory)}
        self._process = ManagedProcess([binary, *args], self.log, environment)
        try:
            self._process.wait_until(self._answers, "SecantusDB to answer", 30)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pause(self) -> None:
        """Have it answer nothing, with its connections open, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        return self._process.pids() if self._process is not None else set()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.kill(pid, number)

    def _answers(self) -> bool:
        client: MongoClient[dict[str, object]] = MongoClient(
            self.uri, serverSelectionTimeoutMS=500, connectTimeoutMS=500
        )
        try:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:
            return False
        finally:
            client.close()
