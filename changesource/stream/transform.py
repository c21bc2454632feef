"""What one event does to the mapped tables, as frames.

Most tables have rows without history: every change is an upsert or a delete by key, which zero-cache applies whatever
it had, so an update that fails the filter, or gives no valid row, deletes. Where ``_id`` does not say what the rows
are, a change is the difference between the rows of the document before it and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from changesource.exceptions import TableStopped
from changesource.mapping.blocks import Blocks
from changesource.mapping.compiled import CompiledMapping, MappedTable, Report, ignore_fault, shown_id
from changesource.mapping.paths import Document
from changesource.stream.batches import BARRIER
from changesource.stream.events import Event


@dataclass(frozen=True)
class Correction:
    """A document as it is at a later time, None where it is gone; for its events up to ``until``, a cluster time."""

    document: Document | None
    until: int


# Fewer events are not worth the preparation.
FEW = 4
CHANGED = ("insert", "update", "replace")
Changes: TypeAlias = Iterable[tuple[str, Sequence[bytes] | None]]
"""For each table that an event touches, its name and the frames (maybe none); None for frames that are withheld."""
Corrections: TypeAlias = dict[tuple[str, str], Correction]
"""By collection and ``_id`` as it is shown."""


class Transform:
    """Turns events into frames by one revision of the mappings."""

    def __init__(
        self,
        mapping: CompiledMapping,
        report: Report = ignore_fault,
        *,
        withholds: bool = False,
        corrections: Corrections | None = None,
        current_until: int = 0,
        silent_until: int = 0,
    ) -> None:
        """``report`` is called for every document that gives no row, or one with a value nulled.

        With ``withholds``, a table that stops at a document is withheld; else ``TableStopped`` is raised. Documents at
        which one stopped are read as ``corrections`` has them. Events up to ``current_until`` are to bear their
        documents as they are now. Of those up to ``silent_until`` the tables show everything: they change no row.
        """
        self.current_until = current_until
        self._silent_until = silent_until
        self.mapping = mapping
        self._report = report
        self._withholds = withholds
        self._corrections = {} if corrections is None else corrections

    def foreseen(self, events: Sequence[Event]) -> tuple[list[Changes | None], int]:
        """Return what ``changes`` gives of each event where that can be had of many at once; None where it cannot.

        And how many bytes of frames that is. Nothing is to be read again after those that it can.
        """
        found: list[Changes | None] = [None] * len(events)
        size = 0
        if self._corrections or len(events) < FEW:
            return found, size
        alike: dict[tuple[str, bool], list[int]] = {}
        for place, event in enumerate(events):
            if event.document is not None and event.kind in CHANGED and event.cluster_time > self._silent_until:
                alike.setdefault((event.collection, event.kind == "insert"), []).append(place)
        for (collection, inserted), places in alike.items():
            tables = self.mapping.by_collection.get(collection, ())
            if tables and all(table.is_plain for table in tables):
                documents = [cast("Document", events[place].document) for place in places]
                columns = [Blocks(table).frames(documents, inserted=inserted) for table in tables]
                size += sum(sum(map(len, filter(None, column))) for column in columns)
                for place, frames in zip(places, zip(*columns, strict=True), strict=True):
                    if None not in frames:
                        found[place] = [
                            (table.name, (frame,) if frame else _left_out(table, events[place]))
                            for table, frame in zip(tables, frames, strict=True)
                        ]
        return found, size

    def changes(self, event: Event) -> Changes:
        """Give what the event does to each table that its collection feeds, as it is asked for."""
        if event.kind == "barrier":
            yield BARRIER, []
        elif event.cluster_time <= self._silent_until:
            for table in self._tables_of(event):
                yield table.name, []
        elif event.kind == "dropDatabase":
            for table in self.mapping.tables.values():
                yield table.name, [table.frames.truncate]
        else:
            corrected = self._corrected(event)
            for table in self.mapping.by_collection.get(event.collection, ()):
                yield table.name, self._withheld_or_frames(table, corrected)
            # A collection that was renamed into place: what it holds is read again (see ``refilled``).
            if event.kind == "rename":
                for table in self.mapping.by_collection.get(event.target, ()):
                    yield table.name, [table.frames.truncate]

    def _corrected(self, event: Event) -> Event:
        if not self._corrections or event.document is None:
            return event
        known = self._corrections.get((event.collection, shown_id(event.document)))
        if known is None or event.cluster_time > known.until:
            return event
        return event._replace(document=known.document)

    def refilled(self, event: Event) -> list[str]:
        """Return the tables that must be read again from their collection, since the event does not tell their rows."""
        if event.cluster_time <= self._silent_until:
            return []
        if event.cluster_time <= self.current_until and event.kind in ("drop", "rename", "dropDatabase"):
            # The collection may be there again by now.
            return [table.name for table in self._tables_of(event)]
        if event.kind == "rename":
            return [table.name for table in self.mapping.by_collection.get(event.target, ())]
        if not _lacks_history(event):
            return []
        return [table.name for table in self.mapping.by_collection.get(event.collection, ()) if table.has_history]

    def _tables_of(self, event: Event) -> list[MappedTable]:
        if event.kind == "dropDatabase":
            return list(self.mapping.tables.values())
        names = (event.collection, event.target) if event.kind == "rename" else (event.collection,)
        return [table for name in names for table in self.mapping.by_collection.get(name, ())]

    def _withheld_or_frames(self, table: MappedTable, event: Event) -> list[bytes] | None:
        try:
            return self._history_frames(table, event) if table.has_history else self._frames(table, event)
        except TableStopped:
            if not self._withholds:
                raise
            return None

    def _frames(self, table: MappedTable, event: Event) -> list[bytes]:
        match event.kind:
            case "insert" if event.document is not None:
                return table.encoded(event.document, table.inserts, self._report)
            case "update" | "replace" if event.document is not None:
                frames = table.encoded(event.document, table.updates, self._report)
                return frames or table.delete(event.document_id)
            case "drop" | "rename":
                return [table.frames.truncate]
            case _:
                # A delete, or an update whose document is gone by now.
                return table.delete(event.document_id)

    def _history_frames(self, table: MappedTable, event: Event) -> list[bytes]:
        if event.kind == "insert":
            return [] if event.document is None else table.encoded(event.document, table.inserts, self._report)
        if event.kind in ("drop", "rename") or event.before is None:
            return [table.frames.truncate]
        return table.changed(event.before, event.document, self._report)


def _left_out(table: MappedTable, event: Event) -> list[bytes]:
    """The frames where the filter leaves the event's document out."""
    return [] if event.kind == "insert" else table.delete(event.document_id)


def _lacks_history(event: Event) -> bool:
    return event.kind in ("update", "replace", "delete") and event.before is None
