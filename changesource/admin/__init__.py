"""The admin: configuration is edited here, state is only shown."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from . import overview
from .access import GroupAdmin, UserAdmin
from .api_keys import ApiKeyAdmin
from .login import LoginForm
from .mappings import PublicationAdmin, TableMappingAdmin
from .revisions import MappingRevisionAdmin
from .state import StateAdmin

__all__ = [
    "ApiKeyAdmin",
    "GroupAdmin",
    "MappingRevisionAdmin",
    "PublicationAdmin",
    "StateAdmin",
    "TableMappingAdmin",
    "UserAdmin",
]

admin.site.index_title = "Overview"
admin.site.login_form = LoginForm
# What django-unfold's site adds to its own; each checks permissions beyond being staff itself.
admin.site.extra_urls = lambda: [  # type: ignore[attr-defined]
    path("overview/", admin.site.admin_view(overview.parts), name="overview"),
]
