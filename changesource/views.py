"""What is answered over plain HTTP."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.services.access import admit


def stream(request: HttpRequest) -> HttpResponse:
    """The change stream's address was opened as a page: 426, and what to do instead."""
    return HttpResponse(
        "This is a WebSocket for zero-cache: put its address, as ws:// or wss://, into ZERO_UPSTREAM_DB.\n",
        status=426,
        content_type="text/plain; charset=utf-8",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )


async def metrics(request: HttpRequest) -> HttpResponse:
    """What this process counts, in Prometheus's text form, for whoever has an API key."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Only an ASGI server answers this.\n", status=501, content_type="text/plain")
    try:
        await admit(request.scope, settings())
    except ZerosourceError as error:
        status = 503 if error.retryable else 401
        challenge = {} if error.retryable else {"WWW-Authenticate": 'Basic realm="zerosource"'}
        return HttpResponse(f"{error}\n", status=status, content_type="text/plain; charset=utf-8", headers=challenge)
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
