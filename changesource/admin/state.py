"""What the daemons leave for operators to see, and API keys."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from changesource.models import ApiKey, Lease, ManagedContent, MappingRevision, RowError, Watermark
from changesource.store import api_keys

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Model]
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:
    AnyModelAdmin = ApiKeyModelAdmin = ModelAdmin

KEY_FIELDS = ("name", "prefix", "created", "revoked")


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
        return snapshot_in_words(watermark.snapshot)

    @admin.action(description="Sync the selected replicas anew (each is reset, then reads everything again)")
    def ask_to_resync(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Mark them; their sessions see it within a second."""
        if not super(StateAdmin, self).has_change_permission(request):
            raise PermissionDenied
        count = queryset.filter(kind=Watermark.Kind.REPLICA).update(resync_wanted=True)
        self.message_user(request, f"{count} replicas are told to sync anew.", messages.SUCCESS)

    @admin.action(description="Forget the selected replicas (for those that will not come back)")
    def forget(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Delete their rows. One that comes back all the same goes on from its own watermark."""
        if not super(StateAdmin, self).has_delete_permission(request):
            raise PermissionDenied
        count, _ = queryset.filter(kind=Watermark.Kind.REPLICA).exclude(state="streaming").delete()
        self.message_user(request, f"{count} replicas were forgotten; connected ones never are.", messages.SUCCESS)


@admin.register(RowError)
class RowErrorAdmin(StateAdmin):
    """Values and rows that could not be sent as they were."""

    list_display = ("table", "document_id", "column", "reason", "count", "last_seen")
    list_filter = ("table",)
    search_fields = ("document_id", "reason")


@admin.register(MappingRevision)
class MappingRevisionAdmin(StateAdmin):
    """What was published."""

    list_display = ("number", "created_at", "created_by", "note")
    fields = ("number", "created_at", "created_by", "note", "shown_specification", "content_hash")
    readonly_fields = ("shown_specification",)

    @admin.display(description="specification")
    def shown_specification(self, revision: MappingRevision) -> str:
        """As exportmappings writes it."""
        return format_html("<pre>{}</pre>", json.dumps(revision.specification, indent=2))


@admin.register(Lease)
class LeaseAdmin(StateAdmin):
    """Who leads."""

    list_display = ("name", "holder", "token", "renewed_at")


@admin.register(ManagedContent)
class ManagedContentAdmin(StateAdmin):
    """Contents of files and URLs that were loaded."""

    list_display = ("content_hash", "loaded_from", "loaded_at")


@admin.register(ApiKey)
class ApiKeyAdmin(ApiKeyModelAdmin):
    """Makes keys, each shown once, and revokes them."""

    list_display = KEY_FIELDS
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """A new key has a name and nothing else."""
        return KEY_FIELDS if obj else ("name",)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """What was made stays as it is; revoking is an action of the list."""
        return KEY_FIELDS if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Nobody: were the last revoked key gone, the next start would take itself for the first one."""
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: object, change: bool) -> None:
        """Make the key and show it; it is kept nowhere."""
        if not change:
            key = api_keys.generate(obj)
            messages.warning(request, f"The key {obj.name!r} is shown this once, copy it now: {key}")

    @admin.action(description="Revoke the selected keys: new connections with them are refused", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke those that are not revoked yet, and leave a note in the history."""
        keys = list(queryset.filter(revoked=None))
        for key in keys:
            api_keys.revoke(key.name)
            self.log_change(request, key, "Revoked.")
        messages.success(request, f"{len(keys)} revoked.")
