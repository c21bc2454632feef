"""What an edit of the draft changed, in the history of what was edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from changesource.exceptions import MappingError
from changesource.mapping.difference import difference, in_words
from changesource.mapping.spec import Specification
from changesource.store.mappings import read_draft

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = object


class DraftHistory(AnyModelAdmin):
    """Part of the admin of a model that the draft is made of: its history has values, not only fields."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Remember the draft as it was."""
        form.draft_before = _draft() if change else None
        super().save_model(request, obj, form, change)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Each place with what stood and stands there."""
        before, after = getattr(form, "draft_before", None), _draft()
        if add or before is None or after is None:
            return super().construct_change_message(request, form, formsets, add)
        return in_words(difference(before, after)) or "Nothing changed."


def _draft() -> Specification | None:
    try:
        return read_draft()
    except MappingError:
        return None  # of a JSON field that holds another kind of JSON
