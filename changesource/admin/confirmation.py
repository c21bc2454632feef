"""Asking before something that has consequences, and the history of what was done to many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

CONFIRMED = "confirmed"


def is_confirmed(request: HttpRequest) -> bool:
    """Whether the answer to the question came with this request."""
    return request.method == "POST" and CONFIRMED in request.POST


def asked_of_selected(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, selected: QuerySet[Any], question: Mapping[str, Any]
) -> TemplateResponse:
    """The page that asks before an action of a list.

    ``question`` has a ``title``, ``lines`` of text, the ``button``'s words, and ``dangerous`` where it is.
    """
    hidden = [(ACTION_CHECKBOX_NAME, row.pk) for row in selected]
    context = {"items": list(selected), "hidden": [("action", request.POST["action"]), *hidden]}
    return asked(model_admin, request, {**context, **question})


def asked(model_admin: admin.ModelAdmin[Any], request: HttpRequest, question: Mapping[str, Any]) -> TemplateResponse:
    """The page that asks; besides the above, ``hidden`` are fields to come back, ``differences`` what would change."""
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "confirmed": CONFIRMED,
        "back": f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_changelist",
        **question,
    }
    return TemplateResponse(request, "admin/changesource/confirm.html", context)


def log_changes(request: HttpRequest, rows: Iterable[Model], message: str, flag: int) -> None:
    """Put what was done to ``rows`` into their history, by one write."""
    changed: Sequence[Model] = list(rows)
    if changed and request.user.pk is not None:
        LogEntry.objects.log_actions(request.user.pk, changed, flag, change_message=message)
