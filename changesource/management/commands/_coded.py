"""What all commands of this app share: errors are told in one line, by code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseFailure

from changesource.exceptions import DatabaseUnavailable, ZerosourceError
from changesource.logs import without_keys


class CodedCommand(BaseCommand):
    """A command that ends with the error's code, words and remedy, instead of a traceback."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it. Raises ``CommandError`` alone."""
        try:
            return super().execute(*args, **options)
        except ZerosourceError as error:
            raise _refusal(error) from error
        except DatabaseFailure as error:
            raise _refusal(DatabaseUnavailable.of(error)) from error

    def write(self, text: str, output: Path | None) -> None:
        """Write ``text``, which ends with a newline, to a file, or to standard output. Raises ``CommandError``."""
        if output is None:
            self.stdout.write(text, ending="")
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise CommandError(f"{output} cannot be written: {exc.strerror}") from exc


def end_by_sigterm() -> None:
    """Have SIGTERM end the start of a command that runs for long, until what it runs takes the signal for itself.

    As the first process of a container it would be deaf to it otherwise, and be killed after the time of grace.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _refusal(error: ZerosourceError) -> CommandError:
    return CommandError(without_keys(str(error)), returncode=error.exit_code)
