"""``manage.py takeovermappings TABLE...``: make managed tables ones that are edited in the admin."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.db import transaction

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.configuration import take_over


class Command(CodedCommand):
    """Takes over all of them or none."""

    help = "Make tables that come from SCHEMA_* or TABLE_MAPPINGS_* ones that are edited in the admin."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """TABLE..."""
        parser.add_argument("tables", metavar="TABLE", nargs="+", help="the tables' names")

    def handle(self, *args: Any, tables: list[str], **options: Any) -> None:
        """Take over, say where from."""
        startup.prepare_database()
        with transaction.atomic():
            origins = {name: take_over(name) for name in tables}
        for name, origin in origins.items():
            self.stdout.write(f"{name} was taken over; remove it from {origin}")
