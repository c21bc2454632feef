"""``python -m tests.chaos``: the chaos run; ends with 1 where anything is not as promised."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Run
from tests.chaos.schedule import Pace


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Strike everything, and check that all is exact.")
    parser.add_argument("--seconds", type=float, default=1800, help="how long faults strike (1800)")
    parser.add_argument("--seed", type=int, help="chooses the faults; one of chance where none is given")
    parser.add_argument("--at-least", type=int, default=5, help="how often each kind of fault must strike (5)")
    parser.add_argument("--gap", type=float, default=5, help="seconds between two faults, on average (5)")
    parser.add_argument("--scale", type=float, default=1, help="the length of faults, as a multiple of the usual one")
    parser.add_argument("--directory", type=Path, help="where all data and logs go, and stay; else a temporary one")
    parser.add_argument("--only", default="", help="a regular expression of the kinds of fault that may strike")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    print(f"chaos: seed {seed}, {given.seconds:g} s", flush=True)
    directory = given.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    run = Run(
        directory,
        seed,
        given.seconds,
        given.at_least,
        Pace(given.gap, given.scale),
        lambda line: print(line, flush=True),
        given.only,
    )
    # So that all processes are ended then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcome = run.run()
    if outcome.violations:
        print(outcome.report(), f"\nAll logs are in {directory}", sep="\n")
        return 1
    print(outcome.table())
    if given.directory is None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
