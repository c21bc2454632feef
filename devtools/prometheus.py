"""A throw-away Prometheus on loopback, and its promtool: Debian's ``prometheus``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from devtools.processes import ManagedProcess, ProcessError, free_port

CONFIGURATION = """\
global: {{scrape_interval: {ms}ms, scrape_timeout: {ms}ms, evaluation_interval: {ms}ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: zerosource
    static_configs: [{{targets: [{targets}]}}]
"""


def promtool(*args: str | Path) -> str:
    """Run promtool; return what it says, ``ProcessError`` with the same where it ends with an error."""
    binary = shutil.which("promtool")
    if binary is None:
        raise ProcessError("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([binary, *args], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise ProcessError(f"promtool ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Prometheus:
    """Scrapes ``targets`` (host:port), whose metrics need no key, every ``ms``, and evaluates ``rules``."""

    def __init__(self, directory: Path, rules: Path, targets: list[str], ms: int = 500) -> None:
        self.directory = directory
        self.port = free_port()
        self._configuration = CONFIGURATION.format(
            ms=ms, rules=json.dumps(str(rules)), targets=", ".join(json.dumps(one) for one in targets)
        )
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Run it and wait until it answers."""
        binary = shutil.which("prometheus")
        if binary is None:
            raise ProcessError("Prometheus is not installed: apt-get install prometheus")
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "prometheus.yml"
        file.write_text(self._configuration)
        options = [f"--config.file={file}", f"--storage.tsdb.path={self.directory / 'data'}"]
        options += [f"--web.listen-address=127.0.0.1:{self.port}"]
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        self._process = ManagedProcess([binary, *options], self.directory / "prometheus.log", environment)
        try:
            self._process.wait_until(self._answers, "Prometheus to answer", 30)
        except BaseException:
            self.stop()
            raise

    def firing(self) -> dict[str, dict[str, str]]:
        """The alerts that fire now, with their labels, by name; one of each name."""
        alerts: list[dict[str, Any]] = self._asked("/api/v1/alerts")["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in alerts if one["state"] == "firing"}

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _asked(self, path: str) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            data: dict[str, Any] = json.loads(answer.read())["data"]
        return data

    def _answers(self) -> bool:
        try:
            self._asked("/api/v1/alerts")
        except (URLError, OSError):
            return False
        return True
