"""What is answered over plain HTTP."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse


def healthz(request: HttpRequest) -> JsonResponse:
    """This process is alive. It asks nothing of MongoDB or the database, so an outage there restarts nobody."""
    return JsonResponse({"status": "ok"})
