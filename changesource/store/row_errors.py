"""Documents that gave no valid row, as operators see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

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
