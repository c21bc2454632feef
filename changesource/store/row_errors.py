"""Documents that gave no valid row, as operators see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from changesource.mapping.compiled import RowFault
from changesource.models import RowError


def record(faults: Mapping[RowFault, int]) -> None:
    """Add ``faults``, each with how often it was seen, to what is listed."""
    now = timezone.now()
    with transaction.atomic():
        _record(faults, now)


def _record(faults: Mapping[RowFault, int], now: datetime) -> None:
    for fault, count in faults.items():
        row, made = RowError.objects.get_or_create(
            table=fault.table,
            document_id=fault.document_id,
            column=fault.column,
            defaults={"reason": fault.reason, "count": count},
        )
        if not made:
            RowError.objects.filter(pk=row.pk).update(count=F("count") + count, reason=fault.reason, last_seen=now)


class Listed(NamedTuple):
    """An entry of the list, as it was read; ``seen`` is how often its error was."""

    pk: int
    table: str
    document_id: str
    column: str
    seen: int


def after(pk: int, limit: int) -> list[Listed]:
    """Return up to ``limit`` entries that follow the one with the primary key ``pk``, in their order."""
    rows = (
        RowError.objects.filter(pk__gt=pk)
        .order_by("pk")
        .values_list("pk", "table", "document_id", "column", "count")[:limit]
    )
    return [Listed(*row) for row in rows]


def clear(entries: Iterable[Listed]) -> None:
    """Remove entries, but for those that were seen again since they were read."""
    with transaction.atomic():
        for entry in entries:
            RowError.objects.filter(pk=entry.pk, count=entry.seen).delete()
