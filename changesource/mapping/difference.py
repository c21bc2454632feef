"""What differs between two specifications, place by place, for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from changesource.mapping.formats import write_specification
from changesource.mapping.spec import Json, Specification, TableSpec

_NOTHING: Final = object()
SHOWN: Final = 200


@dataclass(frozen=True)
class Part:
    """One place within a table or publication, such as ``columns.id.type``, and what stood and stands there.

    Both are JSON, "" where there was, or is, nothing.
    """

    place: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """A table, or a publication, that was added, removed or changed; ``parts`` say how."""

    kind: Literal["table", "publication"]
    name: str
    change: Literal["added", "removed", "changed"]
    parts: tuple[Part, ...]

    @property
    def title(self) -> str:
        """Its name, as lists show it."""
        return f"publication {self.name}" if self.kind == "publication" else self.name

    def __str__(self) -> str:
        """What happened to it."""
        return f"{self.change} {self.title}"


def difference(before: Specification, after: Specification) -> tuple[Difference, ...]:
    """What leads from ``before`` to ``after``, tables first, each by name."""
    old, new = write_specification(before), write_specification(after)
    return (
        *_named("table", old["tables"], new["tables"]),
        *_named("publication", old["publications"], new["publications"]),
    )


def table_difference(before: TableSpec, after: TableSpec) -> tuple[Part, ...]:
    """What differs between two forms of one table, its name included."""
    renamed = (Part("name", _shown(before.name), _shown(after.name)),) if before.name != after.name else ()
    found = difference(Specification((replace(before, name=after.name),)), Specification((after,)))
    return (*renamed, *(found[0].parts if found else ()))


def in_lines(differences: Iterable[Difference]) -> Iterator[str]:
    """Each difference as lines of text; what was added or removed is named alone."""
    for one in differences:
        yield str(one)
        if one.change == "changed":
            for part in one.parts:
                yield f"  {part.place} {part.before or '-'} -> {part.after or '-'}".replace("   ", "  ")


def in_words(differences: Iterable[Difference]) -> str:
    """The differences as one text, for a history; long values are cut."""
    return " ".join(
        f"{one.title}: {'; '.join(_step(part) for part in one.parts)}." if one.change == "changed" else f"{one}."
        for one in differences
    )


def _step(part: Part) -> str:
    before, after = (value if len(value) <= SHOWN else value[:SHOWN] + "..." for value in (part.before, part.after))
    return f"{part.place} {before or 'nothing'} -> {after or 'nothing'}".strip()


def _named(kind: Literal["table", "publication"], old: Json, new: Json) -> Iterator[Difference]:
    before, after = _entries(old), _entries(new)
    for name in sorted({*before, *after}):
        parts = tuple(_parts("", before.get(name, _NOTHING), after.get(name, _NOTHING)))
        if name not in before:
            yield Difference(kind, name, "added", parts)
        elif name not in after:
            yield Difference(kind, name, "removed", parts)
        elif parts:
            yield Difference(kind, name, "changed", parts)


def _entries(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _parts(place: str, before: object, after: object) -> Iterator[Part]:
    """Down to the keys of columns that stay; a filter or a pipeline differs as a whole."""
    known = [value for value in (before, after) if value is not _NOTHING]
    opened = place in ("", "columns") or (place.startswith("columns.") and place.count(".") == 1 and len(known) > 1)
    if not opened or not all(isinstance(value, dict) for value in known):
        # As text, since the order of keys counts in MongoDB.
        if _shown(before) != _shown(after):
            yield Part(place, _shown(before), _shown(after))
        return
    old, new = _entries(before), _entries(after)
    if place == "columns" and old and new:
        kept, moved = [name for name in old if name in new], [name for name in new if name in old]
        if kept != moved:
            yield Part("order of columns", ", ".join(old), ", ".join(new))
    for name in (*old, *(name for name in new if name not in old)):
        yield from _parts(f"{place}.{name}".lstrip("."), old.get(name, _NOTHING), new.get(name, _NOTHING))


def _shown(value: object) -> str:
    return "" if value is _NOTHING else json.dumps(value, ensure_ascii=False)
