"""What was published: how revisions differ, and an old one made the draft again."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from changesource.admin.confirmation import asked, is_confirmed, log_changes
from changesource.admin.rights import RESTORE, may, require
from changesource.admin.state import StateAdmin
from changesource.exceptions import ZerosourceError
from changesource.mapping.difference import Difference
from changesource.models import MappingRevision, TableMapping
from changesource.services.revisions import restore, restoring, revision_difference

DRAFT = "draft"
CHOICES = 100  # revisions that the page offers to compare; any may be named in its address


@admin.register(MappingRevision)
class MappingRevisionAdmin(StateAdmin):
    """The list of revisions, a page that compares two, and one that restores one as the draft."""

    list_display = ("number", "created_at", "created_by", "note")
    fields = ("number", "created_at", "created_by", "note", "shown_specification")
    readonly_fields = ("shown_specification",)
    actions = ("compare",)
    change_form_template = "admin/changesource/mappingrevision/change_form.html"

    @admin.display(description="specification")
    def shown_specification(self, revision: MappingRevision) -> str:
        """As exportmappings writes it."""
        # With a role and a tabindex, so that what is wider than the page can be scrolled by keys too.
        return format_html(
            '<pre class="zs-revision" role="region" tabindex="0" aria-label="specification">{}</pre>',
            json.dumps(revision.specification, indent=2),
        )

    def get_urls(self) -> list[URLPattern]:
        """The list's own, and the two pages."""
        wrap = self.admin_site.admin_view
        return [
            path("compare/", wrap(self.compare_view), name="changesource_compare"),
            path("<int:number>/restore/", wrap(self.restore_view), name="changesource_restore"),
            *super().get_urls(),
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The revision, with the ways to what can be done with it."""
        context = {"may_restore": may(request, *RESTORE), **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    @admin.action(description="Compare the two selected revisions", permissions=["view"])
    def compare(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Lead to the page."""
        numbers = sorted(queryset.values_list("number", flat=True)[:3])
        if len(numbers) != 2:
            self.message_user(request, "Select two revisions to compare.", messages.WARNING)
            return None
        return HttpResponseRedirect(f"{reverse('admin:changesource_compare')}?old={numbers[0]}&new={numbers[1]}")

    def compare_view(self, request: HttpRequest) -> HttpResponse:
        """What leads from the revision ``old`` to ``new``, which may be ``draft``; the last two where none is named."""
        require(request, "changesource.view_mappingrevision", "changesource.view_tablemapping")
        known = list(MappingRevision.objects.values_list("number", flat=True)[:CHOICES])
        old = request.GET.get("old") or str(known[min(1, len(known) - 1)] if known else "")
        new = request.GET.get("new") or str(known[0] if known else DRAFT)
        differences, problem = self._compared(old, new)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Compare revisions",
            "old": old,
            "new": new,
            "choices": [str(number) for number in known],
            "differences": differences,
            "problem": problem,
        }
        return TemplateResponse(request, "admin/changesource/mappingrevision/compare.html", context)

    def _compared(self, old: str, new: str) -> tuple[tuple[Difference, ...], str]:
        """What differs, and what is wrong with the question."""
        try:
            return revision_difference(int(old), None if new == DRAFT else int(new)), ""
        except ValueError:
            return (), "There is nothing to compare." if not old else "A revision is named by its number."
        except ZerosourceError as error:
            return (), error.message

    def restore_view(self, request: HttpRequest, number: int) -> HttpResponse:
        """Say what restoring changes in the draft; by POST, do it."""
        require(request, *RESTORE)
        tables = HttpResponseRedirect(reverse("admin:changesource_tablemapping_changelist"))
        try:
            if is_confirmed(request):
                self._restored(request, number)
                return tables
            planned = restoring(number)
        except ZerosourceError as error:
            self.message_user(request, f"Nothing was restored. {error}", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:changesource_mappingrevision_changelist"))
        if not planned.changes:
            self.message_user(request, f"The draft is as revision {number} was.", messages.INFO)
            return tables
        lines = [
            f"The draft becomes what revision {number} was. Nothing that is served changes until you publish.",
            "Tables that it did not have are disabled, not deleted; publications that it did not have are removed.",
        ]
        if planned.kept:
            lines.append(f"These are managed, and stay as they are: {', '.join(planned.kept)}.")
        question = {
            "title": f"Restore revision {number}",
            "lines": lines,
            "differences": planned.changes,
            "before": "Draft now",
            "after": f"Revision {number}",
            "hidden": [("seen", planned.draft_hash)],
            "button": "Restore as the draft",
            "back": "admin:changesource_mappingrevision_changelist",
        }
        return asked(self, request, question)

    def _restored(self, request: HttpRequest, number: int) -> None:
        done = restore(number, seen=request.POST.get("seen", ""))
        names = [one.name for one in done.changes if one.kind == "table"]
        log_changes(request, TableMapping.objects.filter(name__in=names), f"Restored as in revision {number}.", CHANGE)
        log_changes(request, MappingRevision.objects.filter(number=number), "Restored as the draft.", CHANGE)
        self.message_user(request, f"The draft is as revision {number} was. Publish it to have it served.")
