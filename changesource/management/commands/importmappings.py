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
from changesource.services.consequences import plan
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
        parser.add_argument(
            "--dry-run", action="store_true", help="check and say what would change, for which replicas; change nothing"
        )

    def handle(self, *args: Any, file: Path, schema: Path | None, dry_run: bool, **options: Any) -> None:
        """Read, import, say what was done."""
        startup.prepare_database()
        try:
            schema_content = None if schema is None else read_file(schema, REMEDY)
            spec = specification_in(read_file(file, REMEDY), str(file), schema_content, str(schema))
            # What it does to replicas can be said only before it is done.
            inspect = inspector(switch=False)
            changes = import_specification(spec, "importmappings", inspect=inspect, dry_run=True)
            planned = plan(changes.draft)
            if not dry_run:
                seen = changes.draft_hash
                import_specification(spec, "importmappings", file.name, inspect=inspector(), seen=seen)
        except ZerosourceError as exc:
            raise CommandError(f"Nothing was changed. {exc}") from exc
        named = {*changes.made, *changes.changed, *changes.unchanged}
        others = tuple(one.title for one in planned.changes if one.title not in named)
        for word, names in (
            ("made", changes.made),
            ("changed", changes.changed),
            ("unchanged", changes.unchanged),
            ("published as well, since they were edited before", others),
        ):
            if names:
                self.stdout.write(f"{'would be ' if dry_run else ''}{word}: {', '.join(names)}")
        if planned.resyncs or planned.refused:
            self.stdout.write(str(planned))
