"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ChangesourceConfig(AppConfig):
    """The change source: mappings, watermarks and the streams made from them."""

    name = "changesource"
    verbose_name = "Change source"
