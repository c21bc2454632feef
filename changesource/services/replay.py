"""From a position on: MongoDB's events, grouped, as batches. The watcher publishes them; a replica that is behind,
or that no watcher serves, sends them itself. The same events give the same batches wherever this runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from changesource.exceptions import TableStopped
from changesource.mapping.needs import Needs
from changesource.services.pausing import Pause
from changesource.sources.base import PROOF_WAIT_MS, Feeds
from changesource.stream.batches import Batch
from changesource.stream.grouping import Bounds, Grouping
from changesource.stream.transform import FEW, Transform

# Events whose frames are made at once; more at a time as long as these are few bytes, which a slow replica holds.
MANY = 256
FORESEEN_BYTES = 512 * 1024


async def batches(
    source: Feeds,
    transform: Transform,
    needs: Needs,
    after: int,
    *,
    bounds: Bounds,
    idle_ms: int,
    singly: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Batch | None, None]:
    """Give the batches after ``after``, and None whenever the server has nothing more.

    Where nothing is open it waits ``idle_ms`` before it says so. ``needs`` names the collections whose events move the
    position; ``transform`` may serve fewer. While ``singly`` is true, each source transaction is a batch of its own.
    Raises what the feed raises, and ``TableStopped`` once all before it was given; what was not given as ``final`` is
    to be read again.
    """
    grouping = Grouping(after, transform.mapping.fingerprints, bounds, singly=singly)
    feed = await source.feed(needs, after, transform.current_until)
    step = FEW
    try:
        while True:
            waiting = grouping.waiting
            events = await feed.poll(PROOF_WAIT_MS if waiting else idle_ms)
            if events is None:
                for batch in grouping.nothing_more():
                    yield batch
                yield None
                continue
            pause = Pause()
            try:
                place = 0
                while place < len(events):
                    some = events[place : place + step]
                    place += step
                    changes, size = transform.foreseen(some)
                    for event, foreseen in zip(some, changes, strict=True):
                        if foreseen is None:
                            # Before a table may stop at the event.
                            for batch in grouping.ended_by(event):
                                yield batch
                            found = grouping.add(event, list(transform.changes(event)), transform.refilled(event))
                            await pause.if_due()
                        else:
                            found = grouping.add(event, foreseen)
                        for batch in found:
                            yield batch
                    step = max(FEW, step // 2) if size > FORESEEN_BYTES else min(MANY, step * 2)
            except TableStopped:
                for batch in grouping.let_go():
                    yield batch
                raise
    finally:
        await feed.close()
