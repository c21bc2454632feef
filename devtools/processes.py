"""Start processes, wait for what they do, and end whole process trees.

Every process started here carries a mark in its environment, which its descendants inherit. So a tree is found
complete even where its parents have died or its members lead process groups of their own (as zero-cache's do).
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

MARK = "ZEROSOURCE_PROCESS_TREE"
PROC = Path("/proc")
_handed_out: set[int] = set()


class ProcessError(Exception):
    """A process did not start, ended too early, or would not end."""


def free_port(span: int = 1) -> int:
    """The first of ``span`` TCP ports in a row that are free on loopback; the same one is never given twice.

    They lie below the range that the kernel gives to outgoing connections, so none of those takes one in between.
    """
    for _ in range(1000):
        first = random.randrange(10_000, 32_000 - span)  # noqa: S311
        ports = set(range(first, first + span))
        if not ports & _handed_out and all(port_is_free(port) for port in ports):
            _handed_out.update(ports)
            return first
    raise ProcessError(f"Found no {span} free ports in a row.")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this TCP port of 127.0.0.1."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def port_answers(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there, within a second."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(
    condition: Callable[[], T], what: str, timeout: float = 30, interval: float = 0.05, detail: Callable[[], str] = str
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    ``what`` completes the sentence "Waited N s for ..." of the ``TimeoutError``; ``detail`` is called for what is
    worth seeing in it, such as the end of a log.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:g} s for {what}. {detail()}".rstrip())
        time.sleep(interval)


def process_tree(root: int, mark: str = "") -> set[int]:
    """The living processes that descend from ``root`` or carry ``mark``; ``root`` itself is among them."""
    parents = _living()
    tree = {root} & parents.keys()
    if mark:
        tree |= {pid for pid in parents if _carries(pid, mark)}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def alive(pids: Iterable[int]) -> set[int]:
    """Those of ``pids`` that still live; a zombie, which only waits to be asked for its exit code, does not."""
    return set(pids) & _living().keys()


def _living() -> dict[int, int]:
    """Every living process of this machine, with its parent."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it may end while it is being read
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                # A process is a zombie once its first thread has ended; until all have, it keeps its ports.
                if state != "Z" or len(os.listdir(entry / "task")) > 1:
                    parents[int(entry.name)] = int(parent)
    return parents


def _carries(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}\0".encode() in (PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or another user's
        return False


def rss_bytes(pid: int) -> int:
    """The resident memory of one process."""
    pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class ManagedProcess:
    """A running command whose output goes to ``log`` (appended), in a session of its own.

    ``env`` is its whole environment (the mark is added).
    """

    def __init__(
        self,
        args: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        pipes: bool = False,
    ) -> None:
        """With ``pipes``, stdin and stdout are pipes (text) and only stderr goes to the log."""
        self.args = [str(arg) for arg in args]
        self.log = log
        self.mark = secrets.token_hex(8)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.args,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else output,
                stderr=output,
                env={**env, MARK: self.mark},
                cwd=cwd,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def stdin(self) -> IO[str]:
        """The pipe into the process; only with ``pipes``."""
        if self._popen.stdin is None:
            raise ProcessError(f"{self.args[0]} was started without pipes.")
        return self._popen.stdin

    @property
    def stdout(self) -> IO[str]:
        """The pipe out of the process; only with ``pipes``."""
        if self._popen.stdout is None:
            raise ProcessError(f"{self.args[0]} was started without pipes.")
        return self._popen.stdout

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._popen.poll()

    @property
    def rss(self) -> int:
        """Its resident memory in bytes, without its children's."""
        return rss_bytes(self.pid)

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        return process_tree(self.pid, self.mark)

    def log_text(self) -> str:
        """All it wrote so far."""
        return self.log.read_text(errors="replace")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for error messages."""
        return "The log ends:\n" + "\n".join(self.log_text().splitlines()[-lines:])

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code; ``TimeoutError`` when it does not come."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError(f"{self.args[0]} (pid {self.pid}) still runs. {self.log_tail()}") from exc

    def wait_until(self, condition: Callable[[], T], what: str, timeout: float = 30) -> T:
        """As the function of this name, but fails at once when the process ends."""

        def running_or_done() -> T:
            result = condition()
            if not result and self.exit_code is not None:
                raise ProcessError(f"{self.args[0]} ended ({self.exit_code}); waited for {what}. {self.log_tail()}")
            return result

        return wait_until(running_or_done, what, timeout, detail=self.log_tail)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        self._popen.send_signal(number)

    def stop(self, grace: float = 10) -> int:
        """SIGTERM, then after ``grace`` seconds SIGKILL to all that is left of the tree; returns the exit code."""
        members = self.pids()
        self._popen.terminate()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self._popen.poll() is not None and not alive(members), "its end", grace)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the whole tree; returns the exit code when every process of it is gone."""
        members: set[int] = set()

        def gone() -> bool:
            # Again and again: a member may have forked while the tree was read, and one that is half gone can
            # no longer be told to belong to it.
            members.update(self.pids())
            left = alive(members)
            # The root first, or it may end by itself as its children do, and with another exit code.
            for pid in sorted(left, key=lambda pid: pid != self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return self._popen.poll() is not None and not left

        wait_until(gone, f"the end of {self.args[0]}", 10, interval=0.02, detail=lambda: f"Left: {alive(members)}")
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return self._popen.wait()
