"""Tables, columns and publications: edits are a draft until they are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.db import models
from django.forms.models import BaseInlineFormSet, ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from changesource.conf import settings
from changesource.exceptions import MappingError, ZerosourceError
from changesource.fields import OrderedJSONField
from changesource.mapping.rows import compile_table
from changesource.models import ColumnMapping, Publication, TableMapping
from changesource.services.configuration import publish
from changesource.services.consequences import consequences
from changesource.services.inspection import inspector
from changesource.store.mappings import latest_revision

if TYPE_CHECKING:
    TableForm = ModelForm[TableMapping]
    ColumnFormSet = BaseInlineFormSet[ColumnMapping, TableMapping, ModelForm[ColumnMapping]]
    ColumnTabularInline = admin.TabularInline[ColumnMapping, TableMapping]
    TableModelAdmin = admin.ModelAdmin[TableMapping]
    PublicationModelAdmin = admin.ModelAdmin[Publication]
else:
    TableForm = ModelForm
    ColumnFormSet = BaseInlineFormSet
    ColumnTabularInline = TabularInline
    TableModelAdmin = PublicationModelAdmin = ModelAdmin

# Ten lines for each, as they are by default, push the columns off the screen.
SHORT_BOXES: dict[type[models.Field[Any, Any]], dict[str, Any]] = {
    kind: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 2})} for kind in (OrderedJSONField, models.TextField)
}
# A row of columns must fit the screen.
NARROW_BOXES: dict[type[models.Field[Any, Any]], dict[str, Any]] = {
    OrderedJSONField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 1})},
    models.CharField: {"widget": UnfoldAdminTextInputWidget()},
}


def is_managed(obj: TableMapping | Publication | None) -> bool:
    """Whether a file or URL would overwrite edits. Where none is set any more, what it gave may be edited."""
    return obj is not None and bool(obj.managed_by) and settings().has_managed_source


class TableMappingForm(TableForm):
    """Leaves the check of the mapping to the columns' formset, which knows what they will be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.checked_by = self

    def clean_filter(self) -> Any:
        """An emptied field takes every document."""
        return {} if self.cleaned_data["filter"] is None else self.cleaned_data["filter"]

    def clean_pipeline(self) -> Any:
        """An emptied field has no stages."""
        return [] if self.cleaned_data["pipeline"] is None else self.cleaned_data["pipeline"]


class ColumnMappingFormSet(ColumnFormSet):
    """Checks the table together with its columns, and shows what is wrong where it is."""

    def clean(self) -> None:
        """Compile the table as it would be saved."""
        super().clean()
        form = self.instance.checked_by
        if any(self.errors) or not isinstance(form, TableMappingForm) or form.errors:
            return
        kept = [f for f in self.forms if f not in self.deleted_forms and (f.has_changed() or f.instance.pk)]
        kept.sort(key=lambda f: f.instance.position)
        try:
            compile_table(self.instance.table_spec(f.instance for f in kept))
        except MappingError as error:
            if not self._shown_at_column(kept, error):
                form.add_error(self._field(error), error.problem)
            raise ValidationError(f"{error.place}: {error.problem}") from error

    def _shown_at_column(self, kept: list[ModelForm[ColumnMapping]], error: MappingError) -> bool:
        place = error.place.removeprefix(f"tables.{self.instance.name}.columns.")
        for form in kept:
            name = form.instance.name
            if place == name or place.startswith(f"{name}."):
                key = place.removeprefix(name).lstrip(".").partition(".")[0].replace("keyType", "key_type")
                form.add_error(key if key in form.fields else "name", error.problem)
                return True
        return False

    def _field(self, error: MappingError) -> str | None:
        field = self.instance.field_at_fault(error)
        return None if field == NON_FIELD_ERRORS else field


class ColumnMappingInline(ColumnTabularInline):
    """The columns, beside their table."""

    model = ColumnMapping
    formset = ColumnMappingFormSet
    formfield_overrides = NARROW_BOXES
    fields = ("name", "type", "path", "expression", "optional", "key_type", "position")
    extra = 1


@admin.register(TableMapping)
class TableMappingAdmin(TableModelAdmin):
    """The tables, with a button that publishes them."""

    form = TableMappingForm
    formfield_overrides = SHORT_BOXES
    inlines = (ColumnMappingInline,)
    list_display = ("name", "collection", "enabled", "description", "managed_by")
    list_filter = ("enabled",)
    search_fields = ("name", "collection")
    readonly_fields = ("managed_by",)
    change_list_template = "admin/changesource/tablemapping/change_list.html"

    def has_change_permission(self, request: HttpRequest, obj: TableMapping | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_change_permission(request, obj) and not is_managed(obj)

    def has_delete_permission(self, request: HttpRequest, obj: TableMapping | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_delete_permission(request, obj) and not is_managed(obj)

    def get_urls(self) -> list[URLPattern]:
        """The list's own, and the button's."""
        publishing = path("publish/", self.admin_site.admin_view(self.publish_view), name="changesource_publish")
        return [publishing, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with what is served now."""
        context = {
            "served": latest_revision(),
            "consequences": consequences(),
            "may_publish": super().has_change_permission(request),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    @method_decorator(require_POST)
    def publish_view(self, request: HttpRequest) -> HttpResponse:
        """Publish the draft and say how that went."""
        if not super().has_change_permission(request):
            raise PermissionDenied
        try:
            before = latest_revision()
            revision = publish(request.user.get_username(), request.POST.get("note", ""), inspector())
        except ZerosourceError as exc:
            self.message_user(request, f"Nothing was published. {exc}", messages.ERROR)
        else:
            if before is not None and before.number == revision.number:
                self.message_user(request, f"Nothing has changed since {revision}.", messages.INFO)
            else:
                self.message_user(request, f"Published as {revision}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:changesource_tablemapping_changelist"))


@admin.register(Publication)
class PublicationAdmin(PublicationModelAdmin):
    """Named sets of tables."""

    list_display = ("name", "managed_by")
    filter_horizontal = ("tables",)
    readonly_fields = ("managed_by",)

    def has_change_permission(self, request: HttpRequest, obj: Publication | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_change_permission(request, obj) and not is_managed(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Publication | None = None) -> bool:
        """Not for what a file or URL gives."""
        return super().has_delete_permission(request, obj) and not is_managed(obj)
