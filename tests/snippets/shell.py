"""Runs a page's commands one by one, as a reader types them: in one folder, with variables that last."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devtools.processes import ManagedProcess, ProcessError

TIMEOUT = 120.0
SLOW_TIMEOUT = 1800.0
# Restores what the commands before have set, but for what bash lets nobody set.
BEFORE = """source state/variables 2>/dev/null; cd "$(cat state/folder)" || exit 1
"""
AFTER = """
snippet_status=$?
{ declare -p | sed -E '/^declare -[aAilntux]*r/d'; declare -f; } >"$SNIPPET_STATE/variables"
pwd >"$SNIPPET_STATE/folder"
exit $snippet_status
"""
SERVES = re.compile(r"(?:^|\s)(?P<what>manage\.py serve|manage\.py runwatcher|daphne|zero-cache)(?=\s|$)|&$")
PORT_OPTION = re.compile(r"(?:-p|--port)[ =](\d+)")


@dataclass(frozen=True)
class Command:
    """One command of a block, and its line in the page."""

    text: str
    line: int


def commands(text: str, line: int) -> Iterator[Command]:
    """The commands of a block whose first line is ``line``; one goes on as long as bash wants more of it."""
    lines: list[str] = []
    begins = line
    for number, one in enumerate(text.splitlines(), line):
        if not lines and (not one.strip() or one.lstrip().startswith("#")):
            continue
        begins = begins if lines else number
        lines.append(one)
        whole = "\n".join(lines)
        if not one.endswith("\\") and _is_whole(whole):
            yield Command(whole, begins)
            lines = []
    assert not lines, f"line {begins}: the command has no end"


def _is_whole(text: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "here-document" not in done.stderr


@dataclass
class Ran:
    """What a command wrote; a running one goes on writing."""

    text: str
    process: ManagedProcess | None = None

    def said(self) -> str:
        """All it wrote so far."""
        return self.process.log_text() if self.process else self.text


class Shell:
    """A reader's shell in ``folder``, with ``environment``; ``state`` keeps what lasts between commands."""

    def __init__(self, folder: Path, state: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.state = state
        self.environment = {**environment, "SNIPPET_STATE": str(state)}
        state.mkdir()
        (state / "variables").touch()
        (state / "folder").write_text(str(folder))
        self._serving: dict[str, ManagedProcess] = {}

    def run(self, text: str, timeout: float = TIMEOUT) -> Ran:
        """Run a command to its end, or, where it serves, until it is ready.

        Raises ``ProcessError`` where it fails, and of a time that is over ``TimeoutError`` or ``TimeoutExpired``.
        """
        if what := serves(text):
            return self._serve(text, what)
        done = subprocess.run(
            ["bash", "-c", BEFORE.replace("state/", f"{self.state}/") + text + AFTER],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = done.stdout + done.stderr
        if done.returncode:
            raise ProcessError(f"ended with {done.returncode}: {said.strip()[-1500:]}")
        return Ran(said)

    def has_server(self) -> bool:
        """Whether the page has started ``serve`` or ``daphne``."""
        return "server" in self._serving

    def variable(self, name: str) -> str:
        """What a variable holds at this moment."""
        return self.run(f'echo "${{{name}}}"').text.strip()

    def _serve(self, text: str, what: str) -> Ran:
        """Have the process take the shell's place, so that it is the one that signals go to."""
        place = "server" if what in ("manage.py serve", "daphne") else what if what != "&" else text
        self.stop(place)
        command = text.partition(" #")[0].rstrip().removesuffix("&")
        log = self.state / f"serving-{len(list(self.state.iterdir()))}.log"
        script = BEFORE.replace("state/", f"{self.state}/") + f"exec env {command}"
        process = ManagedProcess(["bash", "-c", script], log, self.environment, cwd=self.folder)
        self._serving[place] = process
        if what in ("manage.py serve", "daphne"):
            port = PORT_OPTION.search(command)
            url = f"http://127.0.0.1:{port[1] if port else self.variable('PORT')}/healthz"
            process.wait_until(lambda: answers(url), url, 60)
        elif what == "zero-cache":
            url = f"http://127.0.0.1:{self.variable('ZERO_PORT')}/keepalive"
            process.wait_until(lambda: answers(url), url, 60)
        else:
            process.wait_until(lambda: process.log.stat().st_size > 0, "its first line", 60)
        return Ran("", process)

    def stop(self, place: str) -> None:
        """Have a process end by SIGTERM, in order. Raises ``ProcessError`` where it does not."""
        process = self._serving.pop(place, None)
        if process is None:
            return
        code = process.stop()
        # zero-cache, node and others that take no care of it end by the signal itself.
        ours = "manage.py" in place or place == "server"
        if code not in ((0,) if ours else (0, -15, 143)) or "Traceback" in process.log_text():
            raise ProcessError(f"{place} ended with {code} at SIGTERM. {process.log_tail()}")

    def close(self) -> list[str]:
        """End all that runs; return what was wrong with that."""
        faults = []
        for place in list(self._serving):
            try:
                self.stop(place)
            except ProcessError as error:
                faults.append(str(error))
        return faults


def serves(text: str) -> str:
    """What a command serves by, such as ``manage.py serve``; "&" where it only says so; "" where it ends by itself."""
    found = SERVES.search(text.partition(" #")[0].rstrip())
    if found is None or "--help" in text or "kubectl" in text:
        return ""
    return found["what"] or "&"


def answers(url: str) -> bool:
    """Whether a page says 200."""
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def first_words(text: str) -> str:
    """What a test that runs a command must name: its first two words, without what is set before it.

    Of ``python manage.py`` it is the command of manage.py.
    """
    words = shlex.split(text, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    if words[1:2] == ["manage.py"]:
        return words[2]
    return " ".join(words[:2])
