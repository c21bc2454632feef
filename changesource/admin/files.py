"""Mappings and schemas as files: exported, imported, and loaded again from where they are managed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminFileFieldWidget

from changesource.admin.confirmation import asked, is_confirmed, log_changes
from changesource.admin.rights import EDIT, PUBLISH, REWRITE, VIEW, may, require
from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.mapping.formats import write_specification
from changesource.models import Publication, TableMapping
from changesource.services.config_files import shown_origin
from changesource.services.configuration import Changes, import_specification, load_managed
from changesource.services.consequences import plan
from changesource.services.importing import specification_in
from changesource.services.inspection import inspector
from changesource.services.schema_export import FORMATS, Format, exported_schema
from changesource.sources.mongodb.looking import PATIENCE
from changesource.store.mappings import latest_revision, read_draft

if TYPE_CHECKING:
    Views = admin.ModelAdmin[TableMapping]
else:
    Views = object

# Both files come back once more, as fields of the page that asks, which MAX_REQUEST_BYTES bounds.
MAX_BYTES = 1024 * 1024
FILE_NAMES: dict[Format, str] = {"typescript": "schema.ts", "json": "schema.json"}
PUBLICATION = "publication "


class ImportForm(forms.Form):
    """The files that are imported."""

    mappings = forms.FileField(
        widget=UnfoldAdminFileFieldWidget,
        help_text="JSON in any of the forms that importmappings reads: what was exported here, mappings, or a schema.",
    )
    schema = forms.FileField(
        required=False,
        widget=UnfoldAdminFileFieldWidget,
        help_text="A Zero schema as JSON, where the mappings leave types to it.",
    )

    def clean(self) -> dict[str, Any]:
        """Read them; each is text of at most 1 MiB."""
        for name in ("mappings", "schema"):
            file = self.cleaned_data.get(name)
            if file and file.size > MAX_BYTES:
                self.add_error(name, f"The file is larger than {MAX_BYTES} bytes: use manage.py importmappings.")
            elif file:
                try:
                    self.cleaned_data[name] = (file.name, file.read().decode())
                except UnicodeDecodeError:
                    self.add_error(name, "The file is no UTF-8.")
        return self.cleaned_data


class FileViews(Views):
    """Part of the tables' admin."""

    def file_urls(self) -> list[URLPattern]:
        """The addresses of files and of what reads them."""
        wrap = self.admin_site.admin_view
        return [
            path("export/", wrap(self.export_view), name="changesource_export"),
            path("schema/<str:form>/", wrap(self.schema_view), name="changesource_schema"),
            path("import/", wrap(self.import_view), name="changesource_import"),
            path("load/", wrap(self.load_view), name="changesource_load"),
        ]

    def file_context(self, request: HttpRequest) -> dict[str, bool]:
        """What the list's links depend on."""
        return {
            "may_import": may(request, *REWRITE, PUBLISH),
            "may_load": may(request, EDIT, PUBLISH) and settings().has_managed_source,
        }

    def export_view(self, request: HttpRequest) -> HttpResponse:
        """The mappings as they are edited, as exportmappings writes them."""
        require(request, VIEW)
        text = json.dumps(write_specification(read_draft()), indent=2) + "\n"
        return _download(text, "application/json", "mappings.json")

    def schema_view(self, request: HttpRequest, form: str) -> HttpResponse:
        """The published Zero schema, as exportschema writes it."""
        require(request, VIEW)
        if form not in FORMATS:
            return HttpResponse(status=404)
        try:
            text = exported_schema(form)
        except ZerosourceError as error:
            self.message_user(request, str(error), messages.ERROR)
            return _to_tables()
        kind = "application/json" if form == "json" else "text/plain; charset=utf-8"
        return _download(text, kind, FILE_NAMES[form])

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Take files, say what importing them does, and do it once that is confirmed."""
        require(request, *REWRITE, PUBLISH)
        if is_confirmed(request):
            return self._import(request)
        form = ImportForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            files = {name: form.cleaned_data.get(name) or ("", "") for name in ("mappings", "schema")}
            try:
                changes = self._imported(request, files, dry_run=True)
            except ZerosourceError as error:
                form.add_error(None, str(error))
            else:
                return self._ask(request, files, changes)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Import mappings",
            "form": form,
        }
        return TemplateResponse(request, "admin/changesource/tablemapping/import.html", context)

    def _imported(
        self, request: HttpRequest, files: dict[str, tuple[str, str]], *, dry_run: bool, seen: str = ""
    ) -> Changes:
        (name, mappings), (schema_name, schema) = files["mappings"], files["schema"]
        spec = specification_in(mappings.encode(), name, schema.encode() if schema_name else None, schema_name)
        inspect = inspector(switch=not dry_run, patience=PATIENCE)
        return import_specification(
            spec, request.user.get_username(), f"Imported from {name}", inspect=inspect, dry_run=dry_run, seen=seen
        )

    def _ask(self, request: HttpRequest, files: dict[str, tuple[str, str]], changes: Changes) -> HttpResponse:
        planned = plan(changes.draft)
        done = (("Makes", changes.made), ("Changes", changes.changed), ("Leaves as they are", changes.unchanged))
        lines = [f"{word}: {', '.join(names)}." for word, names in done if names]
        lines.append("Importing publishes at once, together with whatever else was edited and is not published yet.")
        hidden = [
            (f"{field}{part}", value) for field, pair in files.items() for part, value in zip(PARTS, pair, strict=True)
        ]
        question = {
            "title": f"Import {files['mappings'][0]}",
            "lines": [line for line in (*lines, str(planned)) if line],
            "differences": planned.changes,
            "before": "Served now",
            "after": "Once imported",
            "hidden": [*hidden, ("seen", changes.draft_hash)],
            "button": "Import and publish",
        }
        return asked(self, request, question)

    def _import(self, request: HttpRequest) -> HttpResponse:
        posted = request.POST
        files = {
            field: (posted.get(f"{field}_name", ""), posted.get(f"{field}_text", ""))
            for field in ("mappings", "schema")
        }
        try:
            changes = self._imported(request, files, dry_run=False, seen=posted.get("seen", ""))
        except ZerosourceError as error:
            self.message_user(request, f"Nothing was changed. {error}", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:changesource_import"))
        message = f"Imported from {files['mappings'][0]}."
        for names, flag in ((changes.made, ADDITION), (changes.changed, CHANGE)):
            publications = [name.removeprefix(PUBLICATION) for name in names if name.startswith(PUBLICATION)]
            log_changes(request, TableMapping.objects.filter(name__in=names), message, flag)
            log_changes(request, Publication.objects.filter(name__in=publications), message, flag)
        served = latest_revision()
        log_changes(request, [served] if served else [], message, ADDITION)
        self.message_user(request, f"Imported and published as {served}.", messages.SUCCESS)
        return _to_tables()

    def load_view(self, request: HttpRequest) -> HttpResponse:
        """Read SCHEMA_* and TABLE_MAPPINGS_* again, once that is confirmed."""
        require(request, EDIT, PUBLISH)
        if not settings().has_managed_source:
            self.message_user(request, "No file and no URL is set to load from.", messages.WARNING)
            return _to_tables()
        if not is_confirmed(request):
            lines = [
                f"Reads {shown_origin(settings())} now, and serves what it gives, an earlier content too.",
                "Replicas that have tables which change sync anew. Tables that were made here stay as they are.",
            ]
            return asked(self, request, {"title": "Load managed mappings", "lines": lines, "button": "Load and serve"})
        before = latest_revision()
        try:
            served = load_managed(inspect=inspector(patience=PATIENCE), again=True)
        except ZerosourceError as error:
            self.message_user(request, f"Nothing was changed. {error}", messages.ERROR)
            return _to_tables()
        if served is None or (before is not None and served.number == before.number):
            self.message_user(request, "Nothing has changed there.", messages.INFO)
        else:
            log_changes(request, [served], f"Loaded from {shown_origin(settings())}.", ADDITION)
            self.message_user(request, f"Loaded and served as {served}.", messages.SUCCESS)
        return _to_tables()


PARTS = ("_name", "_text")


def _download(text: str, kind: str, name: str) -> HttpResponse:
    return HttpResponse(text, content_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _to_tables() -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:changesource_tablemapping_changelist"))
