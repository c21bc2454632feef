"""``manage.py listapikeys``: the API keys of the database, what each is good for, and when it was last used."""

from __future__ import annotations

from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.store import api_keys


class Command(CodedCommand):
    """Prints a line for each key; never the key itself, which is not kept."""

    help = "List the API keys of the database. Those of CHANGE_SOURCE_API_KEYS are not among them."

    def handle(self, *args: Any, **options: Any) -> None:
        """List them."""
        startup.prepare_database()
        for row in api_keys.everything():
            self.stdout.write(api_keys.in_words(row))
