"""Many replicas on one server: what they cost while changes come, and while none do."""

from __future__ import annotations

import time

from devtools.bench.figures import Figure, Figures, Setup, say, spread
from devtools.bench.places import Ours, Reading, Replayed
from devtools.bench.processors import Meter

DOCUMENTS = 1000
RATE, BY = 500, 10
REPLICAS, IDLE_REPLICAS = 50, 10
SYNC_SECONDS = 120.0


def _loaded(setup: Setup, ours: Ours, mongodb: Replayed, replicas: int, name: str) -> tuple[float, int, float, str]:
    """Return the share of a core that the server takes, change streams open, the readers' share, and why it is void."""
    seconds = setup.size(10, 3)
    # The readers end by themselves, when each has all of the changes.
    options = ["--app-id", name, "--connections", str(replicas), "--follow", "--rows", str(RATE * seconds)]
    with Reading(setup.directory, ours.url, *options) as reading:
        reading.wait_following(SYNC_SECONDS)
        mongodb.settle()
        meter = Meter(ours=ours.pids, readers=reading.pids)
        mongodb.ask(pace={"rate": RATE, "by": BY, "seconds": seconds})
        time.sleep(seconds / 2)
        streams = int(mongodb.ask()["streams"])
        time.sleep(seconds / 2)
        cpu = meter.stop()
        counts = reading.counts(SYNC_SECONDS)
    late = max(count.last for count in counts) - meter.ended
    missing = [count for count in counts if count.rows != RATE * seconds]
    void = f"{len(missing)} replicas lack changes" if missing else f"{late:.1f} s late" if late > 1 else ""
    return cpu["ours"] / meter.seconds, streams, cpu["readers"] / meter.seconds, void


def fifty_replicas(setup: Setup) -> Figures:
    """What fifty replicas take of a core at 500 changes a second, ten a transaction, and by one replica's."""
    shares, ratios, alone, opened, readers, void = [], [], [], [], [], ""
    with Replayed(setup.directory, DOCUMENTS) as mongodb, Ours(setup.directory / "ours", mongodb.uri) as ours:
        ours.serve()
        for number in range(setup.rounds + 1):
            one, *_ = _loaded(setup, ours, mongodb, 1, f"one{number}")
            share, streams, reader, problem = _loaded(setup, ours, mongodb, REPLICAS, f"many{number}x")
            say(f"fifty_replicas {number}: {share:.1%} of a core, one {one:.1%}, change streams {streams} {problem}")
            if number:
                void = void or problem
                shares.append(100 * share)
                alone.append(100 * one)
                readers.append(100 * reader)
                ratios.append(share / one)
                opened.append(float(streams))
    details = {"one_replica_percent": spread(alone), "readers_percent": spread(readers)}
    return {
        "fifty_replicas_cpu": Figure(shares, "% of a core", 80.0, "lower", details, void),
        "fifty_replicas_by_one": Figure(ratios, "times one replica", 10.0, "lower", void=void),
        "fifty_replicas_streams": Figure(opened, "change streams", 1.0, "lower", void=void),
    }


def idle(setup: Setup) -> Figures:
    """What ten replicas take while nothing happens, and how long a start takes."""
    seconds = setup.size(20, 5)
    shares, commands, starts = [], [], []
    with Replayed(setup.directory, DOCUMENTS) as mongodb:
        for number in range(setup.rounds + 1):
            with Ours(setup.directory / f"ours{number}", mongodb.uri) as ours:
                ours.serve()
                ours.close()
                began = time.monotonic()
                ours.serve()
                start = time.monotonic() - began
                options = ["--connections", str(IDLE_REPLICAS), "--follow", "--seconds", "600"]
                with Reading(setup.directory, ours.url, *options) as reading:
                    reading.wait_following(SYNC_SECONDS)
                    mongodb.settle()
                    before = mongodb.commands()
                    meter = Meter(ours=ours.pids)
                    time.sleep(seconds)
                    share = meter.stop()["ours"] / meter.seconds
                    sent = (mongodb.commands() - before) / meter.seconds
            say(f"idle {number}: {share:.2%} of a core, {sent:.2f} commands/s, ready after {start:.1f} s")
            if number:
                shares.append(100 * share)
                commands.append(sent)
                starts.append(start)
    return {
        "idle_cpu": Figure(shares, "% of a core", 2.0, "lower"),
        "idle_commands": Figure(commands, "MongoDB commands/s", 3.0, "lower"),
        "cold_start": Figure(starts, "s to /readyz", None, "lower"),
    }
