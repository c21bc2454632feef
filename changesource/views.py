"""What is answered over plain HTTP."""

from __future__ import annotations

from channels.db import database_sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from changesource.conf import settings
from changesource.exceptions import (
    AccessRefused,
    ConfigurationUnavailable,
    DatabaseUnavailable,
    UnknownPublication,
    ZerosourceError,
)
from changesource.services.access import admit_to_page
from changesource.services.schema_export import exported_schema


def stream(request: HttpRequest) -> HttpResponse:
    """The change stream's address was opened as a page: 426, and what to do instead."""
    return HttpResponse(
        "This is a WebSocket for zero-cache: put its address, as ws:// or wss://, into ZERO_UPSTREAM_DB.\n",
        status=426,
        content_type="text/plain; charset=utf-8",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )


async def metrics(request: HttpRequest) -> HttpResponse:
    """What this process counts, in Prometheus's text form, for whoever has an API key or is staff."""
    return await _refusal(request) or HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


async def schemas(request: HttpRequest) -> HttpResponse:
    """The published Zero schema as JSON, as SCHEMA_URL of another instance reads it; ``?publication=`` for a part."""
    refusal = await _refusal(request)
    if refusal is not None:
        return refusal
    try:
        text = await database_sync_to_async(exported_schema)("json", publication=request.GET.get("publication", ""))
    except UnknownPublication as error:
        return _plain(error, 404)
    except ConfigurationUnavailable as error:
        return _plain(error, 503)
    except DatabaseFailure as error:
        return _plain(DatabaseUnavailable.of(error), 503)
    return HttpResponse(text, content_type="application/json")


async def _refusal(request: HttpRequest) -> HttpResponse | None:
    """What is answered to those who have neither an API key nor a session of staff; None for the others."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Only an ASGI server answers this.\n", status=501, content_type="text/plain")
    try:
        await admit_to_page(request.scope, settings())
    except ZerosourceError as error:
        if error.retryable:
            return _plain(error, 503)
        if isinstance(error, AccessRefused) and await _is_staff(request):
            return None
        refusal = _plain(error, 401)
        refusal["WWW-Authenticate"] = 'Basic realm="zerosource"'
        return refusal
    return None


async def _is_staff(request: HttpRequest) -> bool:
    try:
        user = await request.auser()
    except DatabaseFailure:
        return False
    return user.is_active and user.is_staff


def _plain(error: ZerosourceError, status: int) -> HttpResponse:
    return HttpResponse(f"{error}\n", status=status, content_type="text/plain; charset=utf-8")
