"""The admin: configuration is edited here, state is only shown."""

from __future__ import annotations

from django.contrib import admin

from .mappings import PublicationAdmin, TableMappingAdmin
from .state import ApiKeyAdmin, StateAdmin

__all__ = ["ApiKeyAdmin", "PublicationAdmin", "StateAdmin", "TableMappingAdmin"]

admin.site.site_header = admin.site.site_title = "zerosource"
admin.site.index_title = "What is mapped, and what flows"
admin.site.site_url = None  # there is no other site to view
