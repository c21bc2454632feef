"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate

from changesource import tracing


class ChangesourceConfig(AppConfig):
    """The change source: mappings, watermarks and the streams made from them."""

    name = "changesource"
    verbose_name = "Change source"

    def ready(self) -> None:
        """Send traces, if they are wished; have roles made once a migration is through, and ended sessions deleted at
        each login."""
        from changesource.services.roles import make_roles  # noqa: PLC0415 - models can be imported only now
        from changesource.sessions import clear_expired  # noqa: PLC0415 - as the next one

        tracing.start()
        post_migrate.connect(make_roles, sender=self, dispatch_uid="changesource.roles")
        user_logged_in.connect(clear_expired, dispatch_uid="changesource.sessions")
