"""What is answered over plain HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse


def healthz(request: HttpRequest) -> JsonResponse:
    """This process is alive. It asks nothing of MongoDB or the database, so an outage there restarts nobody."""
    return JsonResponse({"status": "ok"})


def stream(request: HttpRequest) -> HttpResponse:
    """The change stream's address was opened as a page: 426, and what to do instead."""
    return HttpResponse(
        "This is a WebSocket for zero-cache: put its address, as ws:// or wss://, into ZERO_UPSTREAM_DB.\n",
        status=426,
        content_type="text/plain; charset=utf-8",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )
