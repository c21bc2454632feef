"""Through our server into a real zero-cache, against a source that only sends it the same, made beforehand.

Nothing is pinned here: zero-cache is several processes, which want all there is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection

from devtools.bench import dataset, processors
from devtools.bench.caches import Caches, Generator, sync_seconds, wait_stored
from devtools.bench.figures import Figure, Figures, Setup, lagged, medians, say, spread
from devtools.bench.generator import BEGAN
from devtools.bench.places import START_SECONDS, Ours, Replayed
from devtools.bench.processors import Meter
from devtools.secantusdb import SecantusDB

PATIENCE = 300.0
# What zero-cache does at its start, beside the stream, is over by then.
SETTLE_SECONDS = 2.0
KNOWN = 10_000
INSERTED = 5000
RESUMES = "replica resumes"


def snapshot_zero_cache(setup: Setup) -> Figures:
    """Rows a second of an initial sync, by those of the generator."""
    documents = setup.size(300_000, 20_000)
    ratios, rates, ceilings, spent, free, void = [], [], [], [], [], ""
    with (
        Caches(setup.directory) as caches,
        Replayed(setup.directory, documents, cores=processors.ANY) as mongodb,
        Generator(setup.directory, documents) as generator,
        Ours(setup.directory / "ours", mongodb.uri) as ours,
    ):
        ours.serve(cores=processors.ANY)
        for number in range(setup.rounds + 1):
            meter = Meter(generator=generator.pids, postgres=caches.pids)
            with caches.cache(generator.url) as cache:
                seconds = sync_seconds(cache)
                ceiling = documents / seconds
                bare = {**meter.stop(), "zero_cache": processors.cpu_seconds(cache.pids())}
            meter = Meter(ours=ours.pids, replayed=mongodb.pids, postgres=caches.pids)
            with caches.cache(ours.url) as cache:
                rate = documents / sync_seconds(cache)
                cpu = {**meter.stop(), "zero_cache": processors.cpu_seconds(cache.pids())}
            say(f"snapshot_zero_cache {number}: {rate:,.0f} rows/s, generator {ceiling:,.0f}, cpu {cpu}, {bare}")
            if number:
                void = void or lagged(bare["generator"], seconds)
                ratios.append(rate / ceiling)
                rates.append(rate)
                ceilings.append(ceiling)
                spent.append(cpu)
                free.append(bare)
    details = {
        "rows": documents,
        "rows_per_second": spread(rates),
        "generator_rows_per_second": spread(ceilings),
        "cpu_seconds": medians(spent),
        "generator_cpu_seconds": medians(free),
    }
    return {"snapshot_zero_cache": Figure(ratios, "of the generator", 0.85, details=details, void=void)}


def generated(setup: Setup, caches: Caches, changes: int, by: int) -> tuple[float, str]:
    """Return the changes a second that zero-cache stores of the generator's, ``by`` a transaction.

    And why that tells nothing, if so.
    """
    with Generator(setup.directory, KNOWN, changes, by) as generator, caches.cache(generator.url) as cache:
        time.sleep(SETTLE_SECONDS)
        meter = Meter(generator=generator.pids)
        began = generator.go()
        seconds = wait_stored(cache, BEGAN + changes // by, PATIENCE) - began
        return changes / seconds, lagged(meter.stop()["generator"], seconds)


def live_zero_cache(setup: Setup) -> Figures:
    """Changes a second that a zero-cache stores which was there before they were made, by the generator's."""
    changes = setup.size(50_000, 5_000)
    ratios, rates, ceilings, spent, void = [], [], [], [], ""
    with (
        Caches(setup.directory) as caches,
        Replayed(setup.directory, KNOWN, cores=processors.ANY) as mongodb,
        Ours(setup.directory / "ours", mongodb.uri) as ours,
    ):
        ours.serve(cores=processors.ANY)
        for number in range(setup.rounds + 1):
            ceiling, lags = generated(setup, caches, changes, by=100)
            with caches.cache(ours.url) as cache:
                mongodb.settle()
                meter = Meter(ours=ours.pids, replayed=mongodb.pids, zero_cache=cache.pids, postgres=caches.pids)
                shown = mongodb.ask(updates=changes)
                ended = wait_stored(cache, int(shown["last"]), PATIENCE)
                cpu = meter.stop()
            rate = changes / (ended - float(shown["moment"]))
            say(f"live_zero_cache {number}: {rate:,.0f} changes/s, generator {ceiling:,.0f}, cpu {cpu}")
            if number:
                void = void or lags
                ratios.append(rate / ceiling)
                rates.append(rate)
                ceilings.append(ceiling)
                spent.append(cpu)
    details = {
        "changes": changes,
        "changes_per_second": spread(rates),
        "generator_changes_per_second": spread(ceilings),
        "cpu_seconds": medians(spent),
    }
    return {"live_zero_cache": Figure(ratios, "of the generator", 0.85, details=details, void=void)}


