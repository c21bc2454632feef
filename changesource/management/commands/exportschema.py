"""``manage.py exportschema``: write the Zero schema of the mapped tables."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.schema_export import FORMATS, Format, exported_schema


class Command(CodedCommand):
    """Writes what clients import, or the JSON that /metadata/schemas gives."""

    help = "Write the Zero schema of the tables that are published, as TypeScript or as JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--format", choices=FORMATS, default="typescript", help="typescript (the default) or json")
        parser.add_argument("--publication", metavar="NAME", default="", help="the tables of this publication alone")
        parser.add_argument("--draft", action="store_true", help="as the tables are edited, not as they are published")
        parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to write; else to standard output")

    def handle(
        self, *args: Any, format: Format, publication: str, draft: bool, output: Path | None, **options: Any
    ) -> None:
        """Write."""
        startup.prepare_database()
        self.write(exported_schema(format, publication=publication, draft=draft), output)
