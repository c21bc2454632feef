"""Actions of the list of tables that switch them on and off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE
from django.db.models import QuerySet
from django.http import HttpRequest

from changesource.admin.confirmation import log_changes
from changesource.admin.rights import EDIT, may
from changesource.exceptions import MappingError
from changesource.models import TableMapping
from changesource.services.switching import switch_tables

if TYPE_CHECKING:
    Actions = admin.ModelAdmin[TableMapping]
else:
    Actions = object


class SwitchActions(Actions):
    """Part of the tables' admin. The draft alone changes, so nothing is asked."""

    actions = ("enable", "disable")

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Whoever may edit tables."""
        return may(request, EDIT)

    @admin.action(description="Enable the selected tables", permissions=["switch"])
    def enable(self, request: HttpRequest, queryset: QuerySet[TableMapping]) -> None:
        """In the draft."""
        self._switch(request, queryset, enabled=True)

    @admin.action(description="Disable the selected tables", permissions=["switch"])
    def disable(self, request: HttpRequest, queryset: QuerySet[TableMapping]) -> None:
        """In the draft."""
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[TableMapping], *, enabled: bool) -> None:
        word = "enabled" if enabled else "disabled"
        tables = {table.name: table for table in queryset}
        try:
            changed = switch_tables(tables, enabled=enabled)
        except MappingError as error:
            self.message_user(request, f"Nothing was {word}. {error}", messages.ERROR)
            return
        log_changes(request, [tables[name] for name in changed], f"{word.capitalize()}.", CHANGE)
        self.message_user(request, f"{len(changed)} {word} in the draft. Publish it to have it served so.")
