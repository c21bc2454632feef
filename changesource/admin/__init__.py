"""The admin: configuration is edited here, state is only shown."""

from __future__ import annotations

from django.contrib import admin

from .access import GroupAdmin, UserAdmin
from .mappings import PublicationAdmin, TableMappingAdmin
from .state import ApiKeyAdmin, StateAdmin

__all__ = ["ApiKeyAdmin", "GroupAdmin", "PublicationAdmin", "StateAdmin", "TableMappingAdmin", "UserAdmin"]

admin.site.index_title = "Overview"
