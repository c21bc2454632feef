"""The page that says what publishing does, and publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from changesource.admin.confirmation import log_changes
from changesource.admin.rights import EDIT, PUBLISH, require
from changesource.conf import settings
from changesource.exceptions import DraftChanged, ZerosourceError
from changesource.models import TableMapping
from changesource.services.configuration import publish
from changesource.services.consequences import plan, resynced_rows
from changesource.services.inspection import inspector
from changesource.sources.mongodb.looking import PATIENCE
from changesource.store.mappings import latest_revision

if TYPE_CHECKING:
    Views = admin.ModelAdmin[TableMapping]
else:
    Views = object


class PublishingViews(Views):
    """Part of the tables' admin."""

    def publishing_urls(self) -> list[URLPattern]:
        """The page's address."""
        return [path("publish/", self.admin_site.admin_view(self.publish_view), name="changesource_publish")]

    def publish_view(self, request: HttpRequest) -> HttpResponse:
        """Say what publishing would do; by POST, do it."""
        require(request, EDIT, PUBLISH)
        if request.method == "POST" and self._publish(request):
            return HttpResponseRedirect(reverse("admin:changesource_tablemapping_changelist"))
        planned = plan()
        rows: int | None = None
        problem = ""
        try:
            rows = resynced_rows(settings(), planned)
        except ZerosourceError as error:
            problem = str(error)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Publish",
            "opts": self.opts,
            "plan": planned,
            "served": latest_revision(),
            "rows": rows,
            "rows_shown": f"{rows:,}" if rows is not None else "",
            "rows_problem": problem,
            "note": request.POST.get("note", ""),
            "media": self.media,
        }
        return TemplateResponse(request, "admin/changesource/tablemapping/publish.html", context)

    def _publish(self, request: HttpRequest) -> bool:
        """Publish and say how that went; False where the operator must look again."""
        before = latest_revision()
        note, seen = request.POST.get("note", ""), request.POST.get("seen", "")
        try:
            revision = publish(request.user.get_username(), note, inspector(patience=PATIENCE), seen=seen)
        except DraftChanged as error:
            self.message_user(request, f"Nothing was published. {error}", messages.WARNING)
            return False
        except ZerosourceError as error:
            self.message_user(request, f"Nothing was published. {error}", messages.ERROR)
            return False
        if before is not None and before.number == revision.number:
            self.message_user(request, f"Nothing has changed since {revision}.", messages.INFO)
        else:
            log_changes(request, [revision], f"Published: {note}" if note else "Published.", ADDITION)
            self.message_user(request, f"Published as {revision}.", messages.SUCCESS)
        return True
