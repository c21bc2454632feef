"""The part of a filter that MongoDB may apply to a snapshot, so that it can use an index.

Our own evaluation decides; what is pushed down must only ever let pass what that lets pass, and maybe more. So it is
the part that MongoDB, comparing without a collation, is known to see alike, whatever the documents hold: text that
the driver could not decode, and fields that it could not, differ from what is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.objectid import ObjectId

from changesource.mapping.comparison import ORDERED
from changesource.mapping.filters import is_operators
from changesource.mapping.literals import literal
from changesource.mapping.spec import Json

REPLACED = "\ufffd"  # what stands for bytes that are no UTF-8


def pushed_down(filter: Mapping[str, Json]) -> dict[str, object]:
    """A filter, in the driver's values, that passes all that ``filter`` passes; {} where none is known."""
    parts: list[dict[str, object]] = []
    for key, value in filter.items():
        if key == "$and" and isinstance(value, list):
            parts += [pushed_down(member) for member in value if isinstance(member, dict)]
        elif key == "$or" and isinstance(value, list):
            members = [pushed_down(member) for member in value if isinstance(member, dict)]
            if all(members):
                parts.append({"$or": members})
        elif not key.startswith("$"):
            parts += _conditions(key, value)
    found = [part for part in parts if part]
    return found[0] if len(found) == 1 else {"$and": found} if found else {}


def _conditions(path: str, value: Json) -> list[dict[str, object]]:
    if not isinstance(value, dict) or not is_operators(value):
        found = literal(value, path)
        return [{path: {"$eq": found}}] if _is_exact(found) else []
    parts: list[dict[str, object]] = []
    for name, inner in value.items():
        if name == "$in" and isinstance(inner, list):
            members = [literal(member, path) for member in inner]
            if members and all(map(_is_exact, members)):
                parts.append({path: {"$in": members}})
        elif name == "$eq" or name in ORDERED:
            found = literal(inner, path)
            if _is_exact(found) and (name == "$eq" or not isinstance(found, str)):
                parts.append({path: {name: found}})
    return parts


def _is_exact(value: object) -> bool:
    """Whether MongoDB and we surely find the same documents by it."""
    if isinstance(value, str):
        return REPLACED not in value
    return type(value) in (bool, int, Int64, ObjectId, datetime, DatetimeMS)


def is_indexed(filter: Mapping[str, object], leading: Collection[str]) -> bool:
    """Whether indexes that begin with the fields ``leading`` spare MongoDB from reading all documents.

    ``filter`` is what ``pushed_down`` gave.
    """
    for key, value in filter.items():
        members = value if isinstance(value, list) else []
        if key == "$and" and any(is_indexed(member, leading) for member in members):
            return True
        if key == "$or" and all(is_indexed(member, leading) for member in members):
            return True
        if key in leading:
            return True
    return False


def filtered_fields(filter: Mapping[str, object]) -> list[str]:
    """The fields that a filter names, of what ``pushed_down`` gave, each once."""
    found: list[str] = []
    for key, value in filter.items():
        if key in ("$and", "$or") and isinstance(value, list):
            found += [field for member in value for field in filtered_fields(member)]
        else:
            found.append(key)
    return list(dict.fromkeys(found))
