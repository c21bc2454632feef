"""What `serve` says of settings that were not given."""

from __future__ import annotations

from pathlib import Path

from changesource.conf import Settings, read_settings
from changesource.services.announcing import announce

GIVEN = {
    "MONGODB_URI": "mongodb://zero:hidden-password@mongo:27017/shop?replicaSet=rs0",
    "DATABASE_URL": "postgresql://zero:hidden-password@db/zero",
    "SECRET_KEY": "hidden-secret-key",
    "REDIS_URL": "redis://:hidden-password@redis:6379/0",
    "ALLOWED_HOSTS": "zerosource.example",
    "SCHEMA_URL": "http://any:hidden-password@app/schema",
    "TABLE_MAPPINGS_URL": "http://app/mappings",
}


def read(folder: Path, given: dict[str, str]) -> Settings:
    return read_settings({**given, "DATA_DIR": str(folder)}, folder)


def test_all_given_says_nothing(tmp_path: Path) -> None:
    assert announce(read(tmp_path, GIVEN), GIVEN) == []


def test_the_two_variables_of_the_shortest_command(tmp_path: Path) -> None:
    given = {"MONGODB_URI": "mongodb://mongo:27017", "SCHEMA_URL": "http://app/schema"}
    subjects = [line.partition("  ")[0] for line in announce(read(tmp_path, given), given)]
    assert subjects == ["MongoDB", "Database", "Secret key", "Channel layer", "Admin's host", "Mappings"]


def test_each_that_is_left_out_is_named(tmp_path: Path) -> None:
    """By its own line, which names the variable, and shows nothing of what the others hold."""
    lines = {}
    for name in ("DATABASE_URL", "SECRET_KEY", "REDIS_URL", "ALLOWED_HOSTS", "TABLE_MAPPINGS_URL"):
        given = {key: value for key, value in GIVEN.items() if key != name}
        (lines[name],) = announce(read(tmp_path, given), given)
    assert [name for name, line in lines.items() if name not in line] == []
    assert "hidden" not in str(lines)
    without = {**GIVEN, "SCHEMA_URL": "", "TABLE_MAPPINGS_URL": " "}
    assert ["in the admin" in line for line in announce(read(tmp_path, without), without)] == [True]
    unnamed = {**GIVEN, "MONGODB_URI": "mongodb://mongo:27017/?replicaSet=rs0"}
    assert ["'test'" in line for line in announce(read(tmp_path, unnamed), unnamed)] == [True]
