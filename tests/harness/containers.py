"""What the files for containers have in common: the variables that they set, held against the settings that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from changesource.conf import Settings, read_settings

# Django's own, which make the first admin.
FIRST_ADMIN = {f"DJANGO_SUPERUSER_{name}" for name in ("USERNAME", "PASSWORD", "EMAIL")}
VARIABLES = {"CHANGE_SOURCE_API_KEYS" if field.name == "api_keys" else field.name.upper() for field in fields(Settings)}


def read_variables(given: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings as the image would read them. Fails at a variable that is none; raises ``SettingError``."""
    unknown = given.keys() - VARIABLES - FIRST_ADMIN
    assert not unknown, f"no settings: {sorted(unknown)}"
    return read_settings({**given, "DATA_DIR": str(folder)}, folder)
