"""What must be read of a collection for the tables that it feeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from changesource.mapping.pushdown import pushed_down
from changesource.mapping.spec import Json, TableSpec


@dataclass(frozen=True)
class CollectionNeeds:
    """What the tables of one collection need.

    ``fields`` are top-level fields of its documents, None for all; ``history`` asks for pre-images. ``filter`` is one
    that every document of theirs passes, for the snapshot: {} where none is known.
    """

    fields: frozenset[str] | None = None
    history: bool = False
    filter: Mapping[str, object] = field(default_factory=dict)


Needs: TypeAlias = Mapping[str, CollectionNeeds]
EVERYTHING = CollectionNeeds()


def needs_of(tables: Iterable[tuple[TableSpec, bool]]) -> CollectionNeeds:
    """What the tables of one collection need, each with whether it needs pre-images."""
    fields: set[str] | None = {"_id"}
    filters: list[Mapping[str, object]] = []
    history = False
    for spec, with_history in tables:
        own = fields_of(spec)
        fields = None if fields is None or own is None else fields | own
        filters.append(pushed_down(spec.filter))
        history = history or with_history
    distinct = [one for index, one in enumerate(filters) if one not in filters[:index]]
    passed: Mapping[str, object] = {}
    if distinct and all(distinct):
        passed = distinct[0] if len(distinct) == 1 else {"$or": distinct}
    return CollectionNeeds(None if fields is None else frozenset(fields), history, passed)


def fields_of(spec: TableSpec) -> set[str] | None:
    """Every name that the mapping mentions, and so every field that it can read; None where it reads all."""
    found: set[str] = set()
    paths: list[Json] = [f"${column.path}" for column in spec.columns if column.path]
    expressions: list[Json] = [column.expression for column in spec.columns if column.expression is not None]
    whole = _collect([spec.filter, list(spec.pipeline), paths, expressions], found)
    return None if whole else found


def _collect(value: Json, found: set[str]) -> bool:
    """Add the names in ``value`` to ``found``; True where it mentions the document as a whole."""
    if isinstance(value, str):
        if value.startswith("$"):
            _add(value.removeprefix("$$ROOT.").removeprefix("$$CURRENT.").removeprefix("$"), found)
        return value in ("$$ROOT", "$$CURRENT")
    if isinstance(value, list):
        # No early end: all of them are to be seen.
        return any([_collect(inner, found) for inner in value])
    if isinstance(value, dict):
        for key in value:
            _add(key, found)
        return any([key == "$getField" or _collect(inner, found) for key, inner in value.items()])
    return False


def _add(path: str, found: set[str]) -> None:
    """Add the field with which ``path`` begins; operators, variables and empty names are none."""
    name = path.partition(".")[0]
    if name and not name.startswith("$"):
        found.add(name)
