"""Process trees are found whole and end whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.processes import ManagedProcess, ProcessError, alive, free_port, port_is_free, wait_until

ENVIRONMENT = {"PATH": os.environ["PATH"]}

# A parent with a child in a session of its own, which ignores SIGTERM, and whose own parent ends at once.
TREE = """
(setsid sh -c 'trap "" TERM; echo orphan $$; while :; do sleep 1; done' &)
sh -c 'echo child $$; while :; do sleep 1; done' &
wait
"""


def start_tree(tmp_path: Path) -> tuple[ManagedProcess, set[int]]:
    process = ManagedProcess(["sh", "-c", TREE], tmp_path / "log", ENVIRONMENT)
    process.wait_until(lambda: len(process.log_text().splitlines()) == 2, "both children")
    return process, {process.pid, *(int(line.split()[1]) for line in process.log_text().splitlines())}


def test_tree_holds_orphans_and_other_sessions(tmp_path):
    process, pids = start_tree(tmp_path)
    try:
        assert process.pids() >= pids
        assert alive(pids) == pids
    finally:
        process.kill()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_end_leaves_nothing(tmp_path, end):
    process, pids = start_tree(tmp_path)
    assert (process.kill() if end == "kill" else process.stop(grace=0.2)) < 0
    assert alive(pids) == set()
    assert process.pids() == set()


def test_tree_is_found_when_its_root_has_died(tmp_path):
    process, pids = start_tree(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert process.pids() >= pids - {process.pid}
    process.kill()
    assert alive(pids) == set()


def test_zombies_are_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_until(lambda: not alive({child.pid}), "the child to end")
    assert Path(f"/proc/{child.pid}").exists()
    child.wait()


def test_early_end_is_told_with_the_log(tmp_path):
    process = ManagedProcess(["sh", "-c", "echo out of paper; exit 3"], tmp_path / "log", ENVIRONMENT)
    with pytest.raises(ProcessError, match=r"(?s)ended \(3\).*out of paper"):
        process.wait_until(lambda: False, "the impossible")
    process.kill()


def test_free_ports_are_in_a_row_and_given_once():
    first, second = free_port(span=2), free_port(span=2)
    assert not {first, first + 1} & {second, second + 1}
    assert port_is_free(first)
    assert port_is_free(first + 1)
