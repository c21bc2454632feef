"""MongoDB, a channel layer, watchers and replicas in this process: everything but the server and its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from pymongo.database import Database

from changesource.mapping.compiled import CompiledMapping, Report
from changesource.mapping.formats import read_specification
from changesource.services.limits import Limits
from changesource.services.publisher import Publisher
from changesource.services.subscriber import Subscriber
from changesource.services.turns import Turns
from changesource.services.watcher import Revision, Watcher
from changesource.sources.mongodb.source import MongoSource
from changesource.stream.grouping import Bounds
from tests.harness.app import MAPPINGS, WITHOUT_HISTORY, everything, last_write
from tests.harness.link import Connection, Replica
from tests.harness.waiting import until

KEEPALIVE = 1.0
BARRIERS = "_zerosource"


def without_history(database: str) -> CompiledMapping:
    """The application's mapping, without the table that needs pre-images."""
    return CompiledMapping.compile(read_specification(WITHOUT_HISTORY), database)


class Whole:
    """One process's parts on a MongoDB database that holds the application of ``tests.harness.app``."""

    def __init__(
        self,
        uri: str,
        database: Database[Any],
        *,
        layer: Any = None,
        mapping: CompiledMapping | None = None,
        keepalive: float = KEEPALIVE,
        **options: Any,
    ) -> None:
        """``options`` are those of ``MongoSource``; without a ``layer``, Channels' own in memory is used."""
        self.database = database
        self.source = MongoSource(uri, database.name, BARRIERS, **{"post_images": "auto", **options})
        self.layer = layer or InMemoryChannelLayer(capacity=1000)
        self.mapping = mapping or CompiledMapping.compile(read_specification(MAPPINGS), database.name)
        self.limits = Limits(Bounds(rows=50, age=0.05), keepalive, Turns(1000), catch_up=300.0)
        self.subscriber = Subscriber(self.layer)

    def replica(self, *publications: str, app_id: str = "app") -> Replica:
        """Return a replica that connects here."""
        return Replica(
            self.source, self.subscriber, self.mapping, publications=publications, app_id=app_id, limits=self.limits
        )

    def serve(self, replica: Replica) -> None:
        """Have a replica that was made elsewhere connect here from now on."""
        replica.source, replica.subscriber, replica.mapping = self.source, self.subscriber, self.mapping

    @asynccontextmanager
    async def watched(
        self, mapping: CompiledMapping | None = None, report: Report | None = None
    ) -> AsyncIterator[Watcher]:
        """Run a watcher, of another mapping where one is given; without a ``report``, a row fault fails the test."""
        revision = Revision(1, mapping or self.mapping)

        async def current() -> Revision:
            return revision

        watcher = Watcher(
            self.source,
            Publisher(self.layer),
            current,
            bounds=self.limits.bounds,
            keepalive=self.limits.keepalive,
            report=report or (lambda fault: pytest.fail(f"{fault}")),
        )
        task = asyncio.create_task(watcher.run())
        try:
            await until(lambda: watcher.position > 0 or task.done())
            yield watcher
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settle(self, connection: Connection, table: str = "note", seconds: float = 60) -> None:
        """Write a last document that ``table`` shows, wait until it has arrived, and compare all with MongoDB."""
        replica = connection.replica
        key = await asyncio.to_thread(last_write, self.database, table)
        await connection.until(lambda: key in replica.model.rows(table) and not replica.model.open, seconds)
        await self.compare(replica)

    async def compare(self, replica: Replica) -> None:
        """Fail unless the replica shows what MongoDB holds, and was not reset."""
        assert replica.model.reset is None, replica.model.reset
        tables = list(self.mapping.published(replica.publications).tables)
        for table, rows in (await asyncio.to_thread(everything, self.database, tables)).items():
            assert replica.model.rows(table) == rows, table

    async def close(self) -> None:
        """Close the connections to MongoDB. Every connection and watcher must have ended."""
        await self.source.close()
