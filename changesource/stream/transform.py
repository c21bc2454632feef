"""What one event does to the mapped tables, as frames.

Rows have no history here: every change is an upsert or a delete by key, which zero-cache applies whatever it had.
An update that fails the filter, or gives no valid row, therefore deletes.
"""

from __future__ import annotations

from collections.abc import Iterator

from changesource.mapping.compiled import CompiledMapping, MappedTable, Report, ignore_fault
from changesource.stream.batches import BARRIER
from changesource.stream.events import Event


class Transform:
    """Turns events into frames by one revision of the mappings."""

    def __init__(self, mapping: CompiledMapping, report: Report = ignore_fault) -> None:
        """``report`` is called for every document that gives no row, or one with a value nulled."""
        self.mapping = mapping
        self._report = report

    def changes(self, event: Event) -> Iterator[tuple[str, list[bytes]]]:
        """Give, for each table that the event's collection feeds, its name and the frames (maybe none)."""
        if event.kind == "barrier":
            yield BARRIER, []
        elif event.kind == "dropDatabase":
            for table in self.mapping.tables.values():
                yield table.name, [table.frames.truncate]
        else:
            for table in self.mapping.by_collection.get(event.collection, ()):
                yield table.name, self._frames(table, event)
            # A collection that was renamed into place: what it holds is read again (see ``refilled``).
            if event.kind == "rename":
                for table in self.mapping.by_collection.get(event.target, ()):
                    yield table.name, [table.frames.truncate]

    def refilled(self, event: Event) -> list[str]:
        """Return the tables whose collection got its documents without one event each."""
        if event.kind != "rename":
            return []
        return [table.name for table in self.mapping.by_collection.get(event.target, ())]

    def _frames(self, table: MappedTable, event: Event) -> list[bytes]:
        match event.kind:
            case "insert" if event.document is not None:
                frame = table.upsert(event.document, table.frames.insert, self._report)
                return [] if frame is None else [frame]
            case "update" | "replace" if event.document is not None:
                frame = table.upsert(event.document, table.frames.update, self._report)
                return table.delete(event.document_id) if frame is None else [frame]
            case "drop" | "rename":
                return [table.frames.truncate]
            case _:
                # A delete, or an update whose document is gone by now.
                return table.delete(event.document_id)
