"""The URLs of the project: the admin, and what the app serves."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from changesource.admin.live import live_page

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/live/", live_page, name="live"),
    path("admin/", admin.site.urls),
    path("", include("changesource.urls")),
]
