"""``manage.py resyncreplica APP``: have a replica sync anew."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.store import watermarks


class Command(CodedCommand):
    """Leaves the wish in the database; the replica's session sees it within a second."""

    help = "Tell a replica to sync anew, now or as soon as it connects: it is reset, and reads everything again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """APP, --shard."""
        parser.add_argument("app_id", metavar="APP", help="ZERO_APP_ID of the zero-cache")
        parser.add_argument("--shard", metavar="N", type=int, default=0, help="its shard (0)")

    def handle(self, *args: Any, app_id: str, shard: int, **options: Any) -> None:
        """Do it to the one replica."""
        startup.prepare_database()
        pk = watermarks.replica(app_id, shard)
        if pk is None:
            raise CommandError(f"There is no replica {app_id}/{shard}.")
        self.stdout.write(self.do(pk, f"{app_id}/{shard}"))

    def do(self, pk: int, name: str) -> str:
        """Do it, and return what was done in words. Raises ``CommandError`` where it cannot be."""
        watermarks.want_resync([pk])
        return f"{name} is told to sync anew."
