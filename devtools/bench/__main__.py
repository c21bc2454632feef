"""``make bench``: zerosource against ceilings, all in one run, into docs/benchmarks/latest.*."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from devtools import node
from devtools.bench import report
from devtools.bench.cases import latency, replicas, scaling, source, zero_cache
from devtools.bench.figures import Case, Setup, say

RESULTS = node.PROJECT / "docs" / "benchmarks"
CASES: dict[str, Case] = {
    "snapshot_source": source.snapshot_source,
    "live_source": source.live_source,
    "snapshot_zero_cache": zero_cache.snapshot_zero_cache,
    "live_zero_cache": zero_cache.live_zero_cache,
    "live_secantus": zero_cache.live_secantus,
    "latency": latency.latency,
    "fifty_replicas": replicas.fifty_replicas,
    "idle": replicas.idle,
    "scaling": scaling.scaling,
    "peer_snapshot": scaling.peer_snapshot,
}
ROUNDS = 5


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m devtools.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(CASES), help="may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"after one that warms up (default {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--peer", metavar="URL", default="", help="ws://... of another change source to read from")
    parser.add_argument("--output", type=Path, help="instead of docs/benchmarks, where only whole runs are kept")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if chosen.output is None and not chosen.quick and not chosen.only:
        chosen.output = RESULTS
    elif chosen.output is not None and chosen.quick and chosen.output.resolve() == RESULTS:
        parser.error("--quick is never kept in docs/benchmarks")
    return chosen


def measure(name: str, chosen: argparse.Namespace) -> report.Report:
    """Run one case; one that fails is told of, and the others go on."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
        setup = Setup(Path(directory), chosen.rounds, chosen.quick, chosen.peer)
        try:
            return {figure: found.as_json() for figure, found in CASES[name](setup).items()}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this case's
            say(f"{name} failed: {error!r}")
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            return {name: {"value": None, "bar": None, "ok": False, "error": problem}}


def main() -> None:
    """Measure, print the table, keep it; exit code 1 where something could not be measured."""
    chosen = options()
    # So that everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    node.install()
    names = chosen.only or [name for name in CASES if name != "peer_snapshot" or chosen.peer]
    found: report.Report = {"machine": report.machine()}
    for name in names:
        say(f"{name} ...")
        found |= measure(name, chosen)
    print(report.markdown(found))
    if chosen.output is not None:
        report.write(found, chosen.output)
        say(f"written to {chosen.output}")
    sys.exit(any("error" in one for one in found.values()))


if __name__ == "__main__":
    main()
