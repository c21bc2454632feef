"""What would grow for good: the oldest of it goes, and what is needed stays."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db.models import Model, QuerySet
from django.utils import timezone

from changesource.models import ManagedContent, MappingRevision

# Of each kind, so that nobody else waits for the database for long; the rest goes the next time.
AT_ONCE = 10_000


class Pruned(NamedTuple):
    """How many of each went."""

    revisions: int
    contents: int
    actions: int
    sessions: int


def prune(revisions: int, actions: int) -> Pruned:
    """Keep the newest ``revisions`` revisions (the one that is served is the newest of all) and contents of files, the
    newest ``actions`` entries of the admin's history, and the sessions that have not ended."""
    return Pruned(
        _drop_oldest(MappingRevision.objects.order_by("-number"), revisions),
        _drop_oldest(ManagedContent.objects.order_by("-loaded_at", "-pk"), revisions),
        _drop_oldest(LogEntry.objects.order_by("-action_time", "-pk"), actions),
        _drop(Session.objects.filter(expire_date__lt=timezone.now())),
    )


def _drop_oldest(newest_first: QuerySet[Any], kept: int) -> int:
    return _drop(newest_first[max(1, kept) : max(1, kept) + AT_ONCE])


def _drop(rows: QuerySet[Any]) -> int:
    model: type[Model] = rows.model
    gone = list(rows.values_list("pk", flat=True)[:AT_ONCE])
    return model._default_manager.filter(pk__in=gone).delete()[0] if gone else 0
