"""Who may read pages that are made for programs: ``/metrics`` and all under ``/metadata``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse

from changesource.conf import settings
from changesource.exceptions import AccessRefused, ZerosourceError
from changesource.services.access import admit_to_page

Page = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]
REMEDY = (
    "Send a key as HTTP Basic's password: one that createapikey or the admin made, or one of CHANGE_SOURCE_API_KEYS. Or"
    " log in at /admin/."
)


def for_readers(page: Page) -> Page:
    """Answer by ``page`` those who have an API key or a session of staff, and all where OPEN_METRICS is on."""

    @wraps(page)
    async def guarded(request: HttpRequest) -> HttpResponse:
        answer = await _refusal(request) or await page(request)
        answer["Cache-Control"] = "no-store"  # a proxy that keeps pages would show it to everybody
        return answer

    return guarded


async def _refusal(request: HttpRequest) -> HttpResponse | None:
    if settings().open_metrics:
        return None
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Only an ASGI server answers this.\n", status=501, content_type="text/plain")
    try:
        await admit_to_page(request.scope, settings())
    except ZerosourceError as error:
        if error.retryable:
            return plain(error, 503)
        if isinstance(error, AccessRefused):
            if await _is_staff(request):
                return None
            if type(error) is AccessRefused:
                error.remedy = REMEDY
        refusal = plain(error, 401)
        refusal["WWW-Authenticate"] = 'Basic realm="zerosource"'
        return refusal
    return None


async def _is_staff(request: HttpRequest) -> bool:
    try:
        user = await request.auser()
    except DatabaseFailure:
        return False
    return user.is_active and user.is_staff


def plain(error: ZerosourceError, status: int) -> HttpResponse:
    """The error in one line of text."""
    return HttpResponse(f"{error}\n", status=status, content_type="text/plain; charset=utf-8")
