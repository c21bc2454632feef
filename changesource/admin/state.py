"""What the daemons leave for operators to see."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin

from changesource.admin.confirmation import asked_of_selected, is_confirmed, log_changes
from changesource.admin.searching import BoundedSearch
from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.models import Lease, ManagedContent, RowError, Watermark
from changesource.services.mending import AT_ONCE
from changesource.services.retrying import retry
from changesource.store import row_errors, watermarks

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Model]
else:
    AnyModelAdmin = ModelAdmin


class StateAdmin(AnyModelAdmin):
    """Shows rows that only the daemons, or publishing, write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False


def snapshot_in_words(snapshot: dict[str, Any] | None) -> str:
    """What ``CopyProgress.as_dict`` gave, for people."""
    if not snapshot or not snapshot["expected"]:
        return "-"
    words = f"{snapshot['rows']:,} rows of {snapshot['documents']:,} documents"
    if snapshot["documents"] >= snapshot["expected"]:
        return words
    words += f", of about {snapshot['expected']:,} ({snapshot['documents'] / snapshot['expected']:.0%})"
    if snapshot["seconds_left"] is None:
        return words
    left = timedelta(seconds=snapshot["seconds_left"])
    return f"{words}, {snapshot['documents_per_second']:,} a second, {left} left"


@admin.register(Watermark)
class WatermarkAdmin(StateAdmin):
    """The watcher's and the replicas' positions."""

    list_display = (
        "kind", "app_id", "shard_num", "state", "shown_snapshot", "lag_ms", "updated_at", "sent", "acked", "message",
    )  # fmt: skip
    actions = ("ask_to_resync", "forget")

    @admin.display(description="snapshot")
    def shown_snapshot(self, watermark: Watermark) -> str:
        """How far the last snapshot is, in words."""
        try:
            return snapshot_in_words(watermark.snapshot)
        except (LookupError, TypeError, ValueError):
            return "unreadable"  # a row that was damaged

    def has_resync_permission(self, request: HttpRequest) -> bool:
        """Whoever may change positions."""
        return super(StateAdmin, self).has_change_permission(request)

    def has_forget_permission(self, request: HttpRequest) -> bool:
        """Whoever may delete positions."""
        return super(StateAdmin, self).has_delete_permission(request)

    @admin.action(description="Sync the selected replicas anew ...", permissions=["resync"])
    def ask_to_resync(self, request: HttpRequest, queryset: QuerySet[Model]) -> HttpResponse | None:
        """Mark them, once that is confirmed; their sessions see it within a second."""
        chosen = queryset.filter(kind=Watermark.Kind.REPLICA)
        if not is_confirmed(request):
            lines = [
                "Each is reset: its zero-cache exits with code 14 and reads everything again once its supervisor has "
                "started it. One that is away is reset as soon as it connects.",
            ]
            question = {"title": "Sync replicas anew", "lines": lines, "button": "Sync anew", "dangerous": True}
            return asked_of_selected(self, request, chosen, question)
        rows = watermarks.want_resync(chosen.values_list("pk", flat=True))
        log_changes(request, rows, "Told to sync anew.", CHANGE)
        self.message_user(request, f"{len(rows)} replicas are told to sync anew.", messages.SUCCESS)
        return None

    @admin.action(description="Forget the selected replicas ...", permissions=["forget"])
    def forget(self, request: HttpRequest, queryset: QuerySet[Model]) -> HttpResponse | None:
        """Delete their rows, once that is confirmed."""
        chosen = queryset.filter(kind=Watermark.Kind.REPLICA)
        if not is_confirmed(request):
            lines = ["For those that will not come back. One that does goes on from its own watermark."]
            question = {"title": "Forget replicas", "lines": lines, "button": "Forget", "dangerous": True}
            return asked_of_selected(self, request, chosen, question)
        pks = list(chosen.values_list("pk", flat=True))
        rows = watermarks.forget(pks)
        log_changes(request, rows, "Forgotten.", DELETION)
        words = f"{len(rows)} replicas were forgotten"
        left = f", {len(pks) - len(rows)} not: connected, or a moment ago" if len(rows) < len(pks) else ""
        self.message_user(request, f"{words}{left}.", messages.SUCCESS)
        return None


@admin.register(RowError)
class RowErrorAdmin(BoundedSearch, StateAdmin):
    """Values and rows that could not be sent as they were."""

    list_display = ("table", "document_id", "column", "reason", "count", "last_seen")
    list_filter = ("table",)
    search_fields = ("document_id", "reason")
    actions = ("retry",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whoever may change row errors."""
        return super(StateAdmin, self).has_change_permission(request)

    @admin.action(description="Read the selected documents again", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Look at the documents as they are now, and take those off the list that fit."""
        rows = list(queryset[: AT_ONCE + 1])
        pks = [row.pk for row in rows]
        try:
            done = retry(settings(), row_errors.chosen(pks, AT_ONCE))
        except ZerosourceError as error:
            self.message_user(request, f"Nothing was looked at. {error}", messages.ERROR)
            return
        left = set(RowError.objects.filter(pk__in=pks).values_list("pk", flat=True))
        log_changes(request, [row for row in rows if row.pk not in left], "Mended, taken off the list.", DELETION)
        more = f" The first {AT_ONCE} were looked at." if len(pks) > AT_ONCE else ""
        level = messages.WARNING if done.wrong or done.unknown else messages.SUCCESS
        self.message_user(request, f"{done}.{more}", level)


@admin.register(Lease)
class LeaseAdmin(StateAdmin):
    """Who leads."""

    list_display = ("name", "holder", "token", "renewed_at")


@admin.register(ManagedContent)
class ManagedContentAdmin(StateAdmin):
    """Contents of files and URLs that were loaded."""

    list_display = ("content_hash", "loaded_from", "loaded_at")
