"""The URLs of the project: the admin, and what the app serves."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("changesource.urls")),
]
