"""What the editor of a table asks while it is edited: columns, previews, checks. Nothing of it saves the mapping."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from changesource.admin.mapping_forms import ColumnMappingFormSet, TableMappingForm
from changesource.conf import settings
from changesource.exceptions import MappingError, ZerosourceError
from changesource.mapping.inference import ProposedColumn
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import Json, TableSpec
from changesource.mapping.typescript import zero_table
from changesource.models import TableMapping
from changesource.services.configuration import take_over
from changesource.services.findings import table_findings
from changesource.services.inference import infer_table
from changesource.services.preview import Preview, preview
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import looking

if TYPE_CHECKING:
    Views = admin.ModelAdmin[TableMapping]
else:
    Views = object
PREVIEWED = 3
# What inference needs; the rest may be wrong still.
SOURCE_FIELDS = ("collection", "filter", "pipeline")
MAX_DIGITS = 18  # of a table's id
NOT_NAMED = "new"  # stands for a table's name while it has none


class Wrong(Exception):
    """Messages by the HTML names of the fields at fault, "" for the whole."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__(errors)
        self.errors = errors


class EditorViews(Views):
    """Part of the tables' admin."""

    def may_edit(self, request: HttpRequest) -> bool:
        """Whether somebody may change mappings."""
        raise NotImplementedError

    def editor_urls(self) -> list[URLPattern]:
        """Addresses of what the editor asks."""
        views: dict[str, Callable[..., HttpResponse]] = {
            "editor/collections/": self.collections_view,
            "editor/draft/": self.draft_view,
            "editor/infer/": self.infer_view,
            "editor/preview/": self.preview_view,
            "<int:pk>/checks/": self.checks_view,
            "<int:pk>/images/": self.images_view,
            "<int:pk>/takeover/": self.takeover_view,
        }
        return [
            path(route, self.admin_site.admin_view(view), name=f"changesource_{route.strip('/').rpartition('/')[2]}")
            for route, view in views.items()
        ]

    def collections_view(self, request: HttpRequest) -> HttpResponse:
        """The collections that there are, for the choice."""
        self._for_editors(request)
        chosen = settings()
        try:
            with looking(mongodb_uri(chosen), chosen.mongodb_database) as look:
                found = look.collections()
        except ZerosourceError as error:
            return JsonResponse({"collections": [], "problem": str(error)})
        names = sorted(name for name in found if name != chosen.barrier_collection)
        return JsonResponse({"collections": names, "problem": ""})

    @method_decorator(require_POST)
    def draft_view(self, request: HttpRequest) -> HttpResponse:
        """What is wrong with what the form holds, and the Zero table that it makes. Asks nothing of MongoDB."""
        self._for_editors(request)
        try:
            return JsonResponse({"errors": {}, "typescript": zero_table(self._drafted(request))})
        except Wrong as wrong:
            return JsonResponse({"errors": wrong.errors, "typescript": ""})

    @method_decorator(require_POST)
    def infer_view(self, request: HttpRequest) -> HttpResponse:
        """Columns, key and type of ``_id`` proposed for the form's collection, filter and pipeline."""
        self._for_editors(request)
        form, _ = self._forms(request)
        errors = {name: list(form.errors[name]) for name in SOURCE_FIELDS if name in form.errors}
        if errors:
            return JsonResponse({"errors": errors})
        cleaned = form.cleaned_data
        asked = TableSpec(
            cleaned.get("name") or "",
            cleaned["collection"],
            (),
            (),
            filter=cleaned["filter"],
            pipeline=tuple(cleaned["pipeline"]),
        )
        try:
            inferred = infer_table(settings(), asked)
        except MappingError as error:
            form.instance.name = asked.name
            form.add_mapping_error(error)
            return JsonResponse({"errors": _errors_of(form)})
        except ZerosourceError as error:
            return JsonResponse({"errors": {"": [str(error)]}})
        html = render_to_string("admin/changesource/tablemapping/inferred.html", {"proposal": inferred.proposal})
        return JsonResponse(
            {
                "errors": {},
                "html": html,
                "name": inferred.table.name,
                "primaryKey": inferred.proposal.primary_key,
                "idType": inferred.proposal.id_type,
                "columns": [_shown(column, inferred.proposal.documents) for column in inferred.proposal.columns],
            }
        )

    @method_decorator(require_POST)
    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Documents beside the rows that the form's mapping makes of them; of a managed table, as it is stored."""
        self._for_editors(request)
        document_id = request.POST.get("document_id", "").strip()
        context: dict[str, Any] = {"document_id": document_id}
        try:
            spec = self._drafted(request)
            found = preview(settings(), spec, document_id=document_id, size=PREVIEWED)
        except Wrong as wrong:
            return JsonResponse({"errors": wrong.errors, "html": ""})
        except ZerosourceError as error:
            context["problem"] = str(error)
        else:
            context["previews"] = [_columns_beside(spec, one) for one in found]
        html = render_to_string("admin/changesource/tablemapping/preview.html", context)
        return JsonResponse({"errors": {}, "html": html})

    def checks_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What there is to know of the table as it is stored."""
        mapping = self._mapping(pk)
        if not self.has_view_permission(request, mapping):
            raise PermissionDenied
        context: dict[str, Any] = {"mapping": mapping, "may_edit": self.may_edit(request)}
        try:
            spec = mapping.table_spec(mapping.columns.all())
            context["findings"] = table_findings(settings(), spec)
        except ZerosourceError as error:
            context["problem"] = str(error)
        return TemplateResponse(request, "admin/changesource/tablemapping/checks.html", context)

    @method_decorator(require_POST)
    def images_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Have MongoDB keep pre- and post-images of the table's collection."""
        mapping = self._mapping(pk)
        self._for_editors(request)
        chosen = settings()
        try:
            with looking(mongodb_uri(chosen), chosen.mongodb_database) as look:
                look.switch_images_on(mapping.collection)
        except ZerosourceError as error:
            self.message_user(request, f"Images were not switched on. {error}", messages.ERROR)
        else:
            words = f"MongoDB keeps pre- and post-images of {mapping.collection} from now on."
            self.log_change(request, mapping, words)
            self.message_user(request, words, messages.SUCCESS)
        return self._back_to(mapping)

    def takeover_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Make a managed table one that is edited here, once the operator knows what that means."""
        mapping = self._mapping(pk)
        self._for_editors(request)
        if request.method != "POST":
            context = {
                **self.admin_site.each_context(request),
                "title": f"Take over {mapping}",
                "opts": self.opts,
                "mapping": mapping,
                "media": self.media,
            }
            return TemplateResponse(request, "admin/changesource/tablemapping/takeover.html", context)
        with transaction.atomic():
            origin = take_over(mapping.name)
            self.log_change(request, mapping, f"Taken over from {origin}.")
        self.message_user(request, f"{mapping} is edited here from now on.", messages.SUCCESS)
        return self._back_to(mapping)

    def _for_editors(self, request: HttpRequest) -> None:
        """Documents are shown to those alone who may change mappings, or add them."""
        if not (self.may_edit(request) or self.has_add_permission(request)):
            raise PermissionDenied

    def _mapping(self, pk: int) -> TableMapping:
        mapping = TableMapping.objects.filter(pk=pk).first()
        if mapping is None:
            raise Http404
        return mapping

    def _named_mapping(self, request: HttpRequest) -> TableMapping | None:
        """The table that the address names by its id; None where it names none."""
        pk = request.GET.get("id", "")
        if not pk.isdecimal():
            return None
        if len(pk) > MAX_DIGITS:
            raise Http404
        return self._mapping(int(pk))

    def _back_to(self, mapping: TableMapping) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:changesource_tablemapping_change", args=(mapping.pk,)))

    def _forms(self, request: HttpRequest) -> tuple[TableMappingForm, ColumnMappingFormSet]:
        """The editor's forms, with what was typed, checked but for what only saving checks."""
        mapping = self._named_mapping(request)
        form_class: Any = self.get_form(request, mapping, change=mapping is not None)
        form: TableMappingForm = form_class(request.POST, instance=mapping)
        form.saves = False
        of_admin: Any = self  # Django's own way to the inlines' forms has no types
        formsets, _ = of_admin._create_formsets(request, form.instance, change=mapping is not None)
        form.is_valid()
        return form, formsets[0]

    def _drafted(self, request: HttpRequest) -> TableSpec:
        """The table that the form holds, or, where it is only shown, the stored one. Raises ``Wrong``."""
        mapping = self._named_mapping(request)
        if "columns-TOTAL_FORMS" not in request.POST and mapping is not None:
            try:
                spec = mapping.table_spec(mapping.columns.all())
                compile_table(spec)
            except MappingError as error:
                raise Wrong({"": [error.message]}) from error
            return spec
        form, formset = self._forms(request)
        if formset.is_valid() and form.is_valid():
            return formset.spec()
        errors = _errors_of(form)
        for one in formset.forms:
            if not one.data.get(one.add_prefix("DELETE")):
                errors |= _errors_of(one, rest="name")
        if not errors:
            errors[""] = formset.own_errors
        raise Wrong(errors)


