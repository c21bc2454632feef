"""Whole columns at once: what ``values`` and ``keys`` make of one value, for the values of many documents.

Where all values are of one type that can be converted or checked as a whole, that takes a fraction of the time; where
they are not, or one does not pass, each goes by its own converter. A document with a value that does not fit, or in
which something is replaced, is marked as odd, and nothing else happens: it is for the caller to map it by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, TypeVar, cast

from bson.int64 import Int64
from bson.objectid import ObjectId

from changesource.mapping.comparison import EPOCH
from changesource.mapping.keys import Image, KeyImage
from changesource.mapping.paths import Document, is_unicode
from changesource.mapping.rows import UNFORESEEN, Column
from changesource.mapping.spec import ColumnType, Json
from changesource.mapping.values import MAX_SAFE_INTEGER, REPLACEMENT, Converters

T = TypeVar("T")
Whole: TypeAlias = Callable[[list[object]], Sequence[Json] | None]
"""Converts values that are all of one type; None where one of them needs a look of its own."""


def _texts(values: list[str]) -> list[str] | None:
    joined = "".join(values)
    return values if "\0" not in joined and (joined.isascii() or is_unicode(joined)) else None


def _exact_texts(values: list[str]) -> list[str] | None:
    return None if any(REPLACEMENT in value for value in values) else _texts(values)


def _object_ids(values: list[ObjectId]) -> list[str]:
    return list(map(ObjectId.__str__, values))


def _booleans(values: list[bool]) -> list[bool]:
    return values


def _integers(values: list[int]) -> list[int] | None:
    return values if -MAX_SAFE_INTEGER <= min(values) and max(values) <= MAX_SAFE_INTEGER else None


def _longs(values: list[Int64]) -> list[int] | None:
    return _integers(list(map(int, values)))


def _doubles(values: list[float]) -> list[float] | None:
    # Adding zero makes -0.0 a plain one.
    return [value + 0.0 for value in values] if all(map(math.isfinite, values)) else None


def _dates(values: list[datetime]) -> list[int]:
    # As ``milliseconds`` does, without a call for each.
    return [
        since.days * 86_400_000 + (since.seconds * 1000 + since.microseconds // 1000)
        for since in [value - EPOCH for value in values]
    ]


def _on(kind: type[T], whole: Callable[[list[T]], Sequence[Json] | None]) -> tuple[type, Whole]:
    # The cast is sound, since a column is handed over whose values are all of exactly this type.
    return kind, cast("Whole", whole)


_NUMBERS = (_on(int, _integers), _on(Int64, _longs), _on(float, _doubles), _on(datetime, _dates))
_WHOLE: dict[ColumnType, dict[type, Whole]] = {
    "string": dict((_on(str, _texts), _on(ObjectId, _object_ids))),
    "number": dict(_NUMBERS),
    "boolean": dict((_on(bool, _booleans),)),
    "json": dict((_on(str, _texts), _on(ObjectId, _object_ids), _on(bool, _booleans), *_NUMBERS)),
}
_WHOLE_KEYS: dict[ColumnType, dict[type, Whole]] = {
    "string": dict((_on(str, _exact_texts), _on(ObjectId, _object_ids))),
    "number": dict((_on(int, _integers), _on(Int64, _longs))),
}


def read_column(column: Column, documents: Sequence[Document], odd: bytearray) -> list[object]:
    """What ``column`` shows of each document; where reading fails, ``odd`` is set to 1 at the document's index."""
    if field := column.field:
        return [document.get(field) for document in documents]
    values: list[object] = []
    for index, document in enumerate(documents):
        try:
            values.append(column.read(document))
        except UNFORESEEN:
            odd[index] = 1
            values.append(None)
    return values


def convert_column(column: Column, values: list[object], odd: bytearray) -> Sequence[Json]:
    """What each value becomes in ``column``.

    ``odd`` is set to 1 at the index of a value that does not fit, or of which something was replaced.
    """
    kinds = set(map(type, values))
    nulls = type(None) in kinds
    if nulls:
        if not column.optional:
            return _one_by_one(column.converters, values, odd, optional=False)
        kinds.discard(type(None))
    if not kinds:
        return cast("list[Json]", values)
    there = [value for value in values if value is not None] if nulls else values
    found = _at_once(_WHOLE[column.converters.column_type], kinds, there)
    if found is None:
        return _one_by_one(column.converters, values, odd, column.optional)
    if not nulls:
        return found
    following = iter(found)
    return [None if value is None else next(following) for value in values]


def convert_key(image: Image, values: list[object], odd: bytearray) -> Sequence[Json]:
    """What each value becomes in a key's column; ``odd`` is set to 1 at the index of one that gives no sure key."""
    if isinstance(image, KeyImage):
        kinds = set(map(type, values))
        found = _at_once(_WHOLE_KEYS[image.column_type], kinds, values) if kinds <= image.kinds else None
        if found is not None:
            return found
    keys: list[Json] = []
    for index, value in enumerate(values):
        try:
            keys.append(image(value))
        except UNFORESEEN:
            odd[index] = 1
            keys.append(None)
    return keys


def _at_once(wholes: Mapping[type, Whole], kinds: set[type], values: list[object]) -> Sequence[Json] | None:
    if len(kinds) != 1:
        return None
    whole = wholes.get(*kinds)
    try:
        return None if whole is None else whole(values)
    except UNFORESEEN:
        return None


def _one_by_one(converters: Converters, values: list[object], odd: bytearray, optional: bool) -> list[Json]:
    replaced: Counter[str] = Counter()
    column: list[Json] = []
    for index, value in enumerate(values):
        converted: Json = None
        try:
            if value is not None:
                converted = converters[type(value)](value, replaced)
        except UNFORESEEN:
            odd[index] = 1
        if replaced or (converted is None and not optional):
            odd[index] = 1
            replaced.clear()
        column.append(converted)
    return column
