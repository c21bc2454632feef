"""Searching lists, as far as a database can be asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = object

# Characters. Each word is looked for in each field, and SQLite takes no more than 1,000 conditions.
LONGEST = 200


class BoundedSearch(AnyModelAdmin):
    """Part of the admin of a model whose list can be searched: finds nothing by very many words."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """What Django finds."""
        if len(search_term) > LONGEST:
            messages.warning(request, f"Search for at most {LONGEST} characters.")
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)
