"""``manage.py revokeapikey``: refuse an API key from now on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.store import api_keys


class Command(CodedCommand):
    """Revokes by name; a key revoked before stays so."""

    help = "Refuse an API key of the database from now on. Its connections are closed within two seconds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name", help="the key's name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke it."""
        startup.prepare_database()
        if not api_keys.revoke(options["name"]):
            raise CommandError(f"There is no key named {options['name']!r}.")
        self.stdout.write(f"{options['name']!r} is revoked.")
