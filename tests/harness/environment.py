"""The environment of processes under test."""

from __future__ import annotations

import os
from dataclasses import fields

from changesource.conf import Settings


def blank_environment() -> dict[str, str]:
    """Every setting, set to nothing, which counts as unset: so no ``.env`` fills it in. ``SECRET_KEY`` has a value."""
    names = [field.name.upper() for field in fields(Settings)]
    blank = {name: "" for name in names if name not in ("API_KEYS", "DATA_DIR")}
    return {**blank, "CHANGE_SOURCE_API_KEYS": "", "SECRET_KEY": "for-tests-only"}


def newcomers_environment() -> dict[str, str]:
    """The tests' own environment as that of somebody who has set nothing of ours, of Zero or of make."""
    ours = {*blank_environment(), "DATA_DIR"}
    theirs = ("ZERO_", "DJANGO_", "MAKE")
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(theirs)}


def process_environment() -> dict[str, str]:
    """What any process needs of the tests' own environment, and nothing that says where a service is."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}
