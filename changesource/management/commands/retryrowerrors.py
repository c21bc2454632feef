"""``manage.py retryrowerrors``: look again at documents that did not fit."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from changesource.conf import settings
from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.mending import AT_ONCE
from changesource.services.retrying import Retried, retry
from changesource.store import row_errors

SECONDS = 30.0


class Command(CodedCommand):
    """Goes through the whole list, part by part."""

    help = "Read the documents of listed row errors again, and take those off the list that fit by now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """TABLE..."""
        parser.add_argument("tables", metavar="TABLE", nargs="*", help="the errors of these tables alone")

    def handle(self, *args: Any, tables: list[str], **options: Any) -> None:
        """Look, and say what came of it."""
        startup.prepare_database()
        done, last = Retried(), 0
        while listed := row_errors.after(last, AT_ONCE, tables):
            done += retry(settings(), listed, SECONDS)
            last = listed[-1].pk
        self.stdout.write(f"{done}.")
