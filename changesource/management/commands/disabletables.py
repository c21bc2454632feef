"""``manage.py disabletables TABLE...``: have tables no longer served from the next publishing on."""

from __future__ import annotations

from changesource.management.commands import enabletables


class Command(enabletables.Command):
    """As enabletables, the other way."""

    help = "Disable tables in the draft; once published, no replica gets them any more."
    enabled = False
