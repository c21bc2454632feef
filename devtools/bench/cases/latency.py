"""How much later than a bare reader of MongoDB's change stream a replica hears of a write, on a SecantusDB."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from devtools.bench import dataset, processors
from devtools.bench.figures import Figure, Figures, Setup, say, spread
from devtools.bench.places import START_SECONDS, Bare, Ours, Reading
from devtools.bench.processors import Meter
from devtools.processes import wait_until
from devtools.redis import RedisServer
from devtools.secantusdb import SecantusDB

WRITES = 200
WARM_UP = 50
PAUSE = 0.02  # so that every write is alone
# A replica that has just connected reads by itself until the next heartbeat (KEEPALIVE_SECONDS is 10).
SETTLE_SECONDS = 13.0
PATIENCE = 30.0
DOCUMENTS = 1000
BARS = {"all_in_one": (3.0, 10.0), "over_redis": (6.0, None)}


def latency(setup: Setup) -> Figures:
    """Milliseconds by which medians, and 99th percentiles, are above those of the bare reader."""
    figures: Figures = {}
    for name, (middle, end) in BARS.items():
        directory = setup.directory / name
        with ExitStack() as stack:
            database = SecantusDB(directory, test_commands=False)
            database.start()
            stack.callback(database.kill)
            ours = _ours(stack, directory, database, over_redis=name == "over_redis")
            meter = Meter(ours=ours.pids, secantusdb=database.pids)
            measured = _measured(stack, setup, ours, database)
            cpu = meter.stop()
        details = {
            "cpu_seconds": cpu,
            "writes": setup.size(WRITES, 20),
            "ours_p50_ms": spread([own[0] for own, _ in measured]),
            "ours_p99_ms": spread([own[1] for own, _ in measured]),
            "bare_p50_ms": spread([bare[0] for _, bare in measured]),
            "bare_p99_ms": spread([bare[1] for _, bare in measured]),
        }
        above = [(own[0] - bare[0], own[1] - bare[1]) for own, bare in measured]
        p50, p99 = [one[0] for one in above], [one[1] for one in above]
        figures[f"latency_{name}_p50"] = Figure(p50, "ms above a bare reader", middle, "lower", details)
        figures[f"latency_{name}_p99"] = Figure(p99, "ms above a bare reader", end, "lower")
    return figures


def _ours(stack: ExitStack, directory: Path, database: SecantusDB, *, over_redis: bool) -> Ours:
    with MongoClient[dict[str, Any]](database.uri) as client:
        documents = [dataset.document(n) for n in range(DOCUMENTS)]
        client[dataset.DATABASE][dataset.collection(0)].insert_many(documents)
    if not over_redis:
        ours = Ours(directory / "ours", database.uri)
        stack.callback(ours.close)
        ours.serve()
        return ours
    redis = RedisServer(directory / "redis")
    redis.start()
    stack.callback(redis.stop)
    ours = Ours(directory / "ours", database.uri, REDIS_URL=redis.url)
    stack.callback(ours.close)
    watcher = ours.start("runwatcher", cores=processors.ANY)
    watcher.wait_until(lambda: "watching" in watcher.log_text(), "the watcher", START_SECONDS)
    ours.serve("--no-watcher", cores=processors.ANY)
    return ours


Percentiles = tuple[float, float]


def _measured(
    stack: ExitStack, setup: Setup, ours: Ours, database: SecantusDB
) -> list[tuple[Percentiles, Percentiles]]:
    """Return (p50, p99) in milliseconds of each round, ours and the bare reader's."""
    bare = Bare(setup.directory, "times", "--uri", database.uri)
    stack.callback(bare.kill)
    bare.wait_until(lambda: "ready" in bare.log_text(), "the bare reader", START_SECONDS)
    reading = stack.enter_context(Reading(setup.directory, ours.url, "--follow", "--times", "--seconds", "3600"))
    reading.wait_following()
    time.sleep(SETTLE_SECONDS)
    rounds = [range(WARM_UP)]
    for _ in range(setup.rounds):
        rounds.append(range(rounds[-1].stop, rounds[-1].stop + setup.size(WRITES, 20)))
    acknowledged: dict[int, float] = {}
    with MongoClient[dict[str, Any]](database.uri) as client:
        collection = client[dataset.DATABASE][dataset.collection(0)]
        for number in range(rounds[-1].stop):
            key = dataset.document(number % DOCUMENTS)["_id"]
            collection.update_one({"_id": key}, {"$set": {"likes": 10_000 + number}})
            acknowledged[number] = time.monotonic()
            time.sleep(PAUSE)
    own, others = (_arrived(source, rounds[-1].stop) for source in (reading, bare))
    found = []
    for number, writes in enumerate(rounds):
        pair = (
            _percentiles([own[n] - acknowledged[n] for n in writes]),
            _percentiles([others[n] - acknowledged[n] for n in writes]),
        )
        say(f"latency {number}: ours {pair[0][0]:.2f} and {pair[0][1]:.2f} ms, bare {pair[1][0]:.2f} {pair[1][1]:.2f}")
        if number:
            found.append(pair)
    return found


def _arrived(source: Reading | Bare, writes: int) -> dict[int, float]:
    """Wait until all writes have arrived; return when each did (monotonic)."""

    def lines() -> list[str]:
        return [line for line in source.log_text().splitlines() if line.startswith('{"likes"')]

    wait_until(lambda: len(lines()) >= writes, "all writes to arrive", PATIENCE)
    found = map(json.loads, lines())
    return {int(one["likes"]) - 10_000: one["moment"] for one in found}


def _percentiles(seconds: Sequence[float]) -> Percentiles:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000