def live_secantus(setup: Setup) -> Figures:
    """Changes a second that zero-cache stores of a SecantusDB's backlog, by the generator's one a transaction.

    The changes are made while our server is down; the clock starts when zero-cache is back.
    """
    changes = setup.size(50_000, 3_000)
    ratios, rates, ceilings, spent, void = [], [], [], [], ""
    with Caches(setup.directory) as caches:
        for number in range(setup.rounds + 1):
            ceiling, lags = generated(setup, caches, setup.size(5_000, 1_000), by=1)
            rate, cpu = _of_secantus(setup.directory / f"secantus{number}", caches, changes)
            say(f"live_secantus {number}: {rate:,.0f} changes/s, generator {ceiling:,.0f}, cpu {cpu}")
            if number:
                void = void or lags
                ratios.append(rate / ceiling)
                rates.append(rate)
                ceilings.append(ceiling)
                spent.append(cpu)
    details = {
        "changes": changes,
        "changes_per_second": spread(rates),
        "generator_changes_per_second": spread(ceilings),
        "cpu_seconds": medians(spent),
    }
    return {"live_secantus": Figure(ratios, "times the generator", 5.0, details=details, void=void)}


def _of_secantus(directory: Path, caches: Caches, changes: int) -> tuple[float, dict[str, float]]:
    database = SecantusDB(directory, test_commands=False)
    database.start()
    try:
        with MongoClient[dict[str, Any]](database.uri) as client:
            collection = client[dataset.DATABASE][dataset.collection(0)]
            for first in range(0, KNOWN, INSERTED):
                collection.insert_many([dataset.document(n) for n in range(first, first + INSERTED)])
            with Ours(directory / "ours", database.uri) as ours:
                first_server = ours.serve(cores=processors.ANY)
                with caches.cache(ours.url) as cache:
                    time.sleep(SETTLE_SECONDS)
                    first_server.stop()
                    for first in range(0, changes, INSERTED):
                        numbers = (n % KNOWN for n in range(first, min(first + INSERTED, changes)))
                        collection.bulk_write(
                            [UpdateOne(_id_of(n), {"$inc": {"likes": 1000}}) for n in numbers], ordered=True
                        )
                    last = _last_change(collection)
                    before = first_server.log_text().count(RESUMES)
                    meter = Meter(secantusdb=database.pids, zero_cache=cache.pids, postgres=caches.pids)
                    server = ours.serve(cores=processors.ANY)
                    server.wait_until(
                        lambda: server.log_text().count(RESUMES) > before, "zero-cache to be back", START_SECONDS
                    )
                    began = time.monotonic()
                    ended = wait_stored(cache, last, PATIENCE)
                    cpu = {**meter.stop(), "ours": processors.cpu_seconds(server.pids())}
        return changes / (ended - began), cpu
    finally:
        database.kill()


def _id_of(number: int) -> dict[str, object]:
    return {"_id": dataset.document(number)["_id"]}


def _last_change(collection: Collection[dict[str, Any]]) -> int:
    """Make the last change; return its cluster time."""
    with collection.watch() as stream:
        collection.update_one(_id_of(0), {"$inc": {"likes": 1000}})
        at = stream.next()["clusterTime"]
    return int(at.time) << 32 | int(at.inc)