def typescript_of(mapping: TableMapping | None) -> str:
    """The stored table in Zero; "" where there is none, or it is wrong."""
    if mapping is None:
        return ""
    try:
        spec = mapping.table_spec(mapping.columns.all())
        compile_table(spec)
    except MappingError:
        return ""
    return zero_table(spec)


def _errors_of(form: Any, rest: str = "") -> dict[str, list[str]]:
    """A form's errors by the HTML names of its fields; those of none of them by that of the field ``rest``."""
    return {
        form.add_prefix(name) if name in form.fields else rest and form.add_prefix(rest): [
            str(words) for words in found
        ]
        for name, found in form.errors.items()
    }


def _shown(column: ProposedColumn, documents: int) -> dict[str, Any]:
    """A proposed column as the script fills it in."""
    seen = [f"{kind} {count:,}" for kind, count in column.types.items()]
    if column.missing:
        seen.append(f"missing {column.missing:,}")
    return {
        "name": column.spec.name,
        "type": column.spec.type,
        "path": column.spec.path,
        "optional": column.spec.optional,
        "seen": ", ".join(seen),
        "note": column.note,
    }


def _columns_beside(spec: TableSpec, shown: Preview) -> dict[str, Any]:
    """A preview as the page shows it: each row as its columns, and which of them are the key."""
    return {
        "document": shown.pretty_document,
        "rows": [[(name, _text(value), name in spec.primary_key) for name, value in row.items()] for row in shown.rows],
        "faults": shown.faults,
    }


def _text(value: Json) -> str | None:
    """A row's value as people read it: text as it is, the rest as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
