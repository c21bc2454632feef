"""``manage.py previewmapping``: show what a table makes of real documents."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import CommandError

from changesource.conf import settings
from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.preview import Preview, preview_table

MAX_SAMPLE = 1000


class Command(CodedCommand):
    """Prints documents beside the rows and frames that they become, as the mapping is edited now."""

    help = "Show the rows and frames that a table makes of documents; nothing is published or sent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """TABLE, and which documents."""
        parser.add_argument("table", metavar="TABLE", help="the table's name")
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--id", metavar="ID", default="", help="the document's _id: text, or extended JSON such as 5 or a $date"
        )
        which.add_argument("--sample", metavar="N", type=int, default=3, help="this many documents at random (3)")

    def handle(self, *args: Any, table: str, id: str, sample: int, **options: Any) -> None:
        """Print."""
        if not 1 <= sample <= MAX_SAMPLE:
            raise CommandError(f"--sample is a number from 1 to {MAX_SAMPLE}.")
        startup.prepare_database()
        found = preview_table(settings(), table, document_id=id, size=sample)
        if not found:
            raise CommandError(f"There is no document with the _id {id}." if id else "The collection is empty.")
        for preview in found:
            self._print(preview)

    def _print(self, preview: Preview) -> None:
        self.stdout.write(f"document  {preview.shown_document}")
        for row, frame in zip(preview.rows, preview.frames, strict=True):
            self.stdout.write(f"  row     {orjson.dumps(row).decode()}")
            self.stdout.write(f"  frame   {frame}")
        for fault in preview.faults:
            where = f"column {fault.column}: " if fault.column else ""
            effect = "a row is left out" if fault.left_out else "null is sent"
            self.stdout.write(f"  error   {where}{fault.reason} ({effect})")
        if not preview.rows and not preview.faults:
            self.stdout.write("  no row  the filter or the pipeline leaves the document out")
