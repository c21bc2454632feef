"""What a sample of documents says of their shape: columns, key, type of ``_id``, and a field that tells kinds apart.

It proposes, and gives its reasons: how often each BSON type was seen, and what a column of the proposed type makes of
those that differ. What fits which column is what ``values`` and ``keys`` themselves say.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bson.binary import Binary
from bson.decimal128 import Decimal128

from changesource.mapping.discriminators import Discriminator, discriminator
from changesource.mapping.documents import Salvaged
from changesource.mapping.keys import compile_key
from changesource.mapping.naming import fitting_name
from changesource.mapping.paths import MISSING, Document
from changesource.mapping.spec import ColumnSpec, ColumnType, IdType
from changesource.mapping.values import CONVERTERS, type_name, uuid_of

MAX_COLUMNS = 100
MAX_NESTED_FIELDS = 8  # an embedded document of more fields is shown as json
MAX_NESTED_DEPTH = 3
MISTAKES = 0.1  # values of other types than one's, up to this share, may be mistakes

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TEXTS: Final = {"string", "objectId", "UUID", "binary"}
_NUMBERS: Final = {"int", "long", "double", "decimal"}
_ID_TYPES: Final[dict[str, IdType]] = {
    "objectId": "objectId",
    "string": "string",
    "UUID": "uuid",
    "date": "date",
    **dict.fromkeys(_NUMBERS, "number"),
}
_AS_TEXT = {"bool": '"true" and "false"', "date": "dates in ISO 8601", **dict.fromkeys(_NUMBERS, "numbers as text")}


@dataclass(frozen=True)
class ProposedColumn:
    """A column, with how many documents have which BSON type there, how many have nothing, and what to know of it."""

    spec: ColumnSpec
    types: Mapping[str, int]
    missing: int
    note: str = ""


@dataclass(frozen=True)
class Proposal:
    """What a table of ``documents`` sampled ones may be; ``notes`` are sentences about the whole."""

    documents: int
    columns: tuple[ProposedColumn, ...]
    primary_key: tuple[str, ...]
    id_type: IdType
    discriminator: Discriminator | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Field:
    """A field's values, one for each document, ``MISSING`` where it has none."""

    path: tuple[str, ...]
    values: list[object]

    @property
    def present(self) -> list[object]:
        return [value for value in self.values if value is not None and value is not MISSING]


class _Undecodable:
    """Stands for a value that the driver cannot decode."""


def infer(documents: Sequence[Document]) -> Proposal:
    """Propose a table for documents as its pipeline, if any, leaves them.

    Where several of them have one ``_id``, the key gets a second column that tells them apart, if there is one.
    """
    notes: list[str] = []
    fields = _all_fields(documents, notes)
    columns: list[ProposedColumn] = []
    id_type: IdType = ""
    key: tuple[str, ...] = ()
    for field in fields:
        if field.path == ("_id",):
            taken = [other.path[0] for other in fields if len(other.path) == 1 and other.path != ("_id",)]
            name = "_id" if "id" in map(str.lower, taken) else "id"
            column, id_type = _id_column(name, field, notes)
            key = (name,) if id_type else ()
        else:
            column = _column(fitting_name(field.path, [one.spec.name for one in columns]), field)
        columns.append(column)
    if documents and not any(field.path == ("_id",) for field in fields):
        notes.append("No document has an _id any more: keep it in the pipeline, since the key needs it.")
    elif key:
        key = _completed(key, fields, columns, notes)
    return Proposal(len(documents), tuple(columns), key, id_type, discriminator(documents), tuple(notes))


