"""``manage.py importmappings FILE``: take table mappings from a JSON file."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from changesource.exceptions import ZerosourceError
from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.config_files import read_file
from changesource.services.configuration import import_specification
from changesource.services.importing import specification_in
from changesource.services.inspection import inspector

REMEDY = "Name a file that is there and may be read."


class Command(CodedCommand):
    """Makes the file's tables and publications in the admin, or changes those of the same names, and publishes."""

    help = "Take table mappings from a JSON file, in any of the forms that are read, and publish them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """FILE, --schema, --dry-run."""
        parser.add_argument("file", metavar="FILE", type=Path, help="the mappings")
        parser.add_argument("--schema", metavar="FILE", type=Path, help="the Zero schema that completes them")
        parser.add_argument("--dry-run", action="store_true", help="check and say what would change; change nothing")

    def handle(self, *args: Any, file: Path, schema: Path | None, dry_run: bool, **options: Any) -> None:
        """Read, import, say what was done."""
        startup.prepare_database()
        try:
            schema_content = None if schema is None else read_file(schema, REMEDY)
            spec = specification_in(read_file(file, REMEDY), str(file), schema_content, str(schema))
            changes = import_specification(
                spec, "importmappings", file.name, inspect=inspector(switch=not dry_run), dry_run=dry_run
            )
        except ZerosourceError as exc:
            raise CommandError(f"Nothing was changed. {exc}") from exc
        for word, names in (("made", changes.made), ("changed", changes.changed), ("unchanged", changes.unchanged)):
            if names:
                self.stdout.write(f"{'would be ' if dry_run else ''}{word}: {', '.join(names)}")
