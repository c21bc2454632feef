#!/usr/bin/env python
"""Django's command line: ``python manage.py serve``, ``runwatcher``, ``migrate`` and the others."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

from changesource.exceptions import SettingError


def main() -> None:
    """Run the command that the arguments name; a wrong setting ends it with one line."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zerosource_project.settings")
    try:
        execute_from_command_line(sys.argv)
    except SettingError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
