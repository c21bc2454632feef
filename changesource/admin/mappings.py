"""Tables, columns and publications: edits are a draft until they are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminTextareaWidget

from changesource.admin.choices import TICKED
from changesource.admin.files import FileViews
from changesource.admin.history import DraftHistory
from changesource.admin.mapping_editor import EditorViews, typescript_of
from changesource.admin.mapping_forms import ColumnMappingForm, ColumnMappingFormSet, JsonArea, TableMappingForm
from changesource.admin.publishing import PublishingViews
from changesource.admin.rights import EDIT, PUBLISH, may
from changesource.admin.searching import BoundedSearch
from changesource.admin.switching import SwitchActions
from changesource.conf import settings
from changesource.fields import EmptyableJSONField, OrderedJSONField
from changesource.models import ColumnMapping, Publication, TableMapping
from changesource.services.consequences import plan
from changesource.store.mappings import latest_revision

if TYPE_CHECKING:
    ColumnTabularInline = admin.TabularInline[ColumnMapping, TableMapping]
    TableModelAdmin = admin.ModelAdmin[TableMapping]
    PublicationModelAdmin = admin.ModelAdmin[Publication]
else:
    ColumnTabularInline = TabularInline
    TableModelAdmin = PublicationModelAdmin = ModelAdmin

# Django shows such values by Python's own form of them.
AS_WRITTEN = {"filter": "filter_as_written", "pipeline": "pipeline_as_written"}


def is_managed(obj: TableMapping | Publication | None) -> bool:
    """Whether a file or URL would overwrite edits. Where none is set any more, what it gave may be edited."""
    return obj is not None and bool(obj.managed_by) and settings().has_managed_source


class ColumnMappingInline(ColumnTabularInline):
    """The columns, beside their table. Who may edit it may edit them."""

    model = ColumnMapping
    form = ColumnMappingForm
    formset = ColumnMappingFormSet
    formfield_overrides = {OrderedJSONField: {"widget": JsonArea(rows=1)}}  # noqa: RUF012 -- Django's own attribute
    template = "admin/changesource/tablemapping/columns.html"
    fields = ("name", "type", "path", "expression", "optional", "key_type", "position")
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the table."""
        return self._of_table().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the table."""
        return self.has_change_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the table."""
        table = self._of_table()
        return table.has_change_permission(request, obj) if obj is not None else table.has_add_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the table."""
        return self.has_change_permission(request, obj)

    def _of_table(self) -> TableModelAdmin:
        found: TableModelAdmin = self.admin_site.get_model_admin(TableMapping)
        return found


@admin.register(TableMapping)
class TableMappingAdmin(
    DraftHistory, BoundedSearch, SwitchActions, FileViews, EditorViews, PublishingViews, TableModelAdmin
):
    """The tables: an editor for each, and a page that publishes them."""

    form = TableMappingForm
    formfield_overrides = {  # noqa: RUF012 -- Django's own attribute
        OrderedJSONField: {"widget": JsonArea(rows=2)},
        models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 2})},
    }
    inlines = (ColumnMappingInline,)
    fieldsets = (
        (None, {"fields": ("collection", "name", "enabled", "filter", "pipeline")}),
        (
            "Key, errors, description",
            {
                "classes": ("collapse", "zs-details"),
                "fields": (("primary_key", "id_type"), ("error_policy", "large_integers"), "description"),
            },
        ),
    )
    list_display = ("name", "collection", "enabled", "description", "managed_by")
    list_filter = ("enabled",)
    search_fields = ("name", "collection")
    change_list_template = "admin/changesource/tablemapping/change_list.html"
    change_form_template = "admin/changesource/tablemapping/change_form.html"

    class Media:
        """Ours."""

        css = {"all": ("changesource/editor.css",)}  # noqa: RUF012 -- Django's own attribute
        js = tuple(f"changesource/{name}.js" for name in ("json", "columns", "editor"))

    def get_fieldsets(self, request: HttpRequest, obj: TableMapping | None = None) -> Any:
        """Filter and pipeline as they are written, where they are only shown."""
        found = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return found
        return [
            (name, {**options, "fields": [AS_WRITTEN.get(str(field), field) for field in options["fields"]]})
            for name, options in found
        ]

    @admin.display(description="Filter")
    def filter_as_written(self, obj: TableMapping) -> Any:
        """The filter as JSON."""
        return EmptyableJSONField().prepare_value(obj.filter)

    @admin.display(description="Pipeline")
    def pipeline_as_written(self, obj: TableMapping) -> Any:
        """The pipeline as JSON."""
        return EmptyableJSONField().prepare_value(obj.pipeline)

    def may_edit(self, request: HttpRequest) -> bool:
        """Whether somebody may change mappings at all, whoever manages them."""
        return super().has_change_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: TableMapping | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_change_permission(request, obj) and not is_managed(obj)

    def has_delete_permission(self, request: HttpRequest, obj: TableMapping | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_delete_permission(request, obj) and not is_managed(obj)

    def get_urls(self) -> list[URLPattern]:
        """The list's own, the editor's, the publishing's and those of files."""
        return [*self.publishing_urls(), *self.editor_urls(), *self.file_urls(), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with what is served now."""
        planned = plan()
        context = {
            "served": latest_revision(),
            "consequences": str(planned),
            "is_served": not (planned.is_first or planned.problem or planned.changes),
            "may_publish": may(request, EDIT, PUBLISH),
            **self.file_context(request),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The editor."""
        context = {"may_edit": self.may_edit(request), "may_publish": may(request, EDIT, PUBLISH)}
        return super().changeform_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Say of a managed table that it is, and of any table what it is in Zero."""
        obj = kwargs.get("obj")
        context.update({"is_managed": is_managed(obj), "typescript": typescript_of(obj)})
        return super().render_change_form(request, context, *args, **kwargs)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """The columns are saved as a whole."""
        formset.replace_all()

    def response_add(
        self, request: HttpRequest, obj: TableMapping, post_url_continue: str | None = None
    ) -> HttpResponse:
        """After *Save and publish*, the page that publishes."""
        return self._publishing(request) or super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: TableMapping) -> HttpResponse:
        """After *Save and publish*, the page that publishes."""
        return self._publishing(request) or super().response_change(request, obj)

    def _publishing(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponseRedirect(reverse("admin:changesource_publish")) if "_publish" in request.POST else None


@admin.register(Publication)
class PublicationAdmin(DraftHistory, PublicationModelAdmin):
    """Named sets of tables."""

    list_display = ("name", "managed_by")
    formfield_overrides = TICKED
    readonly_fields = ("managed_by",)

    def has_change_permission(self, request: HttpRequest, obj: Publication | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_change_permission(request, obj) and not is_managed(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Publication | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_delete_permission(request, obj) and not is_managed(obj)
