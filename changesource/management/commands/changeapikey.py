"""``manage.py changeapikey``: bind an API key to app ids, or have it expire, or neither any more."""

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
    """Changes what is given, and leaves the rest."""

    help = (
        "Change what an API key of the database is good for. Connections that it is not good for any more are closed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name", help="the key's name")
        add_bounds(parser)
        parser.add_argument("--any-app", action="store_true", help="good for any app id")
        parser.add_argument("--never", action="store_true", help="does not expire")

    def handle(self, *args: Any, **options: Any) -> None:
        """Change it."""
        app_ids, expires = options["app_id"], options["expires"]
        if (app_ids and options["any_app"]) or (expires and options["never"]):
            raise CommandError("--app-id and --any-app exclude each other, and so do --expires and --never.")
        startup.prepare_database()
        row = api_keys.find(options["name"])
        if row is None:
            raise CommandError(f"There is no key named {options['name']!r}.")
        if app_ids or options["any_app"]:
            row.app_ids = ",".join(app_ids or ())
        if expires or options["never"]:
            row.expires = expires
        try:
            api_keys.rebind(row)
        except ValidationError as error:
            raise refusal(error) from error
        self.stdout.write(api_keys.in_words(row))