def _all_fields(documents: Sequence[Document], notes: list[str]) -> list[_Field]:
    names = Counter(name for document in documents for name in _names_of(document))
    odd = [name for name in names if not name or name.startswith("$") or "." in name or "\0" in name]
    if odd:
        shown = ", ".join(repr(name) for name in odd[:3])
        notes.append(f"Fields that no path can name are left out: {shown}. Show them by an expression ($getField).")
    usual = {name for name, _ in names.most_common() if name not in odd}
    fields: list[_Field] = []
    # MongoDB itself puts _id first; a pipeline may not.
    for name in sorted((name for name in names if name in usual), key=lambda name: name != "_id"):
        fields += _fields((name,), [_value(document, name) for document in documents], 1)
    if len(fields) > MAX_COLUMNS:
        notes.append(f"There are {len(fields)} fields; the {MAX_COLUMNS} that most documents have are shown.")
        often = sorted(fields, key=lambda field: (field.path != ("_id",), -len(field.present)))[:MAX_COLUMNS]
        fields = [field for field in fields if field in often]
    return fields


def _names_of(document: Document) -> Iterable[str]:
    return (*document, *document.unreadable) if isinstance(document, Salvaged) else document


def _value(document: Document, name: str) -> object:
    if isinstance(document, Salvaged) and name in document.unreadable:
        return _Undecodable()
    return document.get(name, MISSING)


def _fields(path: tuple[str, ...], values: list[object], depth: int) -> list[_Field]:
    """The field itself, or those of the embedded document that it is in all documents that have it."""
    embedded = [value for value in values if isinstance(value, dict)]
    if path != ("_id",) and depth <= MAX_NESTED_DEPTH and _is_record(values, embedded):
        found: list[_Field] = []
        for name in dict.fromkeys(name for value in embedded for name in value):
            inner = [value.get(name, MISSING) if isinstance(value, dict) else MISSING for value in values]
            found += _fields((*path, name), inner, depth + 1)
        if len(found) <= MAX_NESTED_FIELDS:
            return found
    return [_Field(path, values)]


def _is_record(values: Iterable[object], embedded: Sequence[Mapping[str, object]]) -> bool:
    """Whether the embedded documents all have much the same few fields; else their names are data."""
    if any(value is not None and value is not MISSING and not isinstance(value, dict) for value in values):
        return False
    names = Counter(name for value in embedded for name in value)
    return 0 < len(names) <= MAX_NESTED_FIELDS and all(
        _PLAIN.fullmatch(name) and 2 * count >= len(embedded) for name, count in names.items()
    )


def _kind(value: object) -> str:
    """The BSON type, as people are told it."""
    if isinstance(value, _Undecodable):
        return "undecodable"
    if isinstance(value, Binary):
        return "UUID" if uuid_of(value) is not None else "binary"
    return type_name(value)


def _counted(field: _Field) -> dict[str, int]:
    counts = Counter(_kind(value) for value in field.values if value is not MISSING)
    return dict(counts.most_common())


def _column(name: str, field: _Field) -> ProposedColumn:
    known = [value for value in field.present if not isinstance(value, _Undecodable)]
    kinds = Counter(map(_kind, known))
    type_, note = _type_of(known, kinds)
    notes = [note] if note else []
    nulls = sum(_is_null(value) for value in known)
    if nulls:
        notes.append("NaN and infinities become null.")
    optional = len(known) - nulls < len(field.values)
    spec = ColumnSpec(name, type_, ".".join(field.path), optional)
    return ProposedColumn(spec, _counted(field), field.values.count(MISSING), " ".join(notes))


def _is_null(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, Decimal128) and not value.to_decimal().is_finite()


def _type_of(values: list[object], kinds: Counter[str]) -> tuple[ColumnType, str]:
    """The column type that takes all ``values``, and why where that is not plain."""
    if not values:
        return "string", "No document has a value, so the type is a guess."
    if kinds.keys() == {"bool"}:
        return "boolean", ""
    if kinds.keys() <= _NUMBERS | {"date"}:
        return _number_type(values, kinds)
    # Numbers and booleans alone would be told apart no more as text.
    if kinds.keys() & _TEXTS and _all_fit("string", values):
        texts = sorted({_AS_TEXT[kind] for kind in kinds if kind in _AS_TEXT})
        words = "A string column takes them all."
        if texts:
            words = f"A string column takes them all, {' and '.join(texts)}; json would keep each as it is."
        return "string", _mixed(kinds, words)
    return "json", _mixed(kinds, "Of the columns' types json alone keeps each as it is.")


