"""``manage.py check``: Django's own, and the checks that ask MongoDB (``--tag changesource`` for those alone)."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import check


class Command(check.Command):
    """Django's command, with this app's checks registered."""

    def handle(self, *app_labels: Any, **options: Any) -> None:
        """Check."""
        from changesource import checks  # noqa: F401, PLC0415 - importing it registers them, for this command alone

        super().handle(*app_labels, **options)
