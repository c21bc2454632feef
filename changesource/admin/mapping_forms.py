"""The forms of a table and its columns: checked together, errors where they belong, nothing overwritten unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import QuerySet
from django.forms.models import BaseInlineFormSet, ModelForm
from unfold.widgets import UnfoldAdminTextareaWidget

from changesource.conf import settings
from changesource.exceptions import DraftChanged, MappingError
from changesource.fields import EmptyableJSONField
from changesource.mapping.difference import Part, table_difference
from changesource.mapping.json_places import locate
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import Specification, TableSpec
from changesource.models import ColumnMapping, TableMapping
from changesource.services.configuration import hash_of

if TYPE_CHECKING:
    TableForm = ModelForm[TableMapping]
    ColumnForm = ModelForm[ColumnMapping]
    BaseColumnFormSet = BaseInlineFormSet[ColumnMapping, TableMapping, ModelForm[ColumnMapping]]
else:
    TableForm = ColumnForm = ModelForm
    BaseColumnFormSet = BaseInlineFormSet


SHOWN = "shown"  # the code of an error that stands elsewhere too


@dataclass(frozen=True)
class Conflict:
    """What somebody else saved meanwhile: who and when, as far as the admin's history knows it.

    ``parts`` lead from what is stored to what would be saved; ``version`` is that of what is stored.
    """

    who: str
    when: datetime | None
    parts: Sequence[Part]
    version: str


def version_of(mapping: TableMapping) -> str:
    """A hash of the mapping and its columns as they are stored; "" for one that is not stored, or cannot be read."""
    spec = _stored(mapping, TableMapping.objects.all())
    return hash_of(Specification((spec,))) if spec is not None else ""


def _stored(mapping: TableMapping, tables: QuerySet[TableMapping]) -> TableSpec | None:
    """The mapping as it is stored, whatever its form has done to the instance."""
    if mapping.pk is None:
        return None
    stored = tables.filter(pk=mapping.pk).first()
    try:
        return stored.table_spec(stored.columns.all()) if stored is not None else None
    except MappingError:
        return None


class JsonArea(UnfoldAdminTextareaWidget):  # type: ignore[misc]  # the package has no types
    """A box for JSON, which a script highlights."""

    def __init__(self, rows: int) -> None:
        super().__init__(attrs={"rows": rows, "data-json": "", "spellcheck": "false", "autocomplete": "off"})


class TableMappingForm(TableForm):
    """Leaves the check of the mapping to the columns' formset, which knows what they will be."""

    version = forms.CharField(required=False, widget=forms.HiddenInput)
    # Only saving overwrites anything.
    saves = True
    conflict: Conflict | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.checked_by = self
        if "collection" in self.fields:
            collection = self.fields["collection"]
            collection.widget.attrs |= {"list": "zs-collections", "autocomplete": "off"}
            database = settings().mongodb_database
            collection.help_text = f"A collection of the database {database}. An edit makes replicas sync anew."
        if not self.is_bound:
            self.initial["version"] = version_of(self.instance)

    def clean_filter(self) -> Any:
        """An emptied field takes every document."""
        given = self.cleaned_data["filter"]
        if given is not None and not isinstance(given, dict):
            raise ValidationError("It must be an object.")
        return given or {}

    def clean_pipeline(self) -> Any:
        """An emptied field has no stages."""
        given = self.cleaned_data["pipeline"]
        if given is not None and not isinstance(given, list):
            raise ValidationError("It must be a list of stages.")
        return given or []

    def find_conflict(self, spec: TableSpec) -> None:
        """Refuse ``spec`` where what is stored is not what the form began with. Runs in the transaction that saves."""
        if not self.saves or self.instance.pk is None:
            return
        # Where the database can, the row is kept from others until this transaction ends.
        stored = _stored(self.instance, TableMapping.objects.select_for_update())
        version = hash_of(Specification((stored,))) if stored is not None else ""
        if stored is None or version in (self.cleaned_data.get("version"), self.data.get("_overwrite")):
            return
        if stored == spec:
            return  # both made the same of it
        entry = (
            LogEntry.objects.filter(
                content_type=ContentType.objects.get_for_model(TableMapping), object_id=str(self.instance.pk)
            )
            .select_related("user")
            .order_by("-action_time")
            .first()
        )
        who, when = (entry.user.get_username(), entry.action_time) if entry else ("", None)
        self.conflict = Conflict(who, when, table_difference(stored, spec), version)
        self.add_error(None, ValidationError(DraftChanged().message, code="conflict"))

    def add_mapping_error(self, error: MappingError) -> None:
        """Show what the compiler refuses at the field that it speaks of, with the line and column in its text."""
        of_name = error.place == f"tables.{self.instance.name}"
        field = "name" if of_name else self.instance.field_at_fault(error)
        if field == NON_FIELD_ERRORS or field not in self.fields:
            self.add_error(None, error.problem)
            return
        inner = error.place.removeprefix(f"tables.{self.instance.name}.").partition(".")[2]
        self.add_error(field, located(self, field, inner, error.problem))


