#!/usr/bin/env python
"""Django's command line: ``python manage.py serve``, ``runwatcher``, ``migrate`` and the others."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from django.core.management import execute_from_command_line

from changesource.exceptions import SettingError
from changesource.logs import without_keys


def main() -> None:
    """Run the command that the arguments name; a wrong setting ends it with one line."""
    sys.excepthook = _report
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zerosource_project.settings")
    try:
        execute_from_command_line(sys.argv)
    except SettingError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(exc.exit_code)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of what nobody caught, without passwords that its words may hold."""
    sys.stderr.write(without_keys("".join(traceback.format_exception(kind, error, trace))))


if __name__ == "__main__":
    main()
