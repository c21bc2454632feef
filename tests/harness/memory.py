"""How much memory a process takes while something goes on, and whether it goes on growing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from devtools.processes import rss_bytes

MIB = 1024 * 1024
INTERVAL = 0.1
Samples = Sequence[tuple[float, int]]


def drift(samples: Samples) -> float:
    """Return by how many bytes the last two thirds of ``samples`` (seconds, bytes) grow, along their line of best fit.

    The first third is left out: there, queues fill up to their bounds. Fewer than two samples have no line: 0.
    """
    if not samples:
        return 0.0
    began, ended = samples[0][0], samples[-1][0]
    kept = [(at, size) for at, size in samples if at >= began + (ended - began) / 3]
    middle = sum(at for at, _ in kept) / len(kept)
    mean = sum(size for _, size in kept) / len(kept)
    spread = sum((at - middle) ** 2 for at, _ in kept)
    if not spread:
        return 0.0
    slope = sum((at - middle) * (size - mean) for at, size in kept) / spread
    return slope * (kept[-1][0] - kept[0][0])


@dataclass
class Phase:
    """A part of a run: ``growth`` is from the idle value to the highest one, ``drift`` as the function; in bytes.

    A ``steady`` one should not grow on, once it is under way.
    """

    name: str
    steady: bool
    seconds: float
    idle: int
    peak: int
    drift: float

    @property
    def growth(self) -> int:
        """The highest value over the idle one."""
        return self.peak - self.idle

    def __str__(self) -> str:
        idle, peak = self.idle / MIB, self.peak / MIB
        figures = f"idle {idle:.1f}, peak {peak:.1f}, growth {peak - idle:.1f}, drift {self.drift / MIB:+.1f} MiB"
        return f"{self.name}: {figures} in {self.seconds:.0f} s"


class Memory:
    """Samples the resident memory of a process; ``idle`` is what it took at the start of the ``with`` block."""

    def __init__(self, pid: int) -> None:
        self.idle = 0
        self.phases: list[Phase] = []
        self._pid = pid
        self._samples: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self.idle = rss_bytes(self._pid)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def phase(self, name: str, *, steady: bool = True) -> Iterator[None]:
        """What is done within becomes one of ``phases``."""
        began = time.monotonic()
        first = len(self._samples)
        yield
        samples = [*self._samples[first:], (time.monotonic(), rss_bytes(self._pid))]
        peak = max(size for _, size in samples)
        self.phases.append(Phase(name, steady, time.monotonic() - began, self.idle, peak, drift(samples)))

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self._samples.append((time.monotonic(), rss_bytes(self._pid)))
            except OSError:  # the process has ended, of which the test will hear otherwise
                return