def located(form: forms.BaseForm, field: str, inner: str, problem: str) -> str:
    """``problem`` with the place ``inner`` within the JSON of ``field``, by line and column."""
    text = form.data.get(form.add_prefix(field)) if form.is_bound else None
    if not inner or not isinstance(form.fields[field], EmptyableJSONField) or not isinstance(text, str):
        return problem
    line, column = locate(text, inner)
    return f"Line {line}, column {column} ({inner}): {problem}"


class ColumnMappingForm(ColumnForm):
    """One column. Its labels stand above all of them, so each box says by itself what it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, label in (("name", "Name in Zero"), ("type", "Type"), ("path", "Field")):
            if name in self.fields:
                self.fields[name].widget.attrs |= {"aria-label": label, "autocomplete": "off", "spellcheck": "false"}


class _AnyId(forms.CharField):
    """Never required: Django sets that of the rows that the page began with."""

    required = property(lambda self: False, lambda self, value: None)


class ColumnMappingFormSet(BaseColumnFormSet):
    """Checks the table together with its columns, and shows what is wrong where it is.

    Columns are replaced as a whole when they are saved, so it does not matter which rows they were before.
    """

    def add_fields(self, form: Any, index: int | None) -> None:
        """Take any id: another operator may have saved, or a file been imported, since the page was made."""
        super().add_fields(form, index)
        form.fields["id"] = _AnyId(initial=form.instance.pk, widget=forms.HiddenInput)

    @property
    def kept(self) -> list[ModelForm[ColumnMapping]]:
        """The forms of the columns that there will be, in their order."""
        kept = [f for f in self.forms if f not in self.deleted_forms and (f.has_changed() or f.instance.pk)]
        return sorted(kept, key=lambda form: form.instance.position)

    @property
    def own_errors(self) -> list[str]:
        """What is wrong with the columns together, without what is shown at its place already."""
        found = self.non_form_errors().as_data()
        return [words for error in found if error.code != SHOWN for words in error.messages]

    def get_form_error(self) -> str:
        """What Django says of each row that repeats another's name."""
        return "Another column has this name."

    def spec(self) -> TableSpec:
        """The table as it would be saved. ``MappingError`` where a JSON field holds another kind of JSON."""
        return self.instance.table_spec(form.instance for form in self.kept)

    def clean(self) -> None:
        """Compile the table as it would be saved."""
        super().clean()
        form = self.instance.checked_by
        if any(self.errors) or not isinstance(form, TableMappingForm) or form.errors:
            return
        try:
            spec = self.spec()
            compile_table(spec)
        except MappingError as error:
            if not self._shown_at_column(error):
                form.add_mapping_error(error)
            raise ValidationError(f"{error.place}: {error.problem}", code=SHOWN) from error
        form.find_conflict(spec)
        if form.conflict is not None:
            raise ValidationError(DraftChanged().message, code=SHOWN)

    def _shown_at_column(self, error: MappingError) -> bool:
        place = error.place.removeprefix(f"tables.{self.instance.name}.columns.")
        for form in self.kept:
            name = form.instance.name
            if place == name or place.startswith(f"{name}."):
                key, _, inner = place.removeprefix(name).lstrip(".").partition(".")
                field = "key_type" if key == "keyType" else key if key in form.fields else "name"
                form.add_error(field, located(form, field, inner, error.problem))
                return True
        return False

    def replace_all(self) -> None:
        """Save the columns in place of those that are stored."""
        self.save(commit=False)  # notes what was added, changed and removed, for the history
        columns = [form.instance for form in self.kept]
        self.instance.columns.all().delete()
        for position, column in enumerate(columns):
            column.pk, column.table, column.position = None, self.instance, position
            column._state.adding = True
        ColumnMapping.objects.bulk_create(columns)
