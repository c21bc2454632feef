"""What the daemons leave for operators to see, and API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from changesource.models import ApiKey, Lease, ManagedContent, MappingRevision, RowError, Watermark

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Model]
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:
    AnyModelAdmin = ApiKeyModelAdmin = admin.ModelAdmin


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


@admin.register(Watermark)
class WatermarkAdmin(StateAdmin):
    """The watcher's and the replicas' positions."""

    list_display = ("kind", "app_id", "shard_num", "state", "sent", "acked", "lag_ms", "updated_at")
    list_filter = ("kind", "state")


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


@admin.register(Lease)
class LeaseAdmin(StateAdmin):
    """Who leads."""

    list_display = ("name", "holder", "token", "expires")


@admin.register(ManagedContent)
class ManagedContentAdmin(StateAdmin):
    """Contents of files and URLs that were loaded."""

    list_display = ("content_hash", "loaded_from", "loaded_at")


@admin.register(ApiKey)
class ApiKeyAdmin(ApiKeyModelAdmin):
    """Keys are made elsewhere; here they are shown and revoked."""

    list_display = ("name", "prefix", "created", "revoked")
    fields = ("name", "prefix", "created", "revoked")
    readonly_fields = ("name", "prefix", "created")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: a key is shown once, when it is made, and only its hash is kept."""
        return False
