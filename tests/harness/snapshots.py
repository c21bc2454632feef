"""Snapshots on the scripted source, without a session around."""

from __future__ import annotations

import json
from dataclasses import replace

from changesource.exceptions import TableStopped
from changesource.mapping.compiled import CompiledMapping, RowFault
from changesource.protocol.request import StreamRequest
from changesource.services.downstream import Downstream
from changesource.services.initial_sync import InitialSync
from changesource.services.limits import Limits
from changesource.services.progress import CopyProgress
from changesource.services.turns import Turns
from changesource.sources.scripted import ScriptedSource
from changesource.stream.grouping import Bounds
from tests.harness.chat import MESSAGE, compiled, expected, shown
from tests.harness.link import framewise
from tests.harness.model import ModelReplica
from tests.harness.writers import Writer

REQUEST = StreamRequest("app", 2)
BOUNDS = Bounds(rows=5, age=0.05)
NEVER, ALWAYS = 300.0, 0.0  # how often a copy catches up


class Snapshot:
    """One replica's initial sync."""

    def __init__(
        self,
        source: ScriptedSource,
        mapping: CompiledMapping | None = None,
        *,
        catch_up: float = NEVER,
        turns: int = 1,
    ) -> None:
        self.source = source
        self.limits = Limits(BOUNDS, keepalive=30.0, turns=Turns(turns), catch_up=catch_up)
        self.mapping = mapping or compiled()
        self.model = ModelReplica()
        self.frames: list[str] = []
        self.faults: list[RowFault] = []
        self.told: list[tuple[int, int]] = []
        self.stops: list[TableStopped | None] = []
        self.position = 0
        self.progress = CopyProgress()

    async def send(self, frame: str) -> None:
        self.frames.append(frame)
        self.model.apply(frame)

    async def remember(self, position: int) -> None:
        self.told.append((position, len(self.model.commits)))

    async def run(self) -> Snapshot:
        sync = InitialSync(
            self.source,
            self.mapping,
            REQUEST,
            limits=self.limits,
            report=self.faults.append,
            stopped=self.stops.append,
        )
        self.progress = sync.progress
        began = await sync.barrier()
        downstream = Downstream(framewise(self.send), self.mapping.fingerprint, self.mapping.tables, began)
        self.position = await sync.run(downstream, began, self.remember)
        assert downstream.committed.cluster_time == began
        assert self.model.commits == [str(downstream.committed)]
        return self

    def check(self) -> None:
        """The replica is exact at the position that the snapshot names, and nothing is left open."""
        assert not self.source.feeds
        assert not self.source.cursors
        tables = tuple(self.mapping.tables)
        assert shown(self.model, tables) == expected(self.source.state_at(self.position), tables)

    def tags(self) -> list[str]:
        return [json.loads(frame)[1]["tag"] for frame in self.frames]


def filled(documents: int = 50, *, seed: int = 1, batch: int = 10) -> tuple[ScriptedSource, Writer]:
    source = ScriptedSource(feed_batch=7, snapshot_batch=batch)
    writer = Writer(source, seed)
    writer.fill(documents)
    return source, writer


def many(collections: int, documents: int, *, batch: int = 10) -> tuple[ScriptedSource, CompiledMapping]:
    """Collections of messages, each with a table of its name."""
    source = ScriptedSource(feed_batch=7, snapshot_batch=batch)
    names = [f"m{number:02}" for number in range(collections)]
    for name in names:
        for number in range(documents):
            source.insert(name, {"_id": f"{number:03}", "body": name})
    return source, compiled(*(replace(MESSAGE, name=name, collection=name) for name in names))


def bodies(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """What a snapshot of ``many`` shows."""
    return {
        name: {key[0]: row["body"] for key, row in snapshot.model.rows(name).items()}
        for name in snapshot.mapping.tables
    }


def held(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """What a snapshot of ``many`` must show."""
    state = snapshot.source.state_at(snapshot.position)
    return {
        name: {document_id: document["body"] for document_id, document in state.get(name, {}).items()}
        for name in snapshot.mapping.tables
    }
