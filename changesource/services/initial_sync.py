"""The snapshot: every table of a replica as one Zero transaction.

A barrier fixes T0, the tables are filled (see ``filling``), a second barrier fixes Tb, and what is committed is the
exact state at Tb. The protocol wants a transaction's watermark at its begin, so this one bears T0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from changesource.mapping.compiled import CompiledMapping, Report
from changesource.protocol.messages import create_tables
from changesource.protocol.request import StreamRequest
from changesource.services.downstream import Downstream
from changesource.services.filling import Filling, Stopped
from changesource.services.limits import Limits
from changesource.services.progress import CopyProgress
from changesource.sources.base import ChangeSource


class InitialSync:
    """One replica's snapshot."""

    def __init__(
        self,
        source: ChangeSource,
        mapping: CompiledMapping,
        request: StreamRequest,
        *,
        limits: Limits,
        report: Report,
        stopped: Stopped | None = None,
    ) -> None:
        """``mapping`` is the replica's part; ``report`` hears of documents that give no row; see also ``Filling``."""
        name = f"{request.app_id}/{request.shard_num}"
        self._filling = Filling(
            source, mapping, name, limits=limits, report=report, backfill=limits.backfill, stopped=stopped
        )
        self._mapping = mapping
        self._request = request

    @property
    def progress(self) -> CopyProgress:
        """How far it is."""
        return self._filling.progress

    async def barrier(self) -> int:
        """Fix T0; waits for MongoDB as long as it takes."""
        return await self._filling.barrier()

    async def run(self, downstream: Downstream, began: int, before_commit: Callable[[int], Awaitable[None]]) -> int:
        """Send the snapshot of what is there from ``began`` (T0) on; return the position that it shows (Tb or later).

        ``before_commit`` is awaited with that position once all is sent but the commit.
        """
        await downstream.begin(began)
        tables = [table.table for table in self._mapping.tables.values()]
        await downstream.frames(create_tables(tables, self._request.app_id, self._request.shard_num))
        position = await self._filling.fill(downstream, began, self._mapping.by_collection)
        await before_commit(position)
        await downstream.commit()
        return position
