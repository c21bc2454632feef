"""What publishing the draft would do, said before it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from changesource.conf import Settings, settings
from changesource.exceptions import MappingError, TableStopped, UnknownPublication
from changesource.mapping.compiled import CompiledMapping, MappedTable, ignore_fault
from changesource.mapping.difference import Difference, difference
from changesource.mapping.fingerprint import replica_fingerprint, table_fingerprint
from changesource.mapping.paths import Document
from changesource.mapping.spec import Specification
from changesource.services.configuration import hash_of, readable, to_serve
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import PATIENCE, Look, looking
from changesource.store import watermarks
from changesource.store.mappings import latest_identity, read_draft

SAMPLE = 100  # documents, by which it is told how many rows a table makes of one


@dataclass(frozen=True)
class Replica:
    """One that publishing affects: its name, its state, and the tables that it would have."""

    name: str
    state: str
    tables: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Its name, and what it is doing."""
        return f"{self.name} ({self.state})" if self.state else self.name


@dataclass(frozen=True)
class Plan:
    """What publishing the draft would do. Nothing of MongoDB is needed for it.

    ``draft_hash`` tells the draft that this was said of; ``problem`` says why it cannot be published. ``changes`` lead
    from what is served, if anything is, to the draft; ``resyncs`` sync anew, ``refused`` ask for a publication that
    would not exist.
    """

    draft_hash: str
    is_first: bool
    problem: str
    changes: tuple[Difference, ...]
    resyncs: tuple[Replica, ...]
    refused: tuple[Replica, ...]
    mapping: CompiledMapping | None

    def __str__(self) -> str:
        """In a sentence or two; "" before the first publishing."""
        if self.problem:
            return f"The draft cannot be published as it is: {self.problem}."
        if self.is_first:
            return ""
        if not self.changes:
            return "The draft is what is served."
        resyncs, refused = ", ".join(map(str, self.resyncs)), ", ".join(map(str, self.refused))
        parts = [f"Publishing the draft makes these replicas sync anew: {resyncs}."] if resyncs else []
        if refused:
            parts.append(f"These ask for a publication that would not exist, and would be refused: {refused}.")
        return " ".join(parts) or "Publishing the draft resets no replica."


def plan(draft: Specification | None = None) -> Plan:
    """Make it of a draft, or of the one that is kept. A type of ``_id`` not known yet counts as changed."""
    draft, is_first = read_draft() if draft is None else draft, latest_identity() is None
    draft_hash = hash_of(draft)
    try:
        served = to_serve(draft, None)
        after = _compiled(served)
    except MappingError as error:
        return Plan(draft_hash, is_first, error.message, (), (), (), None)
    # What cannot be read counts as nothing: all replicas may sync anew.
    published = readable()
    before = published.specification if published else Specification()
    changes = difference(before, served)
    if is_first:
        return Plan(draft_hash, True, "", changes, (), (), after)
    resyncs, refused = [], []
    for name, publications, state in watermarks.replicas():
        try:
            new = after.published(publications)
            if _fingerprint(before, publications) != new.fingerprint:
                resyncs.append(Replica(name, state, tuple(new.tables)))
        except UnknownPublication:
            refused.append(Replica(name, state))
    return Plan(draft_hash, False, "", changes, tuple(resyncs), tuple(refused), after)


def resynced_rows(chosen: Settings, planned: Plan, seconds: float = PATIENCE) -> int:
    """About how many rows the replicas of ``planned.resyncs`` would read, all in all.

    By MongoDB's own count of documents, and by what the tables make of a sample of them. Raises as ``looking`` does.
    """
    wanted = Counter(name for replica in planned.resyncs for name in replica.tables)
    mapping = planned.mapping
    if not wanted or mapping is None:
        return 0
    with looking(mongodb_uri(chosen), chosen.mongodb_database, seconds) as look:
        rows = table_rows(look, mapping, wanted)
    return sum(rows[name] * replicas for name, replicas in wanted.items())


def table_rows(look: Look, mapping: CompiledMapping, names: Mapping[str, object]) -> dict[str, int]:
    """About how many rows each of these tables has. Raises as ``looking`` does."""
    rows: dict[str, int] = {}
    for collection, tables in mapping.by_collection.items():
        asked = [table for table in tables if table.name in names]
        if not asked:
            continue
        count, documents = look.count(collection), look.sample(collection, SAMPLE)
        for table in asked:
            made = sum(_rows_of(table, document) for document in documents)
            rows[table.name] = round(count * made / len(documents)) if documents else 0
    return rows


def _rows_of(table: MappedTable, document: Document) -> int:
    try:
        return len(table.encoded(document, table.inserts, ignore_fault))
    except TableStopped:
        return 0


def _fingerprint(spec: Specification, publications: Collection[str]) -> int:
    """That of a replica of these publications, whether or not this release would take ``spec``."""
    chosen = settings()
    named = {name for publication in publications for name in spec.publications.get(publication, ())}
    return replica_fingerprint(
        table_fingerprint(chosen.mongodb_database, table, chosen.max_row_bytes)
        for table in spec.tables
        if table.name in named or not publications
    )


def _compiled(spec: Specification) -> CompiledMapping:
    chosen = settings()
    return CompiledMapping.compile(spec, chosen.mongodb_database, chosen.max_row_bytes)
