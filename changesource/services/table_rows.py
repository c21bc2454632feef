"""Rows of a snapshot on their way from documents to frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from changesource.mapping.blocks import Blocks, EncodedRows
from changesource.mapping.compiled import MappedTable, Report
from changesource.protocol.watermark import Watermark
from changesource.services.progress import CopyProgress
from changesource.sources.base import Document

FRAME_ROWS = 1000
FRAME_BYTES = 1024 * 1024


@dataclass
class TableRows:
    """Encoded rows of one table that wait to be sent; ``progress`` counts those that were taken.

    In an initial sync they are lists that go into one ``backfill`` frame; later each is an ``insert`` frame, since
    zero-cache takes ``backfill`` only there, and does not wait.
    """

    table: MappedTable
    backfill: bool
    progress: CopyProgress
    rows: list[EncodedRows] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self._blocks = Blocks(self.table, FRAME_ROWS, FRAME_BYTES)

    def encoded(self, documents: Sequence[Document], report: Report) -> Iterator[EncodedRows]:
        """Give the rows of ``documents``: for ``backfill`` frames, or each as an ``insert`` frame already."""
        if self.backfill:
            yield from self._blocks.encoded(documents, report)
            return
        for document in documents:
            for frame in self.table.encoded(document, self.table.inserts, report):
                yield EncodedRows(frame, 1)

    def frames(self, rows: Iterable[EncodedRows], watermark: Watermark) -> Iterator[bytes]:
        """Give what is to be sent of ``rows``, as frames of the transaction of ``watermark``; the rest waits."""
        for some in rows:
            if not self.backfill:
                self.progress.rows += 1
                yield bytes(some.body)
                continue
            if self.count + some.rows > FRAME_ROWS or self.size + len(some.body) > FRAME_BYTES:
                yield from self.rest(watermark)
            self.rows.append(some)
            self.count += some.rows
            self.size += len(some.body)

    def rest(self, watermark: Watermark) -> Iterator[bytes]:
        """Give what waits, as a frame of the transaction of ``watermark``, and forget it."""
        if self.rows:
            bodies = [some.body for some in self.rows]
            self.progress.rows += self.count
            self.rows, self.count, self.size = [], 0, 0
            yield self.table.frames.backfill(self.table.columns, bodies, watermark)
