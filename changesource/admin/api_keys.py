"""API keys: made, bound and revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from changesource.admin.confirmation import asked_of_selected, is_confirmed, log_changes
from changesource.models import ApiKey
from changesource.store import api_keys

if TYPE_CHECKING:
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:
    ApiKeyModelAdmin = ModelAdmin

BOUNDS = ("app_ids", "expires")
FIELDS = ("name", "prefix", *BOUNDS, "created", "last_used", "revoked")


@admin.register(ApiKey)
class ApiKeyAdmin(ApiKeyModelAdmin):
    """Makes keys, each shown once, binds and revokes them."""

    list_display = ("name", "prefix", "shown_app_ids", "expires", "last_used", "revoked")
    actions = ("revoke",)

    @admin.display(description="app ids", empty_value="any")
    def shown_app_ids(self, key: ApiKey) -> str | None:
        """Those that it is bound to."""
        return key.app_ids or None

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """A new key has a name and bounds."""
        return FIELDS if obj else ("name", *BOUNDS)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """Of a key that was made its bounds may change; of one that is revoked nothing."""
        if obj is None:
            return ()
        return tuple(name for name in FIELDS if obj.revoked or name not in BOUNDS)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Nobody: were the last revoked key gone, the next start would take itself for the first one."""
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: ModelForm[ApiKey], change: bool) -> None:
        """Make the key, or change its bounds."""
        if change:
            api_keys.rebind(obj)
        else:
            obj.made = api_keys.generate(obj)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key, on the page that answers: a message would be kept in a cookie or a session until it is seen."""
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "The new API key", "key": obj}
        return TemplateResponse(request, "admin/changesource/apikey/made.html", context)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Each bound with what stood and stands there."""
        if add:
            return super().construct_change_message(request, form, formsets, add)
        told = [
            f"{name}: {form.initial[name] or 'none'} -> {getattr(form.instance, name) or 'none'}"
            for name in BOUNDS
            if name in form.changed_data
        ]
        return "; ".join(told) or "Nothing changed."

    @admin.action(description="Revoke the selected keys ...", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Revoke those that are not revoked yet, once that is confirmed."""
        chosen = queryset.filter(revoked=None)
        if not is_confirmed(request):
            lines = ["New connections with them are refused, for good, and those that are open end within two seconds."]
            question = {"title": "Revoke API keys", "lines": lines, "button": "Revoke", "dangerous": True}
            return asked_of_selected(self, request, chosen, question)
        keys = list(chosen)
        for key in keys:
            api_keys.revoke(key.name)
        log_changes(request, keys, "Revoked.", CHANGE)
        messages.success(request, f"{len(keys)} revoked.")
        return None
