"""``manage.py publishmappings``: serve the draft, as the admin's *Publish* does."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from changesource.conf import settings
from changesource.exceptions import ZerosourceError
from changesource.management.commands._coded import CodedCommand
from changesource.mapping.difference import in_lines
from changesource.services import startup
from changesource.services.configuration import publish
from changesource.services.consequences import Plan, plan, resynced_rows
from changesource.services.inspection import inspector
from changesource.store.mappings import latest_revision


class Command(CodedCommand):
    """Says what publishing the draft changes and what it does to replicas, then publishes it."""

    help = "Publish the table mappings as they are edited in the admin."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--note, --dry-run."""
        parser.add_argument("--note", metavar="TEXT", default="", help="why, for the list of revisions")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done; do nothing")

    def handle(self, *args: Any, note: str, dry_run: bool, **options: Any) -> None:
        """Say, publish, say what is served."""
        startup.prepare_database()
        planned = plan()
        for line in in_lines(planned.changes):
            self.stdout.write(line)
        if str(planned):
            self.stdout.write(str(planned))
        if planned.resyncs:
            self._say_rows(planned)
        if dry_run:
            return
        before = latest_revision()
        revision = publish("publishmappings", note, inspector(), seen=planned.draft_hash)
        same = before is not None and before.number == revision.number
        self.stdout.write(f"nothing has changed since {revision}" if same else f"published as {revision}")

    def _say_rows(self, planned: Plan) -> None:
        try:
            rows = resynced_rows(settings(), planned)
        except ZerosourceError as error:
            self.stderr.write(f"How many rows they will read is not known: {error}")
        else:
            self.stdout.write(f"{len(planned.resyncs)} replicas will read about {rows:,} rows.")
