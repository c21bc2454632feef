"""How a snapshot's rate holds as there is more of everything; and another change source's rate, for comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from devtools.bench.figures import Figure, Figures, Setup, medians, say, spread
from devtools.bench.places import Ours, Reading, Replayed
from devtools.bench.processors import Meter

PATIENCE = 600.0
# What takes twice as long for twice as much has an exponent of 0; less than this below it is noise.
LINEAR = -0.1


def scaling(setup: Setup) -> Figures:
    """Rows a second against documents, tables, and replicas that sync at the same time."""
    less = 1 if not setup.quick else 10
    documents = {n: (n, 1, 1) for n in (10_000 // less, 100_000 // less, 1_000_000 // less)}
    tables = {n: (100_000 // less, n, 1) for n in (1, 10, 100)}
    replicas = {n: (10_000 // less, 1, n) for n in (1, 10, 100)}
    series = {"documents": documents, "tables": tables, "replicas": replicas}
    return {f"scaling_{name}": _measured(setup, name, points) for name, points in series.items()}


def _measured(setup: Setup, name: str, points: dict[int, tuple[int, int, int]]) -> Figure:
    rates: dict[int, list[float]] = {}
    spent: dict[str, dict[str, float]] = {}
    for size, (documents, tables, replicas) in points.items():
        directory = setup.directory / f"{name}{size}"
        directory.mkdir()
        rates[size], spent[str(size)] = _rates(setup, directory, documents, tables, replicas)
        say(f"scaling: {size:,} {name}: {statistics.median(rates[size]):,.0f} rows/s")
    # Of rounds that have nothing in common but their number, so their spread is wide rather than narrow.
    exponents = [exponent({size: rates[size][n] for size in points}) for n in range(setup.rounds)]
    details = {"rows_per_second": {str(n): spread(found) for n, found in rates.items()}, "cpu_seconds": spent}
    return Figure(exponents, f"exponent of rows/s against {name}", LINEAR, details=details)


def exponent(rates: dict[int, float]) -> float:
    """Return the slope of the line of best fit on logarithmic scales: 0 where the rate stays, -1 where it is halved
    by twice as many."""
    slope, _ = statistics.linear_regression(
        [math.log(size) for size in rates], [math.log(rate) for rate in rates.values()]
    )
    return slope


def _rates(
    setup: Setup, directory: Path, documents: int, tables: int, replicas: int
) -> tuple[list[float], dict[str, float]]:
    """Return the rows a second of all replicas together in each round, and processor seconds of a round."""
    rates, spent = [], []
    with Replayed(directory, documents, tables) as mongodb, Ours(directory / "ours", mongodb.uri, tables) as ours:
        ours.serve()
        for number in range(setup.rounds + 1):
            meter = Meter(ours=ours.pids, replayed=mongodb.pids)
            options = ["--app-id", f"round{number}x", "--connections", str(replicas), "--seconds", str(PATIENCE)]
            with Reading(directory, ours.url, *options) as reading:
                counts = reading.counts(PATIENCE)
            if number:
                rates.append(_together([(c.rows, c.began, c.last) for c in counts]))
                spent.append({**meter.stop(), "reader": reading.cpu})
    return rates, medians(spent)


def _together(counts: Sequence[tuple[int, float, float]]) -> float:
    began, ended = min(one[1] for one in counts), max(one[2] for one in counts)
    return sum(one[0] for one in counts) / (ended - began)


def peer_snapshot(setup: Setup) -> Figures:
    """Rows a second of another change source's initial sync, by the same client; of whatever it serves."""
    rates, rows = [], 0
    for number in range(setup.rounds + 1):
        options = ["--app-id", f"peer{number}", "--seconds", str(PATIENCE)]
        with Reading(setup.directory, setup.peer, *options) as reading:
            (counts,) = reading.counts(PATIENCE)
        rows = counts.rows
        rate = rows / (counts.last - counts.began)
        say(f"peer_snapshot {number}: {rate:,.0f} rows/s")
        if number:
            rates.append(rate)
    return {"peer_snapshot": Figure(rates, "rows/s", details={"rows": rows})}
