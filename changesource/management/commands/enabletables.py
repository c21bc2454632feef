"""``manage.py enabletables TABLE...``: have tables served from the next publishing on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from changesource.management.commands._coded import CodedCommand
from changesource.services import startup
from changesource.services.switching import switch_tables


class Command(CodedCommand):
    """Switches all tables that it names, or none."""

    help = "Enable tables in the draft; publishmappings has them served."
    enabled = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """TABLE..."""
        parser.add_argument("tables", metavar="TABLE", nargs="+", help="the tables' names")

    def handle(self, *args: Any, tables: list[str], **options: Any) -> None:
        """Switch them."""
        startup.prepare_database()
        changed = switch_tables(tables, enabled=self.enabled)
        word = "enabled" if self.enabled else "disabled"
        self.stdout.write(f"{word} in the draft: {', '.join(changed)}" if changed else f"all were {word} already")
