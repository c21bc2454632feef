"""Change stream events, read from MongoDB's documents into values that the rest needs no driver for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from bson import Timestamp

from changesource.exceptions import ReplyUnreadable

Kind = Literal["insert", "update", "replace", "delete", "drop", "rename", "dropDatabase", "barrier"]
DATA_KINDS: dict[object, Kind] = {
    "insert": "insert",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "drop": "drop",
    "rename": "rename",
    "dropDatabase": "dropDatabase",
}
MAX_TIME_MS = 2**53 - 1  # a larger one would not be a number to zero-cache
OF_DOCUMENTS = frozenset({"insert", "update", "replace", "delete"})


class Event(NamedTuple):
    """One change event.

    ``cluster_time`` is seconds << 32 | increment. ``transaction`` is (lsid, txnNumber) of a MongoDB transaction.
    ``document`` is the document after the change, None where there is none; ``before`` is the one before it, None
    where there is none or MongoDB does not have it; ``target`` is the collection that a ``rename`` gives, or the mark
    that a ``barrier`` bears. ``wall`` is when it was made by the clock of MongoDB's primary, as it came: see
    ``milliseconds``.
    """

    kind: Kind
    cluster_time: int
    collection: str = ""
    document_id: object = None
    document: Mapping[str, object] | None = None
    transaction: tuple[object, object] | None = None
    target: str = ""
    before: Mapping[str, object] | None = None
    wall: object = None


# What a named tuple is made by, without the function that takes its fields by name: there is one for each event.
_new = tuple.__new__


def is_of_document(event: Event) -> bool:
    """Whether the event is of one document of a mapped collection."""
    return event.kind in OF_DOCUMENTS


def with_document(event: Event, document: Mapping[str, object] | None) -> Event:
    """Return an event of one document with it as it is at a later time; None where it is gone."""
    kind: Kind = "replace" if event.kind == "delete" and document is not None else event.kind
    return event._replace(kind=kind, document=document)


def to_cluster_time(timestamp: Timestamp) -> int:
    """Return a BSON timestamp as one integer."""
    return timestamp.time << 32 | timestamp.inc


def to_timestamp(cluster_time: int) -> Timestamp:
    """Return the BSON timestamp of a cluster time."""
    return Timestamp(cluster_time >> 32, cluster_time & 0xFFFFFFFF)


def milliseconds(wall: object) -> int:
    """Return an event's ``wall`` in milliseconds since 1970; 0 where it is not known."""
    return int(wall) if isinstance(wall, int) and 0 < wall <= MAX_TIME_MS else 0


def read_event(raw: Mapping[str, object], barrier_collection: str) -> Event | None:
    """Return the event of a change stream's document, decoded to dicts; None for kinds that say nothing of rows.

    Raises ``ReplyUnreadable`` where it does not say when, where or of which document: passed over, it would be lost.
    """
    operation = raw.get("operationType")
    kind = DATA_KINDS.get(operation) if type(operation) is str else None  # others may have no hash
    if kind is None:
        return None
    cluster_time = raw.get("clusterTime")
    if not isinstance(cluster_time, Timestamp):
        raise _lacks("clusterTime", kind)
    document = raw.get("fullDocument")
    if not isinstance(document, dict):
        document = None
    namespace = raw.get("ns")
    collection = namespace.get("coll") if isinstance(namespace, dict) else None
    if not isinstance(collection, str):
        if kind != "dropDatabase":
            raise _lacks("ns.coll", kind)
        collection = ""
    # A rename of it is one of whatever its target is.
    if collection == barrier_collection and kind != "rename":
        mark = document.get("mark") if document is not None else None
        wall = raw.get("wallTime")
        return Event("barrier", to_cluster_time(cluster_time), collection, target=str(mark or ""), wall=wall)
    key, session, before = raw.get("documentKey"), raw.get("lsid"), raw.get("fullDocumentBeforeChange")
    if not (isinstance(key, dict) and "_id" in key) and kind in OF_DOCUMENTS:
        raise _lacks("documentKey._id", kind)
    return _new(
        Event,
        (
            kind,
            cluster_time.time << 32 | cluster_time.inc,
            collection,
            key.get("_id") if isinstance(key, dict) else None,
            document,
            (session.get("id"), raw.get("txnNumber")) if isinstance(session, dict) else None,
            _target(raw.get("to")) if kind == "rename" else "",
            before if isinstance(before, dict) else None,
            raw.get("wallTime"),
        ),
    )


def _target(namespace: object) -> str:
    found = namespace.get("coll") if isinstance(namespace, dict) else None
    if not isinstance(found, str):
        raise _lacks("to.coll", "rename")
    return found


def _lacks(field: str, kind: Kind) -> ReplyUnreadable:
    return ReplyUnreadable(f"A change event of the kind {kind} has no {field} that can be read.")