def _number_type(values: list[object], kinds: Counter[str]) -> tuple[ColumnType, str]:
    large = sum(not _fits("number", value) for value in values)
    if large:
        return (
            "string",
            f"{large} of {len(values)} numbers are beyond what a number column holds; text keeps all digits.",
        )
    if any(isinstance(value, Decimal128) and not _survives(value) for value in values):
        return "string", "Decimals have more digits than a number holds; text keeps them all."
    if "date" in kinds:
        words = "Dates are milliseconds since 1970." if len(kinds) == 1 else ""
        return "number", words or _mixed(kinds, "Dates are milliseconds since 1970, beside plain numbers.")
    return "number", ""


def _survives(value: Decimal128) -> bool:
    """Whether the nearest double is written with the same digits."""
    exact = value.to_decimal()
    return not exact.is_finite() or Decimal(repr(float(exact))) == exact


def _all_fit(type_: ColumnType, values: Iterable[object]) -> bool:
    return all(_fits(type_, value) for value in values)


def _fits(type_: ColumnType, value: object) -> bool:
    try:
        CONVERTERS[type_][type(value)](value, Counter())
    except ValueError:
        return False
    return True


def _mixed(kinds: Counter[str], words: str) -> str:
    """How often each type was seen, then ``words``, and what to think of where the others are few; "" for one type."""
    if len(kinds) == 1:
        return ""
    total = kinds.total()
    shares = ", ".join(f"{kind} in {_share(count, total)}" for kind, count in kinds.most_common())
    (most, count), *_ = kinds.most_common()
    usual = "number" if most in _NUMBERS else "boolean" if most == "bool" else ""
    hint = ""
    if usual and total - count <= MISTAKES * total:
        hint = f" If the others are mistakes, a {usual} column lists them as row errors."
    return f"Mixed: {shares}. {words}{hint}"


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    return f"{percent:.0f} %" if percent >= 1 else "less than 1 %"


def _id_column(name: str, field: _Field, notes: list[str]) -> tuple[ProposedColumn, IdType]:
    """The column that shows ``_id``, and the type that has rows: the one of most documents."""
    found: Counter[IdType] = Counter(_ID_TYPES.get(_kind(value), "") for value in field.values)
    usual = found.most_common()
    id_type: IdType = next((kind for kind, _ in usual if kind), "")
    if not id_type:
        notes.append("No _id is of a type that can be a key: show fields of a unique index in the key instead.")
    elif len(usual) > 1:
        shares = ", ".join(f"{kind or 'others'} in {_share(count, found.total())}" for kind, count in usual)
        notes.append(f"_id is mixed: {shares}. Documents whose _id is no {id_type} are listed as row errors.")
    type_: ColumnType = "string" if id_type else "json"
    if id_type in ("number", "date"):
        fits = _fitting(compile_key(id_type, "number"), field.values)
        type_ = "number" if fits == found[id_type] else "string"
    return ProposedColumn(ColumnSpec(name, type_, "_id"), _counted(field), field.values.count(MISSING)), id_type


def _fitting(image: Callable[[object], object], values: Iterable[object]) -> int:
    """How many of ``values`` have an image."""
    fits = 0
    for value in values:
        try:
            image(value)
        except ValueError:
            continue
        fits += 1
    return fits


def _completed(
    key: tuple[str, ...], fields: Sequence[_Field], columns: Sequence[ProposedColumn], notes: list[str]
) -> tuple[str, ...]:
    """The key, with a second column where documents were multiplied: the first that tells all of them apart."""
    ids = next(list(map(repr, field.values)) for field in fields if field.path == ("_id",))
    if len(set(ids)) == len(ids):
        return key
    for field, column in zip(fields, columns, strict=True):
        spec = column.spec
        if spec.type not in ("string", "number") or spec.optional or spec.path == "_id":
            continue
        if len(set(zip(ids, map(repr, field.values), strict=True))) == len(ids):
            return (*key, spec.name)
    notes.append("A document has several rows, and no column tells them apart: add one that does to the key.")
    return key
