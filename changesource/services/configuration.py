"""Configuration from draft to served: checking, publishing, importing, and the tables that files and URLs give."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias, TypeVar

from channels.db import database_sync_to_async

from changesource import tracing
from changesource.conf import Settings, settings
from changesource.exceptions import (
    ConfigurationUnavailable,
    DraftChanged,
    MappingError,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.mapping.fingerprint import table_fingerprint
from changesource.mapping.formats import write_specification
from changesource.mapping.questions import Answers, Questions, key_fields, questions_of
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import ColumnSpec, IdType, Specification, TableSpec
from changesource.models import ManagedReading, MappingRevision
from changesource.services.config_files import read_managed, shown_origin
from changesource.store import mappings as store
from changesource.store import readings
from changesource.store.readings import Result

logger = logging.getLogger(__name__)
T = TypeVar("T")
PUBLISHING_TRIES = 5

Inspect: TypeAlias = Callable[[Mapping[str, Questions]], Mapping[str, Answers]]
"""Refuses collections that cannot be watched, or as their tables need; gives the BSON types of keys."""


@dataclass(frozen=True)
class Published:
    """What is served: the enabled tables, and the publications of them."""

    number: int
    specification: Specification


@dataclass(frozen=True)
class Changes:
    """What an import does to the draft, by the names of tables and publications.

    ``draft_hash`` tells the draft that this was said of, ``draft`` is what becomes of it.
    """

    made: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    draft_hash: str
    draft: Specification


def current() -> Published | None:
    """What is served; None before the first publishing. Cheap to ask often.

    Raises ``MappingError`` where it cannot be read, as when another release has written it.
    """
    identity = store.latest_identity()
    return None if identity is None else _published(*identity)


async def acurrent() -> Published | None:
    """``current`` for coroutines."""
    published: Published | None = await database_sync_to_async(current)()
    return published


def readable() -> Published | None:
    """``current``, or None where that cannot be read: for another publishing, which mends it."""
    try:
        return current()
    except MappingError:
        return None


@lru_cache(maxsize=2)
def _published(number: int, content_hash: str) -> Published:
    """A revision, read once; its hash tells apart two databases that one process may see."""
    return Published(number, store.specification_of(number))


def publish(by: str, note: str = "", inspect: Inspect | None = None, *, seen: str = "") -> MappingRevision:
    """Serve the draft from now on. A draft that equals what is served makes no new revision.

    ``inspect`` looks at the collections; without it, types of ``_id`` that are left open stay so. ``seen`` is the hash
    of the draft that somebody decided on: where it is another by now, ``DraftChanged`` is raised. Raises
    ``MappingError``, ``SourceRefused`` for what cannot be watched, and ``SourceUnavailable`` where a type is to be
    found out and MongoDB does not answer.
    """

    def prepare(basis: store.Basis) -> Callable[[], MappingRevision]:
        if seen and hash_of(basis.draft) != seen:
            raise DraftChanged()
        check(basis.draft)
        _check_can_be_asked(basis.draft, inspect)
        served = to_serve(basis.draft, inspect)
        return lambda: _record(served, by, note)

    return _undisturbed(prepare)


def _undisturbed(prepare: Callable[[store.Basis], Callable[[], T]]) -> T:
    """Return what ``prepare``'s result returns, in a transaction that still finds what ``prepare`` was given.

    Preparing asks MongoDB and takes a while, in which others may edit and publish: then it begins anew, so that
    nobody's work is undone, and nothing is served that never was.
    """
    with tracing.span("publish mappings"):
        for _ in range(PUBLISHING_TRIES):
            with store.consistent():
                basis = store.basis()
            finish = prepare(basis)
            with store.alone():
                if store.basis() == basis:
                    return finish()
            logger.info("mappings were changed by others meanwhile, publishing begins anew")
    raise ConfigurationUnavailable("The mappings are being changed by others all the time.", remedy="Try again.")


def check(spec: Specification) -> None:
    """Refuse what cannot be served. Raises ``MappingError``."""
    seen: dict[str, str] = {}
    for table in spec.tables:
        compile_table(table)
        if table.collection == settings().barrier_collection:
            # Its documents are positions and heartbeats: no row of it would ever settle.
            raise MappingError(f"tables.{table.name}.collection", f"{table.collection} is zerosource's own collection")
        other = seen.setdefault(table.name.lower(), table.name)
        if other != table.name:
            # The replica is SQLite, which takes the two for one.
            raise MappingError(f"tables.{table.name}", f"differs from the table {other} by upper and lower case only")
    known = set(seen.values())
    for publication, members in spec.publications.items():
        if not publication:
            raise MappingError("publications", "a publication's name must not be empty")
        for member in members:
            if member not in known:
                raise MappingError(f"publications.{publication}", f"there is no table {member!r}")


def import_specification(
    spec: Specification,
    by: str,
    note: str = "",
    *,
    inspect: Inspect | None = None,
    dry_run: bool = False,
    seen: str = "",
) -> Changes:
    """Make the tables and publications of ``spec`` here, or change those of the same names, and publish.

    Managed ones of the same name are refused; a wrong ``spec`` changes nothing. ``seen`` is as in ``publish``, which
    says too what is raised.
    """

    def prepare(basis: store.Basis) -> Callable[[], Changes]:
        if seen and hash_of(basis.draft) != seen:
            raise DraftChanged()
        _refuse_clash(spec, basis.managed_tables, basis.managed_publications, "is managed")
        merged = _merged(basis.draft, spec)
        check(merged)
        changes = _changes(basis.draft, spec, merged)
        _check_can_be_asked(merged, inspect)
        served = to_serve(merged, inspect)

        def finish() -> Changes:
            if not dry_run:
                store.save(spec, managed_by="")
                _record(served, by, note)
            return changes

        return finish

    return _undisturbed(prepare)


def load_managed(
    chosen: Settings | None = None, inspect: Inspect | None = None, *, again: bool = False
) -> MappingRevision | None:
    """Read SCHEMA_* and TABLE_MAPPINGS_* and serve what they give; tables made in the admin stay as they are.

    A content that was loaded before changes nothing, so that old and new processes of a rolling update do not take
    turns in resetting replicas; with ``again``, an operator's wish, only the content that took effect last is skipped.
    An unreachable source keeps what is served. Gives what is served then; None where nothing was ever published.

    Raises ``ConfigurationUnavailable`` where nothing was ever loaded, ``MappingError`` where a file is wrong, else as
    ``publish`` does; none changes anything.
    """
    chosen = chosen or settings()
    if not chosen.has_managed_source:
        return store.latest_revision()
    for _ in range(PUBLISHING_TRIES):
        since = store.latest_content()
        try:
            with noting_failure():
                spec = read_managed(chosen)
        except ConfigurationUnavailable as exc:
            if since is None:
                raise
            logger.warning("managed mappings unreachable, keeping the last ones", extra={"reason": exc.message})
            break
        result = serve_managed(spec, shown_origin(chosen), inspect, since=since, again=again)
        if result is Result.OLDER:
            logger.warning(
                "managed mappings are older ones that were replaced; manage.py reloadmappings brings them back"
            )
        if result is not Result.UNCHANGED or store.latest_content() == hash_of(spec):
            break
        # Another process was faster: what it took may be the newer one, or of another file.
    return store.latest_revision()


@contextmanager
def noting_failure() -> Iterator[None]:
    """Have operators see an error that comes of the managed source; it is raised all the same."""
    try:
        yield
    except ZerosourceError as error:
        readings.note(Result.FAILED, error.code, error.message)
        raise


def serve_managed(
    spec: Specification, origin: str, inspect: Inspect | None, *, since: str | None, again: bool = False
) -> ManagedReading.Result:
    """Serve what the managed source gave, unless it was loaded before; ``again`` and errors are as in ``load_managed``.

    ``since`` is the hash of the content that had taken effect last before it was read: where another one has since,
    that may be the newer one, and nothing is done. What comes of it is what operators see.
    """
    content_hash = hash_of(spec)
    with noting_failure():
        if content_hash == store.latest_content():
            result = Result.UNCHANGED
        elif not again and store.is_known_content(content_hash):
            result = Result.OLDER
        else:
            took = _take_managed(spec, content_hash, origin, inspect, since=since, again=again)
            result = Result.LOADED if took else Result.UNCHANGED
    readings.note(result)
    return result


def _take_managed(
    spec: Specification, content_hash: str, origin: str, inspect: Inspect | None, *, since: str | None, again: bool
) -> bool:
    """Replace the managed tables and publications by those of ``spec`` and serve them; False where another process did.

    Beside them is served what was served before: publishing edits made in the admin is left to operators.
    """

    def prepare(basis: store.Basis) -> Callable[[], bool]:
        _refuse_clash(spec, basis.own_tables, basis.own_publications, "is made in the admin")
        if basis.managed_tables and not spec.tables and not again:
            # All replicas would lose all rows, and the former content would not be taken again by itself.
            raise MappingError("tables", "there is none any more; manage.py reloadmappings takes that all the same")
        # Tables of the admin are served on as they are, so what is served must be known.
        published = current() if basis.own_tables or basis.own_publications else readable()
        before = published.specification if published else Specification()
        kept = Specification(
            tuple(table for table in before.tables if table.name not in basis.managed_tables),
            {name: to for name, to in before.publications.items() if name not in basis.managed_publications},
        )
        merged = _only_known(_merged(kept, spec))
        check(merged)
        _check_can_be_asked(merged, inspect)
        served = to_serve(merged, inspect)

        def finish() -> bool:
            # Another process may be faster.
            if not again and (store.latest_content() != since or store.is_known_content(content_hash)):
                return False
            store.note_content(content_hash, origin)
            gone = basis.managed_tables - {table.name for table in spec.tables}
            store.remove_managed(gone, basis.managed_publications - set(spec.publications))
            store.save(spec, managed_by=origin)
            logger.info("managed mappings loaded", extra={"tables": len(spec.tables), "origin": origin})
            _record(served, origin, "loaded")
            return True

        return finish

    return _undisturbed(prepare)


def take_over(name: str) -> str:
    """Make a managed table one that is edited in the admin; return where it came from.

    Raises ``MappingError`` where there is no such managed table. What is served stays as it is. A later content of the
    file or URL that still gives the table is refused, so that nobody's edits are lost.
    """
    origin = store.release(name)
    if not origin:
        raise MappingError(f"tables.{name}", "there is no managed table of this name")
    logger.info("managed table taken over", extra={"table": name, "origin": origin})
    return origin


def hash_of(spec: Specification) -> str:
    """A hash of all that ``spec`` says, whatever the order of its tables."""
    return hashlib.sha256(json.dumps(write_specification(spec)).encode()).hexdigest()


def _record(served: Specification, by: str, note: str) -> MappingRevision:
    """Keep ``served`` as the latest revision, unless it is that already. Runs in a transaction."""
    latest = store.latest_revision()
    content_hash = hash_of(served)
    database, row_bytes = settings().mongodb_database, settings().max_row_bytes
    fingerprints = {table.name: table_fingerprint(database, table, row_bytes) for table in served.tables}
    # The same mappings for another database, or another bound of rows, are other fingerprints.
    if latest is not None and latest.content_hash == content_hash and latest.fingerprints == fingerprints:
        return latest
    revision = store.add_revision(served, fingerprints, content_hash, by, note)
    logger.info("mappings published", extra={"revision": revision.number, "tables": len(served.tables), "by": by})
    return revision


def to_serve(spec: Specification, inspect: Inspect | None) -> Specification:
    """What publishing ``spec`` serves: the enabled tables, with the types of their keys filled in, and publications.

    Where ``inspect`` cannot tell (the collection is empty), the type that was served last for the table stays.
    """
    published = readable()
    before = {table.name: table for table in published.specification.tables} if published else {}
    found = _inspected([table for table in spec.tables if table.enabled], inspect)

    def completed(table: TableSpec) -> TableSpec:
        old = before.get(table.name)
        same = old if old is not None and old.collection == table.collection else None
        return _typed(table, found.get(table.collection, Answers()), same)

    enabled = Specification(tuple(completed(table) for table in spec.tables if table.enabled), spec.publications)
    served = _only_known(enabled)
    check(served)
    return served


def _typed(table: TableSpec, found: Answers, served: TableSpec | None) -> TableSpec:
    """``table`` with the types of its key that it leaves open, as they were found, or else as they are served."""
    fields = key_fields(compile_table(table))
    if found.mixed and not table.id_type and not fields:
        raise MappingError(
            f"tables.{table.name}.idType",
            "the collection's _id has several BSON types; declare the one that has rows (others are row errors)",
        )
    known = {column.name: column for column in served.columns} if served is not None else {}

    def key_type(column: ColumnSpec) -> IdType:
        if column.key_type or column.name not in fields:
            return column.key_type
        old = known.get(column.name)
        kept = old.key_type if old is not None and old.source == column.source else ""
        return found.field_types.get(fields[column.name], "") or kept

    id_type = table.id_type or found.id_type or (served.id_type if served is not None else "")
    columns = tuple(replace(column, key_type=key_type(column)) for column in table.columns)
    return replace(table, id_type=id_type, columns=columns)


def _check_can_be_asked(spec: Specification, inspect: Inspect | None) -> None:
    """Refuse tables of whose keys MongoDB must be asked where none is configured."""
    if inspect is not None:
        return
    for table in spec.tables:
        if table.enabled and key_fields(compile_table(table)):
            raise ConfigurationUnavailable(
                f"The key of table {table.name} needs a unique index, and MONGODB_URI is not set to ask for it.",
                remedy="Set MONGODB_URI to that of the server; the embedded MongoDB's is printed at its start.",
            )
        if table.enabled and not table.id_type:
            logger.warning("the type of _id is not known, MONGODB_URI is not set", extra={"table": table.name})


def resolved(table: TableSpec, inspect: Inspect | None) -> TableSpec:
    """``table`` with the types of its key as publishing it would find them; raises as ``publish`` does."""
    published = readable()
    served = {one.name: one for one in published.specification.tables} if published else {}
    # Of the types of the key alone: what publishing would refuse can be looked at all the same.
    fields = questions_of([compile_table(table)])[table.collection].typed_fields
    answers = {} if inspect is None else inspect({table.collection: Questions(typed_fields=fields)})
    return _typed(table, answers.get(table.collection, Answers()), served.get(table.name))


def _inspected(tables: Collection[TableSpec], inspect: Inspect | None) -> Mapping[str, Answers]:
    """What ``inspect`` says of the tables' collections; MongoDB may be away where nothing is left open."""
    if inspect is None or not tables:
        return {}
    compiled = [compile_table(table) for table in tables]
    try:
        return inspect(questions_of(compiled))
    except SourceUnavailable as error:
        if not all(table.spec.id_type and not key_fields(table) for table in compiled):
            raise
        logger.warning("collections were not checked, MongoDB does not answer", extra={"error": str(error)})
        return {}


