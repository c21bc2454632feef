"""``manage.py exportmappings``: write the table mappings as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.mapping.formats import write_specification
from changesource.services import startup
from changesource.store.mappings import read_draft


class Command(CodedCommand):
    """Writes all tables, disabled ones too, and all publications, in the form that importmappings reads."""

    help = "Write the table mappings and publications, as they are edited, as JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--output."""
        parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to write; else to standard output")

    def handle(self, *args: Any, output: Path | None, **options: Any) -> None:
        """Write."""
        startup.prepare_database()
        self.write(json.dumps(write_specification(read_draft()), indent=2) + "\n", output)
