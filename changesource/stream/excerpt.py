"""Changes as people read them: an excerpt of what flows, never more than a page can show.

What is left out is counted. Frames are read only where the filter wants them, and only so many of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypedDict

import orjson

from changesource.stream.batches import BARRIER, DATA, Batch

MAX_LINES = 50
# A filter by key reads frames that it does not show.
MAX_READ = 200
MAX_READ_BYTES = 1024 * 1024
# Longer frames are not read, and of those over the second bound only the beginning is shown.
READ_BYTES = 128 * 1024
SHOWN_BYTES = 16 * 1024
TRUNCATE = b'["data",{"tag":"truncate"'


class Change(TypedDict, total=False):
    """A change as people read it. A delete has no value, a truncate no key either."""

    type: str
    table: str
    key: dict[str, object]
    value: dict[str, object]


Line: TypeAlias = dict[str, object]
"""What the page shows in one line.

A change is ``{"time", "order", "change", "frame", "bytes"}``: the cluster time's seconds and counter, what ``readable``
gives, the frame's text and length. Of a frame over ``SHOWN_BYTES`` there is the beginning and no value, and of one over
``READ_BYTES`` no key. All else is ``{"note": ...}``: "heartbeat", an empty transaction
(``time``, ``order``); "missed", ``count`` changes that are not shown; "large", a transaction that is too large for the
channel layer; "refill", a ``table`` whose rows are read again; "gap", changes that did not come over the layer.
"""


@dataclass(frozen=True)
class Wanted:
    """A filter: one table, or all where ``table`` is empty; rows with a key column of the value ``key``, or all."""

    table: str = ""
    key: str = ""

    @cached_property
    def _needles(self) -> tuple[bytes, ...]:
        """How the value may stand in a frame."""
        text = b":" + orjson.dumps(self.key)
        # A number or a boolean; 5 is 5.0 as well.
        return text, b":" + text[2:-1]

    def may_want(self, frame: bytes) -> bool:
        """Whether the frame may hold a row that is wanted, without reading it."""
        return not self.key or any(needle in frame for needle in self._needles) or frame.startswith(TRUNCATE)

    def wants(self, change: Change) -> bool:
        """Whether a change, as ``readable`` gives it, is of a row that is wanted. A truncate is of every row."""
        return not self.key or "key" not in change or any(_text(value) == self.key for value in change["key"].values())


def _text(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return orjson.dumps(value).decode()


def readable(frame: bytes) -> Change:
    """Return the change of a data frame: ``{"type": "insert", "table", "key": {column: value}, "value": row}``."""
    change = orjson.loads(frame)[1]
    kind = change["tag"]
    if kind == "truncate":
        return {"type": kind, "table": change["relations"][0]["name"]}
    relation, row = change["relation"], change["key" if kind == "delete" else "new"]
    key = {column: row[column] for column in relation["rowKey"]["columns"]}
    found: Change = {"type": kind, "table": relation["name"], "key": key}
    if kind != "delete":
        found["value"] = row
    return found


def _type(frame: bytes) -> str:
    """The type of a change that is not read as a whole."""
    return frame[len(DATA) : 40].partition(b'"')[0].decode(errors="replace")


class Excerpt:
    """What one message to the page holds: ``lines``; ``missed`` counts the wanted changes that are not among them."""

    def __init__(self, wanted: Wanted, *, paused: bool = False) -> None:
        """Where ``paused``, nothing is shown, and what is wanted is counted."""
        self.lines: list[Line] = []
        self.missed = 0
        self._wanted = wanted
        self._paused = paused
        self._left = 0 if paused else MAX_LINES
        self._may_read = MAX_READ
        self._may_read_bytes = MAX_READ_BYTES

    def add(self, batch: Batch, after: int = 0) -> None:
        """Take what ``batch`` holds after the cluster time ``after``."""
        if after and batch.follows > after:
            self._note("gap")
        if batch.pull and batch.end > max(batch.follows, after):
            self._note("large", batch.end)
        end = 0
        for cluster_time, table, count in batch.runs:
            begin, end = end, end + count
            if cluster_time <= after:
                continue
            if table == BARRIER:
                if self._wanted == Wanted():
                    self._note("heartbeat", cluster_time)
            elif self._wanted.table in ("", table):
                self._run(cluster_time, table, batch, begin, end)
        for table, cluster_time in batch.refill.items():
            if cluster_time > after and self._wanted.table in ("", table):
                self._note("refill", cluster_time, table=table)

    def miss(self, count: int) -> None:
        """Note that ``count`` wanted changes are left out here."""
        if not count:
            return
        self.missed += count
        if self._paused:
            return
        if self.lines and self.lines[-1].get("note") == "missed":
            count += int(str(self.lines.pop()["count"]))
        self.lines.append({"note": "missed", "count": count})

    def _note(self, note: str, cluster_time: int | None = None, **more: object) -> None:
        if not self._left:
            return
        self._left -= 1
        self.lines.append({**({} if cluster_time is None else _moment(cluster_time)), "note": note, **more})

    def _run(self, cluster_time: int, table: str, batch: Batch, begin: int, end: int) -> None:
        if not self._left and not self._wanted.key:
            self.miss(end - begin)
            return
        for frame in batch.frames[begin:end]:
            if self._wanted.may_want(frame):
                self._frame(cluster_time, table, frame)

    def _frame(self, cluster_time: int, table: str, frame: bytes) -> None:
        is_long = len(frame) > READ_BYTES
        # Of a long one nobody can tell the key.
        if not self._left or (self._wanted.key if is_long else not self._can_read(frame)):
            self.miss(1)
        elif is_long:
            self._show(cluster_time, {"type": _type(frame), "table": table}, frame)
        else:
            self._may_read -= 1
            self._may_read_bytes -= len(frame)
            self._read(cluster_time, frame)

    def _read(self, cluster_time: int, frame: bytes) -> None:
        try:
            change = readable(frame)
            wanted = self._wanted.wants(change)
        except (LookupError, TypeError, ValueError, AttributeError):
            # The layer's frames are taken as they come; this one is not ours.
            self.miss(1)
            return
        if wanted:
            if len(frame) > SHOWN_BYTES:
                change.pop("value", None)
            self._show(cluster_time, change, frame)

    def _can_read(self, frame: bytes) -> bool:
        return self._may_read > 0 and len(frame) <= self._may_read_bytes

    def _show(self, cluster_time: int, change: Change, frame: bytes) -> None:
        self._left -= 1
        shown = frame[:SHOWN_BYTES].decode(errors="ignore")
        self.lines.append({**_moment(cluster_time), "change": change, "frame": shown, "bytes": len(frame)})


def _moment(cluster_time: int) -> Line:
    return {"time": cluster_time >> 32, "order": cluster_time & 0xFFFFFFFF}
