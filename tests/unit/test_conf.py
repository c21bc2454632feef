"""Settings: each is read, bounded, and refused with one line that names it and shows no secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from changesource.conf import ROOT, read_settings
from changesource.exceptions import SettingError


def test_defaults(tmp_path: Path) -> None:
    found = read_settings({}, tmp_path)
    assert (found.debug, found.port, found.mongodb_uri, found.mongodb_database) == (False, 3000, None, "test")
    assert (found.barrier_collection, found.keepalive_seconds, found.post_images) == ("_zerosource", 10.0, "auto")
    assert (found.group_max_rows, found.group_max_bytes, found.group_max_age_ms) == (1000, 8 * 1024 * 1024, 200)
    assert (found.snapshot_batch_rows, found.layer_capacity, found.max_frame_bytes) == (1000, 100, 64 * 1024 * 1024)
    assert found.database_url == f"sqlite:///{tmp_path}/data/zerosource.sqlite3"
    assert found.data_dir == tmp_path / "data"
    assert found.has_managed_source is False
    with pytest.raises(FrozenInstanceError):
        found.port = 1  # type: ignore[misc]


def test_a_key_that_can_be_guessed_is_refused_with_debug_off(tmp_path: Path) -> None:
    weak, strong = "fifteen-letters", "sixteen-letters!"
    keys = {"CHANGE_SOURCE_API_KEYS": f"{strong},{weak}"}
    with pytest.raises(SettingError, match="CHANGE_SOURCE_API_KEYS has a key of fewer than 16 characters") as caught:
        read_settings(dict(keys), tmp_path)
    assert weak not in str(caught.value)
    assert strong not in str(caught.value)
    assert read_settings({**keys, "DEBUG": "on"}, tmp_path).api_keys == (strong, weak)
    assert read_settings({"CHANGE_SOURCE_API_KEYS": strong}, tmp_path).api_keys == (strong,)


def test_values_are_read(tmp_path: Path) -> None:
    found = read_settings(
        {
            "DEBUG": "True",
            "SECRET_KEY": "$PATH-is-no-reference",
            "SECRET_KEY_FALLBACKS": "older$, oldest",
            "ALLOWED_HOSTS": "a.example, b.example,",
            "CHANGE_SOURCE_API_KEYS": "one, two",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "JSON",
            "POST_IMAGES": "off",
            "SNAPSHOT_FRAMES": "Insert",
            "KEEPALIVE_SECONDS": "0.5",
            "SCHEMA_FILE": "schema.json",
            "TABLE_MAPPINGS_URL": "https://app.example/mappings",
            "REDIS_URL": "redis://localhost:6379/0",
            "DATABASE_URL": "postgresql://u:p@db/zero",
            "PORT": "",  # empty counts as unset
        },
        tmp_path,
    )
    assert (found.debug, found.secret_key) == (True, "$PATH-is-no-reference")
    assert found.secret_key_fallbacks == ("older$", "oldest")
    assert (found.allowed_hosts, found.api_keys) == (("a.example", "b.example"), ("one", "two"))
    assert (found.log_level, found.log_format, found.post_images) == ("DEBUG", "json", "off")
    assert found.snapshot_frames == "insert"
    assert (found.keepalive_seconds, found.port) == (0.5, 3000)
    assert (found.schema_file, found.has_managed_source) == (tmp_path / "schema.json", True)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MONGODB_URI": "mongodb://u:p@h1:1,h2:2/shop?replicaSet=r"}, "shop"),
        ({"MONGODB_URI": "mongodb+srv://cluster.example/shop"}, "shop"),
        ({"MONGODB_URI": "mongodb://h"}, "test"),
        ({"MONGODB_URI": "mongodb://h/shop", "MONGODB_DATABASE": "other"}, "other"),
    ],
)
def test_database_comes_from_the_uri(tmp_path: Path, variables: dict[str, str], expected: str) -> None:
    assert read_settings(variables, tmp_path).mongodb_database == expected


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("DEBUG", "maybe", "on or off"),
        ("PORT", "0", "from 1 to 65535"),
        ("PORT", "http", "from 1 to 65535"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO"),
        ("LOG_FORMAT", "xml", "text, json"),
        ("POST_IMAGES", "always", "auto, required, off"),
        ("SNAPSHOT_FRAMES", "copy", "backfill, insert"),
        ("KEEPALIVE_SECONDS", "0", "from 0.1 to 3600"),
        ("KEEPALIVE_SECONDS", "0.05", "from 0.1 to 3600"),
        ("KEEPALIVE_SECONDS", "nan", "from 0.1 to 3600"),
        ("LEASE_SECONDS", "0.01", "from 0.1 to 300"),
        ("READER_TIMEOUT_SECONDS", "0", "above 0, at most 86400"),
        ("READER_TIMEOUT_SECONDS", "nan", "above 0, at most 86400"),
        ("GROUP_MAX_ROWS", "0", "from 1 to 100000"),
        ("GROUP_MAX_BYTES", "1", "from 1024 to"),
        ("GROUP_MAX_AGE_MS", "-1", "from 1 to 60000"),
        ("SNAPSHOT_BATCH_ROWS", "0", "from 1 to 100000"),
        ("LAYER_CAPACITY", "0", "from 1 to 100000"),
        ("MAX_FRAME_BYTES", "1024", "to 104857599"),
        ("BARRIER_COLLECTION", "system.views", "collection's name"),
        ("MONGODB_DATABASE", "a.b", "name of one database"),
        ("MONGODB_URI", "postgresql://u:hunter2@h/d", "mongodb://"),
        ("MONGODB_URI", "mongodb://u:hunter2:x@h/d", "not a valid"),
        ("MONGODB_URI", "mongodb://u:hunter2@h:port/d", "not a valid"),
        ("SCHEMA_URL", "ftp://u:hunter2@h/schema", "http:// or https://"),
        ("TABLE_MAPPINGS_URL", "mappings.json", "http:// or https://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "sqlite:// or postgresql://"),
    ],
)
def test_wrong_value_is_one_line_that_names_it(tmp_path: Path, name: str, value: str, bound: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({name: value}, tmp_path)
    line = str(caught.value)
    assert line.startswith(f"ZS101 {name} ")
    assert bound in line
    assert "\n" not in line
    assert "hunter2" not in line


def test_url_and_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="SCHEMA_FILE is set together with SCHEMA_URL"):
        read_settings({"SCHEMA_FILE": "a", "SCHEMA_URL": "http://h/a"}, tmp_path)


def test_dotenv_fills_in_what_the_environment_leaves_out(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=4000\nLOG_LEVEL=ERROR\n", encoding="utf-8")
    found = read_settings({"LOG_LEVEL": "DEBUG"}, tmp_path)
    assert (found.port, found.log_level) == (4000, "DEBUG")


def test_a_secret_key_is_made_once_and_kept(tmp_path: Path) -> None:
    first = read_settings({}, tmp_path).secret_key
    assert len(first) >= 50
    assert read_settings({}, tmp_path).secret_key == first
    kept = tmp_path / "data" / "secret_key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert {path.name for path in kept.parent.iterdir()} == {"secret_key", "zerosource.sqlite3"}


def test_what_is_kept_in_files_is_its_owners_alone(tmp_path: Path) -> None:
    """Hashes of passwords are among it. A folder that is there already stays as it is."""
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    for folder, mode in ((tmp_path / "made" / "here", 0o700), (there, 0o755)):
        read_settings({"DATA_DIR": str(folder), "SECRET_KEY": "given"}, tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == mode
        assert stat.S_IMODE((folder / "zerosource.sqlite3").stat().st_mode) == 0o600


def test_manage_ends_with_one_line_and_needs_no_mongodb(tmp_path: Path) -> None:
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "MONGODB_URI": "mongodb://127.0.0.1:1/x"}
    command = [sys.executable, str(ROOT / "manage.py"), "check"]
    fine = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert fine.returncode == 0, fine.stderr
    wrong = subprocess.run(
        command, env={**environment, "PORT": "x"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 78
    assert wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("ZS101 PORT is 'x'")
