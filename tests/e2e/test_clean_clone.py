"""The README's first steps, as written: a clean clone, ``make run``, ``make zero``, and a write that arrives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from pymongo import MongoClient

from devtools.node import PROJECT
from devtools.processes import ManagedProcess, free_port
from tests.harness.environment import newcomers_environment

pytestmark = pytest.mark.slow
# Packages are downloaded and installed.
MINUTES = 60.0


class Make(Protocol):
    """See the fixture ``make``."""

    def __call__(self, target: str, **settings: str) -> ManagedProcess: ...


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Runs a target in a clone of what is committed, under this environment without any setting of the project's."""
    clone = tmp_path / "zerosource"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(clone)], check=True)
    outside = newcomers_environment()
    with ExitStack() as stack:

        def run(target: str, **settings: str) -> ManagedProcess:
            log = tmp_path / f"{target}.log"
            process = ManagedProcess(["make", target], log, {**outside, **settings}, cwd=clone)
            stack.callback(process.kill)
            return process

        yield run


def test_make_run_then_make_zero(make: Make) -> None:
    """The sample data is in the replica, a write arrives, and Ctrl-C ends both in order."""
    port, zero_port = free_port(), free_port(span=2)
    served = make("run", PORT=str(port))
    served.wait_until(lambda: "watching" in served.log_text(), "make run to serve", 5 * MINUTES)
    said = served.log_text()
    assert len(re.findall(r"Admin user 'admin' with password '\S+' \(shown this once\)", said)) == 1
    for place in (f"http://localhost:{port}/admin/", f"ws://localhost:{port}/changes/v0/stream"):
        assert place in said
    stream = f"ws://localhost:{port}/changes/v0/stream"
    zero = make("zero", ZERO_UPSTREAM_DB=stream, ZERO_PORT=str(zero_port))
    with MongoClient[Any](re.findall(r"mongodb://\S+", said)[0]) as client:
        messages = client["test"]["messages"]
        zero.wait_until(lambda: "message: " in zero.log_text(), "the sample data", 5 * MINUTES)
        rows = re.findall(r"\[zero\]   (\w+): (\d+) rows", zero.log_text())
        assert {"user", "chat", "channel", "group", "message", "account"} <= {table for table, _ in rows}
        assert all(int(number) > 0 for _, number in rows), rows
        hello = {"roomId": "general", "authorId": "ada", "text": "Hello, clean clone", "sentAt": datetime.now(UTC)}
        messages.insert_one(hello)
        zero.wait_until(lambda: "Hello, clean clone" in zero.log_text(), "the write", MINUTES)
    for process, last in ((zero, "stopped; `make zero` goes on where it ended"), (served, "")):
        for pid in process.pids():
            if pid != process.pid:
                # The first to be told ends others of its tree, before this gets to them.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        process.wait(30)
        assert last in process.log_text()
    assert "Traceback" not in served.log_text() + zero.log_text()
