"""``make check-fresh``: a newcomer's path, by the README's own commands, in a Debian that has only what it asks for.

HEAD is cloned there by a user who cannot become root. Where a command names Debian packages that are missing, root
installs them and the user repeats it, as they are told to. Environment: ``TESTS`` (what ``make test`` is to run; all
of it by default), ``AS_ROOT`` (1: root follows the path, and is asked for nothing).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devtools.debian import Machine
from devtools.node import PROJECT
from devtools.processes import ManagedProcess, ProcessError, free_port, port_is_free, wait_until

# What the README asks for, and what fetches the project.
PACKAGES = ("make", "python3", "git")
CLONE = "~/zerosource"
MISSING = re.compile(r"Please install these packages, then repeat the command: (.+) \(")
PASSWORD = re.compile(r"Admin user 'admin' with password '\S+'")
ADDRESS = re.compile(r"mongodb://([\w.:]+)")
PLACEHOLDER = "127.0.0.1:PORT"
WRITTEN = re.compile(r'^\[zero\]   message \{.*"Hello"', re.M)
COUNTED = re.compile(r"^\[zero\]   message: (\d+) rows", re.M)
GOES_ON = "stopped; `make zero` goes on where it ended"
# Downloads included, on a busy machine.
STEP_SECONDS = 900.0
TEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Steps:
    """The README's commands, as they are written there; ``write`` has a placeholder for the address of MongoDB."""

    run: str
    zero: str
    write: str
    test: str


