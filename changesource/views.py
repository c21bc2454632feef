"""What is answered over plain HTTP."""

from __future__ import annotations

from channels.db import database_sync_to_async
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from changesource.conf import settings
from changesource.exceptions import ConfigurationUnavailable, DatabaseUnavailable, UnknownPublication
from changesource.gate import for_readers, plain
from changesource.services.schema_export import exported_schema


def stream(request: HttpRequest) -> HttpResponse:
    """The change stream's address was opened as a page: 426, and what to do instead."""
    return HttpResponse(
        "This is a WebSocket for zero-cache: put its address, as ws:// or wss://, into ZERO_UPSTREAM_DB.\n",
        status=426,
        content_type="text/plain; charset=utf-8",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )


@for_readers
async def metrics(request: HttpRequest) -> HttpResponse:
    """What this process counts, in Prometheus's text form."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


@for_readers
async def schemas(request: HttpRequest) -> HttpResponse:
    """The published Zero schema as JSON, as SCHEMA_URL of another instance reads it; ``?publication=`` for a part."""
    try:
        text = await database_sync_to_async(exported_schema)("json", publication=request.GET.get("publication", ""))
    except UnknownPublication as error:
        return plain(error, 404)
    except ConfigurationUnavailable as error:
        return plain(error, 503)
    except DatabaseFailure as error:
        return plain(DatabaseUnavailable.of(error), 503)
    return HttpResponse(text, content_type="application/json")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form was not sent by a page of ours, or not as a page of ours sends it: 403, and what may be amiss."""
    wants_https = settings().secure_cookies and not request.is_secure()
    # The page is for browsers; the log has the reason.
    return render(request, "403_csrf.html", {"wants_https": wants_https}, status=403)
