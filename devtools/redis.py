"""A throw-away Redis on loopback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from devtools.processes import ManagedProcess, ProcessError, free_port


class RedisServer:
    """Debian's ``redis-server``, which keeps nothing on disk; ``directory`` holds its log."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """What ``REDIS_URL`` wants."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Run it and wait until it answers."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise ProcessError("Redis is not installed: apt-get install redis-server")
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        options += ["--save", "", "--appendonly", "no"]
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        self._process = ManagedProcess([binary, *options], self.directory / "redis.log", environment)
        try:
            self._process.wait_until(self._answers, "Redis to answer", 15)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def kill(self) -> None:
        """End it as a crash does; ``start`` runs it again, empty, on the same port."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        return self._process.pids() if self._process is not None else set()

    def _answers(self) -> bool:
        client = Redis(host="127.0.0.1", port=self.port, socket_timeout=2)
        try:
            return bool(client.ping())
        except RedisConnectionError:
            return False
        finally:
            client.close()
