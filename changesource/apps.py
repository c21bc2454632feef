"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ChangesourceConfig(AppConfig):
    """The change source: mappings, watermarks and the streams made from them."""

    name = "changesource"
    verbose_name = "Change source"

    def ready(self) -> None:
        """Have the roles made once a migration is through."""
        from changesource.services.roles import make_roles  # noqa: PLC0415 - models can be imported only now

        post_migrate.connect(make_roles, sender=self, dispatch_uid="changesource.roles")
