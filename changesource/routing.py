"""The WebSockets' addresses."""

from __future__ import annotations

from channels.sessions import CookieMiddleware
from django.urls import path, re_path

from changesource.consumers import ChangeStreamConsumer, LiveConsumer, UnknownPathConsumer

websocket_urlpatterns = [
    path("changes/v0/stream", ChangeStreamConsumer.as_asgi()),
    path("admin/live/changes", CookieMiddleware(LiveConsumer.as_asgi())),
    # Else the router raises, and its error has the path, in which there may be a key.
    re_path("", UnknownPathConsumer.as_asgi()),
]