def read_steps(readme: str) -> Steps:
    """Return the commands of "Try it"; ``ProcessError`` where they do not stand there in this form."""
    section = readme.partition("\n## Try it\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    commands = [line.partition("#")[0].strip() for line in blocks[0].splitlines()] if blocks else []
    writes = [block for block in blocks[1:] if PLACEHOLDER in block]
    tests = re.findall(r"^`(make [\w-]+)` sets up what tests need", section, re.M)
    if (len(commands), len(writes), len(tests)) != (2, 1, 1):
        raise ProcessError('README.md, "Try it": expected two commands, a write to MongoDB, and how to run the tests.')
    return Steps(*commands, *writes, *tests)


@dataclass(frozen=True)
class Places:
    """Where things listen: as the README says, unless that is taken here; ``settings`` say so then."""

    port: int
    settings: dict[str, str]


def choose_places() -> Places:
    """The network is shared with everything on this machine, so the usual ports may be in use."""
    if all(map(port_is_free, (3000, 4848, 4849))):
        return Places(3000, {})
    port = free_port()
    upstream = f"ws://localhost:{port}/changes/v0/stream"
    settings = {"PORT": str(port), "ZERO_UPSTREAM_DB": upstream, "ZERO_PORT": str(free_port(span=2))}
    print(f"[fresh] a usual port is in use, so: {settings}", flush=True)
    return Places(port, settings)


class Newcomer:
    """Follows the README as ``user``; ``timed`` is what was done, with the seconds that it took."""

    def __init__(self, machine: Machine, logs: Path, user: str) -> None:
        self.machine = machine
        self.logs = logs
        self.user = user
        self.steps = read_steps((PROJECT / "README.md").read_text())
        self.places = Places(3000, {})
        self.timed: list[tuple[str, float]] = []

    def follow(self, tests: str) -> None:
        """Do all of it; ``ProcessError`` or ``TimeoutError`` where something is not as the README says."""
        with self.step("a minimal Debian with " + ", ".join(PACKAGES)):
            self.machine.build()
        with self.step("git clone"):
            self.clone()
        self.places = choose_places()
        rows = self.try_it("")
        again = self.try_it(", again")
        if again != rows + 1:
            raise ProcessError(f"{rows} messages and one that was written are {again} after both were started again.")
        with self.step(" ".join([self.steps.test, *(["TESTS=" + tests] if tests else [])])):
            log = self.to_end(self.steps.test, {"TESTS": tests} if tests else {})
        print("\n".join(log.splitlines()[-1:]), flush=True)
        with self.step("git status shows nothing"):
            self.to_end('git status --porcelain; test -z "$(git status --porcelain)"', {})

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is done, and keep how long it took."""
        print(f"[fresh] {what} ...", flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            self.timed.append((what, time.monotonic() - started))

    def clone(self) -> None:
        """What is committed, and nothing else of this folder, comes as a bundle."""
        home = self.machine.home(self.user)
        bundle = home / "zerosource.bundle"
        subprocess.run(["git", "-C", str(PROJECT), "bundle", "create", "--quiet", str(bundle), "HEAD"], check=True)
        self.to_end(f"git clone --quiet zerosource.bundle {CLONE}", {}, folder="~")

    def try_it(self, again: str) -> int:
        """Both terminals, a write, and Ctrl-C in both; return how many messages there were before the write."""
        with ExitStack() as stack:
            with self.step(f"{self.steps.run}, until it serves{again}"):
                served = self.begin(stack, self.steps.run, self.answers)
            address = ADDRESS.findall(served.log_text())[0]
            if bool(PASSWORD.search(served.log_text())) == bool(again):
                raise ProcessError(f"The admin's password is to be shown at the first start alone. {served.log_tail()}")
            with self.step(f"{self.steps.zero}, until rows arrive{again}"):
                zero = self.begin(stack, self.steps.zero, COUNTED.search)
            rows = int(COUNTED.findall(zero.log_text())[0])
            with self.step(f"a write arrives{again}"):
                self.to_end(self.steps.write.replace(PLACEHOLDER, address), {})
                zero.wait_until(lambda: WRITTEN.search(zero.log_text()), "the row that was written", 60)
            with self.step(f"Ctrl-C in both{again}"):
                for process in (zero, served):
                    os.killpg(process.pid, signal.SIGINT)
                    process.wait(60)
            if GOES_ON not in zero.log_text() or "Traceback" in zero.log_text() + served.log_text():
                raise ProcessError(f"They did not end in order. {zero.log_tail()}\n{served.log_tail()}")
            if again and "initial sync begins" in served.log_text():
                raise ProcessError(f"The replica synced anew instead of going on. {served.log_tail()}")
        return rows

    def answers(self, log: str) -> bool:
        """Whether it watches MongoDB, and shows the page for logging in."""
        if "watching" not in log:
            return False
        try:
            with urlopen(f"http://localhost:{self.places.port}/admin/", timeout=10) as page:
                return b"Log in" in page.read()
        except (URLError, OSError):
            return False

    def begin(self, stack: ExitStack, command: str, done: Callable[[str], object]) -> ManagedProcess:
        """Start a command that goes on until it is told to end, and wait until its log is ``done``."""
        for process in self.tries(command, self.places.settings, CLONE):
            stack.callback(process.kill)
            if reached(process, done):
                return process
        raise AssertionError("unreachable")

    def to_end(self, command: str, settings: dict[str, str], folder: str = CLONE) -> str:
        """Run a command that must end well; return what it said."""
        for process in self.tries(command, settings, folder):
            try:
                if process.wait(TEST_SECONDS) == 0:
                    return process.log_text()
            finally:
                process.kill()
        raise AssertionError("unreachable")

    def tries(self, command: str, settings: dict[str, str], folder: str) -> Iterator[ManagedProcess]:
        """Start the command again as long as it ends with the names of packages, which root installs before.

        ``ProcessError`` where it ends otherwise.
        """
        while True:
            number = len(list(self.logs.iterdir()))
            log = self.logs / f"{number:02}-{'-'.join(re.findall(r'[a-z]+', command)[:3])}.log"
            process = self.machine.start(command, log, self.user, settings, folder)
            yield process
            missing = MISSING.findall(process.log_text())
            if not missing or self.user == "root":
                raise ProcessError(f"{command!r} ended with {process.exit_code}. {process.log_tail(40)}")
            print(f"[fresh]   it names {missing[0]}, which root installs now", flush=True)
            self.machine.install(shlex.split(missing[0]))


def reached(process: ManagedProcess, done: Callable[[str], object]) -> bool:
    """Wait until a process's log is ``done``; False where the process ends before."""
    what = f"{process.args[-1]!r} to get there"
    wait_until(
        lambda: process.exit_code is not None or done(process.log_text()), what, STEP_SECONDS, 0.2, process.log_tail
    )
    return process.exit_code is None


def main() -> int:
    """Follow the path, and say how long each step took; what was said is kept where it failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A script's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid():
        print("Only root can make a Debian in a folder: repeat this as root.", file=sys.stderr)
        return 1
    logs = Path(tempfile.mkdtemp(prefix="check-fresh-logs-"))
    folder = Path(tempfile.mkdtemp(prefix="check-fresh-"))
    # The folder is for root alone, which the Debian's own root folder may not be.
    user = "root" if os.environ.get("AS_ROOT") else Machine.USER
    newcomer = Newcomer(Machine(folder / "debian", logs / "00-debian.log", PACKAGES), logs, user)
    try:
        newcomer.follow(os.environ.get("TESTS", ""))
    except (ProcessError, TimeoutError) as error:
        print(f"[fresh] {error}\n[fresh] All that was said is in {logs}", file=sys.stderr)
        return 1
    finally:
        # Nothing is left, however often it is told to end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for what, seconds in newcomer.timed:
            print(f"[fresh] {seconds:7.1f} s  {what}", flush=True)
        shutil.rmtree(folder)
    shutil.rmtree(logs)
    print("[fresh] all is as the README says", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
