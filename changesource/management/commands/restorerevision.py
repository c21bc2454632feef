"""``manage.py restorerevision NUMBER``: make the draft as a revision was."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.mapping.difference import in_lines
from changesource.services import startup
from changesource.services.revisions import restore, restoring


class Command(CodedCommand):
    """Changes the draft alone, and says how; publishmappings serves it."""

    help = "Make the draft as a published revision was; tables that it did not have are disabled."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """NUMBER, --dry-run."""
        parser.add_argument("number", metavar="NUMBER", type=int, help="the revision's number")
        parser.add_argument("--dry-run", action="store_true", help="say what would change; change nothing")

    def handle(self, *args: Any, number: int, dry_run: bool, **options: Any) -> None:
        """Restore."""
        startup.prepare_database()
        done = restoring(number) if dry_run else restore(number)
        self.stdout.write("\n".join(in_lines(done.changes)) or f"the draft is as revision {number} was")
        if done.kept:
            self.stdout.write(f"managed, and left as they are: {', '.join(done.kept)}")
