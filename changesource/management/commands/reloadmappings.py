"""``manage.py reloadmappings``: read SCHEMA_* and TABLE_MAPPINGS_* again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.configuration import load_managed
from changesource.services.inspection import inspector


class Command(CodedCommand):
    """Serves what the files and URLs give now, even where an earlier content came back."""

    help = "Read SCHEMA_* and TABLE_MAPPINGS_* again and serve what they give, earlier contents included."

    def handle(self, *args: Any, **options: Any) -> None:
        """Load."""
        if not settings().has_managed_source:
            raise CommandError("Neither SCHEMA_URL, SCHEMA_FILE, TABLE_MAPPINGS_URL nor TABLE_MAPPINGS_FILE is set.")
        startup.prepare_database()
        try:
            revision = load_managed(inspect=inspector(), again=True)
        except ZerosourceError as exc:
            raise CommandError(f"Nothing was changed. {exc}") from exc
        self.stdout.write(f"serving {revision}" if revision else "nothing is served yet")
