"""``manage.py comparerevisions OLD [NEW]``: what differs between two revisions."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.mapping.difference import in_lines
from changesource.services import startup
from changesource.services.revisions import revision_difference


class Command(CodedCommand):
    """Prints each table and publication that differs, place by place."""

    help = "Show what differs between two published revisions, or between one and the draft."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """OLD, NEW."""
        parser.add_argument("old", metavar="OLD", type=int, help="a revision's number")
        parser.add_argument("new", metavar="NEW", type=int, nargs="?", help="another one's; else the draft")

    def handle(self, *args: Any, old: int, new: int | None, **options: Any) -> None:
        """Compare."""
        startup.prepare_database()
        self.stdout.write("\n".join(in_lines(revision_difference(old, new))) or "nothing differs")
