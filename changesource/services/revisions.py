"""What was published before: how revisions differ, and the draft made as one of them was."""

from __future__ import annotations

from dataclasses import dataclass, replace

from changesource.conf import settings
from changesource.exceptions import DraftChanged, MappingError
from changesource.mapping.difference import Difference, difference
from changesource.mapping.spec import Specification
from changesource.models import MappingRevision
from changesource.services.configuration import check, hash_of, to_serve
from changesource.store import mappings as store


@dataclass(frozen=True)
class Restoring:
    """What restoring a revision does to the draft.

    ``draft_hash`` tells the draft that this was said of; ``kept`` are the managed tables and publications that stay as
    they are, whatever the revision had.
    """

    draft_hash: str
    changes: tuple[Difference, ...]
    kept: tuple[str, ...]


def revision_difference(before: int, after: int | None) -> tuple[Difference, ...]:
    """What leads from one revision to another, or (None) to the draft. Raises ``MappingError`` for a wrong number."""
    return difference(_held(before), _draft() if after is None else _held(after))


def _draft() -> Specification:
    """The draft as it would be served; where it could not be, its enabled tables as they are."""
    draft = store.read_draft()
    try:
        return to_serve(draft, None)
    except MappingError:
        return replace(draft, tables=tuple(table for table in draft.tables if table.enabled))


def restoring(number: int) -> Restoring:
    """What ``restore`` would do now. Raises ``MappingError`` for a wrong number."""
    with store.consistent():
        return _restored(number)[0]


def restore(number: int, *, seen: str = "") -> Restoring:
    """Make the draft as a revision was; nothing is published.

    Tables that it did not have are disabled, not deleted; publications that it did not have are removed. ``seen`` is
    the hash of the draft that somebody decided on: where it is another by now, ``DraftChanged`` is raised. Raises
    ``MappingError`` for a wrong number, and where the revision and what is managed do not go together.
    """
    with store.alone():
        done, spec, gone = _restored(number)
        if seen and done.draft_hash != seen:
            raise DraftChanged()
        changed = {one.name for one in done.changes if one.kind == "table"}
        store.save(replace(spec, tables=tuple(table for table in spec.tables if table.name in changed)), managed_by="")
        store.remove_publications(gone)
    return done


def _restored(number: int) -> tuple[Restoring, Specification, tuple[str, ...]]:
    """What it does, the own tables and publications as they become, and the publications that go."""
    basis, held = store.basis(), _held(number)
    managed = settings().has_managed_source
    tables = {table.name: table for table in basis.draft.tables}
    kept_tables = basis.managed_tables if managed else frozenset()
    kept_publications = basis.managed_publications if managed else frozenset()
    own = {name: replace(table, enabled=False) for name, table in tables.items() if name not in kept_tables}
    own |= {table.name: table for table in held.tables if table.name not in kept_tables}
    known = {*own, *kept_tables}
    publications = {
        name: tuple(member for member in members if member in known)
        for name, members in held.publications.items()
        if name not in kept_publications
    }
    spec = Specification(tuple(own.values()), publications)
    whole = Specification(
        (*spec.tables, *(tables[name] for name in kept_tables)),
        {**publications, **{name: basis.draft.publications[name] for name in kept_publications}},
    )
    check(whole)
    gone = tuple(name for name in basis.draft.publications if name not in whole.publications)
    kept = (*sorted(kept_tables), *(f"publication {name}" for name in sorted(kept_publications)))
    return Restoring(hash_of(basis.draft), difference(basis.draft, whole), kept), spec, gone


def _held(number: int) -> Specification:
    try:
        return store.specification_of(number)
    except MappingRevision.DoesNotExist:
        raise MappingError("revision", f"there is no revision {number}") from None
