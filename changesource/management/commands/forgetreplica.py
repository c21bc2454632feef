"""``manage.py forgetreplica APP``: forget a replica that will not come back."""

from __future__ import annotations

from django.core.management.base import CommandError

from changesource.management.commands import resyncreplica
from changesource.store import watermarks


class Command(resyncreplica.Command):
    """Deletes its row. One that comes back all the same goes on from its own watermark."""

    help = "Forget a replica that will not come back; one that is connected is not forgotten."

    def do(self, pk: int, name: str) -> str:
        """Forget it."""
        if not watermarks.forget([pk]):
            raise CommandError(f"{name} is connected, or was a moment ago; it is not forgotten.")
        return f"{name} was forgotten."
