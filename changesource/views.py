"""What is answered over plain HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from channels.db import database_sync_to_async
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.cache import get_conditional_response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from changesource import VERSION
from changesource.conf import settings
from changesource.exceptions import ConfigurationUnavailable, DatabaseUnavailable, UnknownPublication
from changesource.gate import for_readers, plain
from changesource.services import status as service
from changesource.services.schema_export import exported_mappings, exported_schema


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
    return await _published(request, lambda publication: exported_schema("json", publication=publication))


@for_readers
async def tables(request: HttpRequest) -> HttpResponse:
    """The published mappings, as TABLE_MAPPINGS_URL of another instance reads them; ``?publication=`` for a part."""
    return await _published(request, exported_mappings)


async def _published(request: HttpRequest, export: Callable[[str], str]) -> HttpResponse:
    """Answer with what ``export`` gives of a publication ("": all), or that it is what the client has (304)."""
    try:
        text = await database_sync_to_async(export)(request.GET.get("publication", ""))
    except UnknownPublication as error:
        return plain(error, 404)
    except ConfigurationUnavailable as error:
        return plain(error, 503)
    except DatabaseFailure as error:
        return plain(DatabaseUnavailable.of(error), 503)
    answer = HttpResponse(text, content_type="application/json")
    answer["ETag"] = tag = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    return get_conditional_response(request, etag=tag, response=answer) or answer


@for_readers
async def status(request: HttpRequest) -> HttpResponse:
    """How all is, for scripts: see ``services.status``."""
    try:
        found = await database_sync_to_async(service.status)()
    except ConfigurationUnavailable as error:
        return plain(error, 503)
    except DatabaseFailure as error:
        return plain(DatabaseUnavailable.of(error), 503)
    return JsonResponse(found)


@for_readers
async def openapi(request: HttpRequest) -> HttpResponse:
    """The description of all pages that are made for programs, as OpenAPI."""
    return JsonResponse(_description())


@cache
def _description() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("openapi.json").read_text(encoding="utf-8"))
    found["info"]["version"] = VERSION
    return found


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form was not sent by a page of ours, or not as a page of ours sends it: 403, and what may be amiss."""
    wants_https = settings().secure_cookies and not request.is_secure()
    # The page is for browsers; the log has the reason.
    return render(request, "403_csrf.html", {"wants_https": wants_https}, status=403)
