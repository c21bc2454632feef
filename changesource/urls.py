"""The URLs of the app that are answered over plain HTTP."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("metrics", views.metrics, name="metrics"),
    path("metadata/schemas", views.schemas, name="schemas"),
    path("changes/v0/stream", views.stream, name="stream"),
]
