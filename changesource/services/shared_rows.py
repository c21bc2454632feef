"""Rows that one snapshot made, for others that read the same.

Publishing a mapping may reset all replicas at once, and then they read the same collections side by side. Rows are
known by the bytes that they were made of, so it does not matter which cursor read those, or when.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from changesource.mapping.blocks import Blocks, EncodedRows
from changesource.mapping.compiled import MappedTable, Report, RowFault
from changesource.sources.base import Batch

MIB = 1024 * 1024


class SharedRows:
    """The rows that were made last, up to a number of bytes; none of tables that only one snapshot reads."""

    def __init__(self, most_bytes: int = 32 * MIB) -> None:
        """``most_bytes`` bounds what is kept, with the bytes that it is known by. No more than a sixteenth is of one
        batch: an unwound document may become far more rows than it has bytes."""
        self._most_bytes = most_bytes
        self._readers: Counter[MappedTable] = Counter()
        self._kept: OrderedDict[tuple[MappedTable, bytes], tuple[Sequence[EncodedRows], int]] = OrderedDict()
        self.size = 0

    @contextmanager
    def reading(self, tables: Iterable[MappedTable]) -> Iterator[None]:
        """Say that a snapshot reads ``tables``, for as long as the context lasts."""
        read = list(tables)
        self._readers.update(read)
        try:
            yield
        finally:
            self._readers.subtract(read)
            self._forget([table for table in read if self._readers[table] < 2])

    def encoded(self, blocks: Blocks, table: MappedTable, batch: Batch, report: Report) -> Iterator[EncodedRows]:
        """Give what ``blocks`` of ``table`` makes of ``batch``. What has faults is made anew, since they are told."""
        if self._readers[table] < 2:
            yield from blocks.encoded(batch.documents, report)
            return
        place = table, batch.raw
        if (known := self._kept.get(place)) is not None:
            self._kept.move_to_end(place)
            yield from known[0]
            return
        faulty = False

        def told(fault: RowFault) -> None:
            nonlocal faulty
            faulty = True
            report(fault)

        made: list[EncodedRows] = []
        size, most = len(batch.raw), self._most_bytes // 16
        for some in blocks.encoded(batch.documents, told):
            size += len(some.body)
            if size <= most:
                made.append(some)
            yield some
        if size <= most and not faulty and place not in self._kept:
            self._kept[place] = made, size
            self.size += size
            while self.size > self._most_bytes:
                _, (_, size) = self._kept.popitem(last=False)
                self.size -= size

    def _forget(self, tables: Sequence[MappedTable]) -> None:
        for place in [place for place in self._kept if place[0] in tables]:
            _, size = self._kept.pop(place)
            self.size -= size
