"""The mappings that operators keep: models to specifications and back, and the revisions that were published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.utils import timezone

from changesource.mapping.formats import read_specification, write_specification
from changesource.mapping.spec import Json, Specification, TableSpec
from changesource.models import ColumnMapping, ManagedContent, MappingRevision, Publication, TableMapping

PUBLISHING_LOCK = 0x7A657270  # any number that is ours


@contextmanager
def consistent() -> Iterator[None]:
    """Within it, all reads show one moment: PostgreSQL else lets a save come between the reads of one draft."""
    begins = not connection.in_atomic_block
    with transaction.atomic():
        if begins and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


@contextmanager
def alone() -> Iterator[None]:
    """A transaction that no other one like it overlaps. SQLite's lock its file; PostgreSQL has a lock for it."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PUBLISHING_LOCK])
        yield


@dataclass(frozen=True)
class Basis:
    """What a publishing rests on: the draft, what is served (number and content hash), and who made what."""

    draft: Specification
    served: tuple[int, str] | None
    managed_tables: frozenset[str]
    own_tables: frozenset[str]
    managed_publications: frozenset[str]
    own_publications: frozenset[str]


def basis() -> Basis:
    """Return it as it is now."""
    return Basis(
        read_draft(),
        latest_identity(),
        table_names(managed=True),
        table_names(managed=False),
        publication_names(managed=True),
        publication_names(managed=False),
    )


def read_draft() -> Specification:
    """All tables, disabled ones too, and all publications, as they are edited, sorted by name."""
    tables = tuple(
        mapping.table_spec(mapping.columns.all()) for mapping in TableMapping.objects.prefetch_related("columns")
    )
    publications = {
        publication.name: tuple(sorted(table.name for table in publication.tables.all()))
        for publication in Publication.objects.prefetch_related("tables")
    }
    return Specification(tables, publications)


def table_names(*, managed: bool) -> frozenset[str]:
    """The names of the managed tables, or of those made here."""
    chosen = TableMapping.objects.exclude(managed_by="") if managed else TableMapping.objects.filter(managed_by="")
    return frozenset(chosen.values_list("name", flat=True))


def publication_names(*, managed: bool) -> frozenset[str]:
    """The names of the managed publications, or of those made here."""
    chosen = Publication.objects.exclude(managed_by="") if managed else Publication.objects.filter(managed_by="")
    return frozenset(chosen.values_list("name", flat=True))


def save(spec: Specification, managed_by: str) -> None:
    """Make the tables and publications of ``spec``, or change those of the same names; others are left alone."""
    for table in spec.tables:
        _save_table(table, managed_by)
    ids = dict(TableMapping.objects.values_list("name", "pk"))
    for name, members in spec.publications.items():
        publication, _ = Publication.objects.update_or_create(name=name, defaults={"managed_by": managed_by})
        publication.tables.set([ids[member] for member in members])


def _save_table(spec: TableSpec, managed_by: str) -> None:
    mapping, _ = TableMapping.objects.update_or_create(
        name=spec.name,
        defaults={
            "collection": spec.collection,
            "filter": spec.filter,
            "pipeline": list(spec.pipeline),
            "primary_key": list(spec.primary_key),
            "id_type": spec.id_type,
            "error_policy": spec.error_policy,
            "large_integers": spec.large_integers,
            "enabled": spec.enabled,
            "description": spec.description,
            "managed_by": managed_by,
        },
    )
    mapping.columns.all().delete()
    ColumnMapping.objects.bulk_create(
        ColumnMapping(
            table=mapping,
            name=column.name,
            type=column.type,
            path=column.path,
            optional=column.optional,
            expression=column.expression,
            key_type=column.key_type,
            position=position,
        )
        for position, column in enumerate(spec.columns)
    )


def switch(tables: Iterable[str], *, enabled: bool) -> None:
    """Enable or disable tables by name, as a draft."""
    TableMapping.objects.filter(name__in=list(tables)).update(enabled=enabled)


def remove_publications(names: Iterable[str]) -> None:
    """Remove publications by name."""
    Publication.objects.filter(name__in=list(names)).delete()


def remove_managed(tables: Iterable[str], publications: Iterable[str]) -> None:
    """Remove managed tables and publications by name; those made here stay."""
    TableMapping.objects.exclude(managed_by="").filter(name__in=list(tables)).delete()
    Publication.objects.exclude(managed_by="").filter(name__in=list(publications)).delete()


def release(name: str) -> str:
    """Make a managed table one that is edited here; return where it came from, "" where there is no such table."""
    mapping = TableMapping.objects.exclude(managed_by="").filter(name=name).first()
    if mapping is None:
        return ""
    origin, mapping.managed_by = mapping.managed_by, ""
    mapping.save(update_fields=("managed_by",))
    return origin


def latest_revision() -> MappingRevision | None:
    """What is served; None before the first publishing."""
    return MappingRevision.objects.order_by("-number").first()


def latest_identity() -> tuple[int, str] | None:
    """Number and content hash of what is served, for a cheap look whether it changed."""
    return MappingRevision.objects.order_by("-number").values_list("number", "content_hash").first()


def published_at(number: int) -> datetime:
    """When a revision was published. Raises ``MappingRevision.DoesNotExist``."""
    moment: datetime = MappingRevision.objects.values_list("created_at", flat=True).get(number=number)
    return moment


def specification_of(number: int) -> Specification:
    """What a revision holds. Raises ``MappingRevision.DoesNotExist``."""
    data: Json = MappingRevision.objects.get(number=number).specification
    return read_specification(data)


def add_revision(
    spec: Specification, fingerprints: dict[str, str], content_hash: str, by: str, note: str
) -> MappingRevision:
    """Keep ``spec`` as the latest revision."""
    return MappingRevision.objects.create(
        specification=write_specification(spec),
        fingerprints=fingerprints,
        content_hash=content_hash,
        created_by=by,
        note=note,
    )


def latest_content() -> str | None:
    """The hash of the managed content that took effect last; None before the first."""
    return ManagedContent.objects.order_by("-loaded_at", "-pk").values_list("content_hash", flat=True).first()


def is_known_content(content_hash: str) -> bool:
    """Whether this managed content was ever loaded."""
    return ManagedContent.objects.filter(content_hash=content_hash).exists()


def note_content(content_hash: str, loaded_from: str) -> None:
    """Keep that a managed content takes effect now."""
    ManagedContent.objects.update_or_create(
        content_hash=content_hash, defaults={"loaded_from": loaded_from, "loaded_at": timezone.now()}
    )
