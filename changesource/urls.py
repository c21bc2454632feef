"""The URLs of the app that are answered over plain HTTP."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("metrics", views.metrics, name="metrics"),
    path("metadata/status", views.status, name="status"),
    path("metadata/tables", views.tables, name="tables"),
    path("metadata/schemas", views.schemas, name="schemas"),
    path("metadata/openapi.json", views.openapi, name="openapi"),
    path("changes/v0/stream", views.stream, name="stream"),
]
