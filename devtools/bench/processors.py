"""On which processors a process runs, and how much of them it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from devtools.processes import PROC

TICK = os.sysconf("SC_CLK_TCK")
ALL = sorted(os.sched_getaffinity(0))
# What is measured has one for itself; what feeds and reads it shares the others.
MEASURED = {ALL[0]}
OTHERS = set(ALL[1:]) or MEASURED
ANY = set(ALL)


@contextmanager
def pinned(cores: Set[int]) -> Iterator[None]:
    """Processes that are started within run on these cores only, with all their descendants."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pids: Set[int]) -> float:
    """Return the processor time of living processes, with that of children that have ended, in seconds."""
    total = 0
    for pid in pids:
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended; its parent has its time
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICK


class Meter:
    """The processor time that named process trees take while something goes on."""

    def __init__(self, **trees: Callable[[], set[int]]) -> None:
        """Each tree is given by what returns its processes now. The clock starts here."""
        self._trees = trees
        self.seconds = self.ended = 0.0
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._before = {name: cpu_seconds(pids()) for name, pids in self._trees.items()}
        self._began = time.monotonic()

    def stop(self) -> dict[str, float]:
        """Return each tree's processor seconds since the start; ``seconds`` and ``ended`` (monotonic) tell when."""
        self.ended = time.monotonic()
        self.seconds = self.ended - self._began
        return {name: round(cpu_seconds(pids()) - self._before[name], 3) for name, pids in self._trees.items()}
