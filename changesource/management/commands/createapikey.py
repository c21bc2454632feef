"""``manage.py createapikey``: make an API key and print it this once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from changesource.management.commands._coded import CodedCommand
from changesource.management.commands._key_bounds import add_bounds, refusal
from changesource.services import startup
from changesource.store import api_keys


class Command(CodedCommand):
    """Prints the key alone on stdout, so that a script can take it."""

    help = "Make an API key for a zero-cache and print it; it is shown this once, only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name", help="what the key is for; to be told apart in the admin")
        add_bounds(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        name = options["name"].strip()
        if not name:
            raise CommandError("The key's name is empty.")
        startup.prepare_database()
        try:
            key = api_keys.create(name, options["app_id"] or (), options["expires"])
        except ValidationError as error:
            raise refusal(error) from error
        if key is None:
            raise CommandError(f"There is a key named {name!r} already. A revoked one keeps its name.")
        self.stdout.write(key)
        self.stderr.write("Shown this once. Put it into ZERO_UPSTREAM_DB: ws://zero:KEY@HOST:3000/changes/v0/stream")
