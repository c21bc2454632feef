"""Our process alone: fed at the speed of memory, read by a client that only counts."""

from __future__ import annotations

import time

from devtools.bench import processors
from devtools.bench.figures import Figure, Figures, Setup, bottleneck, medians, say, spread
from devtools.bench.places import Ours, Reading, Replayed, bare_rate
from devtools.bench.processors import Meter
from devtools.bench.reading import Counts
from devtools.processes import wait_until

PATIENCE = 300.0
QUIET_SECONDS = 1.0


def rows_per_second(counts: Counts) -> float:
    """Return the rate from the connection's opening on."""
    return counts.rows / (counts.last - counts.began)


def snapshot_source(setup: Setup) -> Figures:
    """Rows a second of a snapshot out of one process, by what ``bson.decode_all`` alone takes for its documents."""
    documents = setup.size(300_000, 20_000)
    ratios, rates, decoded, spent, void = [], [], [], [], ""
    with Replayed(setup.directory, documents) as mongodb, Ours(setup.directory / "ours", mongodb.uri) as ours:
        ours.serve()
        for number in range(setup.rounds + 1):
            bare = bare_rate(setup.directory, "decode", "--count", str(documents))
            meter = Meter(ours=ours.pids, replayed=mongodb.pids)
            with Reading(setup.directory, ours.url, "--app-id", f"snapshot{number}") as reading:
                (counts,) = reading.counts(PATIENCE)
            cpu = {**meter.stop(), "reader": reading.cpu}
            rate = rows_per_second(counts)
            say(f"snapshot_source {number}: {rate:,.0f} rows/s, decode_all {bare:,.0f}, cpu {cpu}")
            if number:  # the first one warms up
                void = void or bottleneck(cpu, "ours", meter.seconds, len(processors.OTHERS))
                ratios.append(rate / bare)
                rates.append(rate)
                decoded.append(bare)
                spent.append(cpu)
    details = {
        "rows": documents,
        "rows_per_second": spread(rates),
        "decoded_per_second": spread(decoded),
        "cpu_seconds": medians(spent),
    }
    return {"snapshot_source": Figure(ratios, "of decode_all", 0.50, details=details, void=void)}


def live_source(setup: Setup) -> Figures:
    """Changes a second out of one process, after a reconnect, by what a bare loop over the change stream takes.

    Beside it: the same while connected, where every change goes through the watcher and the channel layer.
    """
    changes = setup.size(300_000, 5_000)
    ratios, rates, bares, connected, spent, void = [], [], [], [], [], ""
    with Replayed(setup.directory, 10_000) as mongodb, Ours(setup.directory / "ours", mongodb.uri) as ours:
        ours.serve()
        for number in range(setup.rounds + 1):
            app = f"live{number}"
            options = ["--app-id", app, "--follow", "--rows", str(changes)]
            with Reading(setup.directory, ours.url, *options) as reading:
                reading.wait_following()
                mongodb.settle()
                after = int(mongodb.ask()["last"])
                shown = float(mongodb.ask(updates=changes)["moment"])
                (joined,) = reading.counts(PATIENCE)
            wait_until(lambda: mongodb.ask()["behind"] == 0, "the watcher to have read all", 60)
            time.sleep(QUIET_SECONDS)
            # From before the changes: its version is the first commit that it got.
            options = ["--app-id", app, "--watermark", joined.replica_version, "--rows", str(changes)]
            meter = Meter(ours=ours.pids, replayed=mongodb.pids)
            with Reading(setup.directory, ours.url, *options) as reading:
                (counts,) = reading.counts(PATIENCE)
            cpu = {**meter.stop(), "reader": reading.cpu}
            bare = bare_rate(
                setup.directory, "watch", "--uri", mongodb.uri, "--after", str(after), "--count", str(changes)
            )
            rate = rows_per_second(counts)
            say(f"live_source {number}: {rate:,.0f} changes/s, bare watch {bare:,.0f}, cpu {cpu}")
            if number:
                void = void or bottleneck(cpu, "ours", meter.seconds, len(processors.OTHERS))
                ratios.append(rate / bare)
                rates.append(rate)
                bares.append(bare)
                connected.append(changes / (joined.last - shown))
                spent.append(cpu)
    details = {
        "changes": changes,
        "changes_per_second": spread(rates),
        "while_connected": spread(connected),
        "bare_watch_per_second": spread(bares),
        "cpu_seconds": medians(spent),
    }
    return {"live_source": Figure(ratios, "of a bare watch()", 0.60, details=details, void=void)}
