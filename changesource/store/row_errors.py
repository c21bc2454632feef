"""Documents that gave no valid row, as operators see them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import Count, F, Max, QuerySet, Sum
from django.utils import timezone

from changesource.mapping.compiled import RowFault
from changesource.models import RowError

logger = logging.getLogger(__name__)


def record(faults: Mapping[RowFault, int], most: int | None = None) -> None:
    """Add ``faults``, each with how often it was seen, to what is listed.

    Of each table ``most`` stay (None: all), those that were seen last.
    """
    now = timezone.now()
    with transaction.atomic():
        tables = _record(faults, now)
        for table in tables if most is not None else ():
            _drop_oldest(table, most or 0)


def _drop_oldest(table: str, most: int) -> None:
    rows = RowError.objects.filter(table=table)
    if (surplus := rows.count() - most) > 0:
        oldest = rows.order_by("last_seen", "pk").values("pk")[:surplus]
        RowError.objects.filter(pk__in=oldest).delete()
        logger.warning(
            "row errors are too many, the oldest are listed no more", extra={"table": table, "rows": surplus}
        )


def _record(faults: Mapping[RowFault, int], now: datetime) -> set[str]:
    """Return the tables that have new ones."""
    known = _known(faults)
    fresh: dict[tuple[str, str, str], RowError] = {}
    for fault, count in faults.items():
        place = (fault.table, fault.document_id, fault.column)
        pk = known.get(place)
        if pk is not None:
            RowError.objects.filter(pk=pk).update(count=F("count") + count, reason=fault.reason, last_seen=now)
        elif place in fresh:
            fresh[place].count += count
            fresh[place].reason = fault.reason
        else:
            fresh[place] = RowError(
                table=fault.table,
                document_id=fault.document_id,
                column=fault.column,
                reason=fault.reason,
                count=count,
                first_seen=now,
                last_seen=now,
            )
    # Another process may have listed one just now, which is then counted with the next.
    RowError.objects.bulk_create(fresh.values(), ignore_conflicts=True)
    return {table for table, _, _ in fresh}


def _known(faults: Mapping[RowFault, int]) -> dict[tuple[str, str, str], int]:
    """The primary keys of what is listed already, by table, document and column."""
    ids: dict[str, set[str]] = {}
    for fault in faults:
        ids.setdefault(fault.table, set()).add(fault.document_id)
    rows = (
        RowError.objects.filter(table=table, document_id__in=wanted).values_list("table", "document_id", "column", "pk")
        for table, wanted in ids.items()
    )
    return {(table, document_id, column): pk for found in rows for table, document_id, column, pk in found}


class Listed(NamedTuple):
    """An entry of the list, as it was read; ``seen`` is how often its error was."""

    pk: int
    table: str
    document_id: str
    column: str
    seen: int


def after(pk: int, limit: int, tables: Collection[str] = ()) -> list[Listed]:
    """Return up to ``limit`` entries that follow the one with the primary key ``pk``, in their order.

    ``tables`` are those whose entries are wanted; none named means all.
    """
    rows = RowError.objects.filter(pk__gt=pk)
    return _listed(rows.filter(table__in=tables) if tables else rows, limit)


def chosen(pks: Iterable[int], limit: int) -> list[Listed]:
    """Return up to ``limit`` of the entries with these primary keys."""
    return _listed(RowError.objects.filter(pk__in=list(pks)), limit)


def _listed(rows: QuerySet[RowError], limit: int) -> list[Listed]:
    found = rows.order_by("pk").values_list("pk", "table", "document_id", "column", "count")[:limit]
    return [Listed(*row) for row in found]


def clear(entries: Iterable[Listed]) -> None:
    """Remove entries, but for those that were seen again since they were read."""
    with transaction.atomic():
        for entry in entries:
            RowError.objects.filter(pk=entry.pk, count=entry.seen).delete()


class Total(NamedTuple):
    """A table's entries: how many there are, how often they were seen in all, and when last."""

    table: str
    entries: int
    seen: int
    last_seen: datetime


def totals() -> list[Total]:
    """Return what each table has, most entries first."""
    found = RowError.objects.order_by().values("table").annotate(entries=Count("pk"), seen=Sum("count"))
    rows = found.annotate(last=Max("last_seen")).order_by("-entries", "table")
    return [Total(*row) for row in rows.values_list("table", "entries", "seen", "last")]


def newest(limit: int) -> list[RowError]:
    """Return the entries that were seen last."""
    return list(RowError.objects.order_by("-last_seen", "-pk")[:limit])
