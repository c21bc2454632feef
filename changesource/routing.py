"""The WebSocket's address."""

from __future__ import annotations

from django.urls import path

from changesource.consumers import ChangeStreamConsumer

websocket_urlpatterns = [path("changes/v0/stream", ChangeStreamConsumer.as_asgi())]