def _merged(old: Specification, new: Specification) -> Specification:
    """Both, where ``new`` wins by name; sorted by name."""
    tables = {table.name: table for table in (*old.tables, *new.tables)}
    return Specification(tuple(tables[name] for name in sorted(tables)), {**old.publications, **new.publications})


def _only_known(spec: Specification) -> Specification:
    """``spec`` with publications of its own tables alone."""
    known = {table.name for table in spec.tables}
    return replace(
        spec,
        publications={
            name: tuple(member for member in members if member in known) for name, members in spec.publications.items()
        },
    )


def _refuse_clash(spec: Specification, tables: Collection[str], publications: Collection[str], why: str) -> None:
    """Refuse names that are taken by the other side."""
    for table in spec.tables:
        if table.name in tables:
            raise MappingError(f"tables.{table.name}", f"a table of this name {why}; rename or remove one of the two")
    for name in spec.publications:
        if name in publications:
            raise MappingError(
                f"publications.{name}", f"a publication of this name {why}; rename or remove one of the two"
            )


def _changes(draft: Specification, spec: Specification, merged: Specification) -> Changes:
    """What ``spec`` does to ``draft``."""
    old_tables = {table.name: table for table in draft.tables}
    pairs = [(table.name, old_tables.get(table.name), table) for table in spec.tables]
    made = [name for name, old, _ in pairs if old is None]
    changed = [name for name, old, new in pairs if old is not None and hash_of(_alone(old)) != hash_of(_alone(new))]
    for name, members in spec.publications.items():
        old_members = draft.publications.get(name)
        if old_members is None:
            made.append(f"publication {name}")
        elif set(old_members) != set(members):
            changed.append(f"publication {name}")
    everything = [name for name, _, _ in pairs] + [f"publication {name}" for name in spec.publications]
    unchanged = [name for name in everything if name not in made and name not in changed]
    return Changes(tuple(made), tuple(changed), tuple(unchanged), hash_of(draft), merged)


def _alone(table: TableSpec) -> Specification:
    return Specification((table,))
