"""The live page: changes as they flow. What it shows comes over a WebSocket, see ``services.live``."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from changesource.services.access import may_view
from changesource.services.configuration import current


def may_see(request: HttpRequest) -> bool:
    """Whether the page is shown to who asks; the sidebar asks too."""
    return may_view(request.user)


@admin.site.admin_view
def live_page(request: HttpRequest) -> HttpResponse:
    """The page, with the names of all tables that are served to choose from."""
    if not may_see(request):
        raise PermissionDenied
    published = current()
    tables = sorted(table.name for table in published.specification.tables) if published else []
    context = {**admin.site.each_context(request), "title": "Live changes", "tables": tables}
    return TemplateResponse(request, "admin/changesource/live.html", context)
