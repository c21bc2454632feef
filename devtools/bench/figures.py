"""What a benchmark found: medians of rounds, with their spread, and whether they keep to a bar."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# Where so much of the processors is taken by what feeds and reads, and less of its own by what is measured, the figure
# is not about what is measured.
FULL, FREE = 0.95, 0.9


@dataclass(frozen=True)
class Setup:
    """How to measure: ``quick`` only shows that it works; ``peer`` is another change source's URL."""

    directory: Path
    rounds: int
    quick: bool = False
    peer: str = ""

    def size(self, full: int, quick: int) -> int:
        """Return how much to measure with."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One figure, of a round each; its value is their median. ``bar`` is None where there is nothing to keep to.

    ``details`` are shown beside it; ``void`` says why the figure tells nothing, if so.
    """

    rounds: Sequence[float]
    unit: str
    bar: float | None = None
    better: Literal["higher", "lower"] = "higher"
    details: dict[str, Any] = field(default_factory=dict)
    void: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    @property
    def ok(self) -> bool:
        """Whether it keeps to the bar; what is void does not."""
        if self.void:
            return False
        if self.bar is None:
            return True
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Return it for latest.json."""
        shown: dict[str, Any] = {
            "value": _short(self.value),
            "bar": self.bar,
            "ok": self.ok,
            "unit": self.unit,
            "better": self.better,
            "low": _short(min(self.rounds)),
            "high": _short(max(self.rounds)),
            "rounds": len(self.rounds),
        }
        if self.void:
            shown["void"] = self.void
        return {**shown, "details": self.details} if self.details else shown


Figures = dict[str, Figure]
Case = Callable[[Setup], Figures]


def _short(value: float) -> float:
    """Return the value with four digits that count."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest, for ``details``."""
    return {"median": _short(statistics.median(values)), "low": _short(min(values)), "high": _short(max(values))}


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each of the values that all rounds have, such as processor seconds."""
    return {name: _short(statistics.median(one[name] for one in rounds)) for name in rounds[0]}


def bottleneck(cpu: dict[str, float], measured: str, seconds: float, cores: int) -> str:
    """Return why a round is void: what feeds and reads ``measured`` had no processor left. "" where it is not."""
    others = sum(spent for name, spent in cpu.items() if name != measured)
    if others > FULL * cores * seconds and cpu[measured] < FREE * seconds:
        return f"what feeds and reads took {others:.1f} s of {seconds * cores:.1f} s, {measured} {cpu[measured]:.1f} s"
    return ""


def lagged(spent: float, seconds: float) -> str:
    """Return why a round is void: the generator, one thread, was no faster than what it was to outrun. Else ""."""
    return f"the generator took {spent:.1f} s of a processor in {seconds:.1f} s" if spent >= FREE * seconds else ""


def say(text: str) -> None:
    """One line of progress."""
    print(f"[bench] {text}", file=sys.stderr, flush=True)
