"""What came of reading the managed schema and mappings the last time, in whichever process."""

from __future__ import annotations

from typing import Final

from django.utils import timezone

from changesource.models import ManagedReading

Result = ManagedReading.Result
THE_ROW: Final = 1
WELL: Final = (Result.LOADED, Result.UNCHANGED)


def note(result: ManagedReading.Result, code: str = "", problem: str = "") -> None:
    """Take note of it; ``code`` and ``problem`` are those of the error where it failed."""
    now, before = timezone.now(), latest()
    lasts = before is not None and _kind(before.result, before.code) == _kind(result, code)
    since = before.since if before is not None and lasts else now
    values = {"result": result, "code": code, "problem": problem, "read_at": now, "since": since}
    ManagedReading.objects.update_or_create(pk=THE_ROW, defaults=values)


def latest() -> ManagedReading | None:
    """Return it; None before the first."""
    return ManagedReading.objects.filter(pk=THE_ROW).first()


def _kind(result: str, code: str) -> tuple[str, str]:
    return ("well" if result in WELL else result, code)
