"""The settings of a deployment, read once from the environment, as one frozen object.

``settings()`` is the only way to them; a wrong value raises ``SettingError`` with one line that names the variable,
what is wrong with it and the bound. No message ever shows a value that may hold a secret.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import environ
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from .exceptions import SettingError

ROOT = Path(__file__).resolve().parent.parent
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
MIB = 1024 * 1024
SHORTEST = 0.1  # seconds; MongoDB and the database are asked several times within some settings

LogFormat = Literal["text", "json"]
PostImages = Literal["auto", "required", "off"]
SnapshotFrames = Literal["backfill", "insert"]


@dataclass(frozen=True)
class Settings:
    """Every setting of zerosource. A field is named as its variable, in lower case, but for ``api_keys``
    (``CHANGE_SOURCE_API_KEYS``)."""

    debug: bool
    secret_key: str
    allowed_hosts: tuple[str, ...]
    port: int
    log_level: str
    log_format: LogFormat
    mongodb_uri: str | None
    mongodb_database: str
    schema_url: str | None
    schema_file: Path | None
    table_mappings_url: str | None
    table_mappings_file: Path | None
    api_keys: tuple[str, ...]
    redis_url: str | None
    database_url: str
    post_images: PostImages
    barrier_collection: str
    keepalive_seconds: float
    lease_seconds: float
    reader_timeout_seconds: float
    group_max_rows: int
    group_max_bytes: int
    group_max_age_ms: int
    snapshot_batch_rows: int
    snapshot_cursors: int
    snapshot_catch_up_seconds: float
    snapshot_frames: SnapshotFrames
    layer_capacity: int
    max_frame_bytes: int
    data_dir: Path

    @property
    def has_managed_source(self) -> bool:
        """Whether tables come from a file or URL (and are then read-only in the admin)."""
        return any((self.schema_url, self.schema_file, self.table_mappings_url, self.table_mappings_file))


@cache
def settings() -> Settings:
    """The settings of this process. ``.env`` beside ``manage.py`` fills in what the environment leaves out."""
    return read_settings(os.environ, ROOT)


def read_settings(variables: MutableMapping[str, str], root: Path) -> Settings:
    """Settings from ``variables``, filled in from ``root/.env``; relative paths start at ``root``.

    Creates the data folder, and a secret key in it where none is given. Raises ``SettingError``.
    """
    read = _Reader(variables, root)
    data_dir = read.path("DATA_DIR") or root / "data"
    mongodb_uri = read.mongodb_uri()
    return Settings(
        debug=read.boolean("DEBUG", default=False),
        secret_key=read.text("SECRET_KEY") or _kept_secret_key(data_dir),
        allowed_hosts=read.items("ALLOWED_HOSTS") or LOCAL_HOSTS,
        port=read.integer("PORT", 3000, 1, 65535),
        log_level=read.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        log_format="json" if read.choice("LOG_FORMAT", "text", ("text", "json")) == "json" else "text",
        mongodb_uri=mongodb_uri,
        mongodb_database=read.mongodb_database(mongodb_uri),
        schema_url=read.url("SCHEMA_URL", ("http", "https")),
        schema_file=read.path("SCHEMA_FILE", instead_of="SCHEMA_URL"),
        table_mappings_url=read.url("TABLE_MAPPINGS_URL", ("http", "https")),
        table_mappings_file=read.path("TABLE_MAPPINGS_FILE", instead_of="TABLE_MAPPINGS_URL"),
        api_keys=read.items("CHANGE_SOURCE_API_KEYS"),
        redis_url=read.url("REDIS_URL", ("redis", "rediss", "unix")),
        database_url=read.database_url(data_dir),
        post_images=read.post_images(),
        barrier_collection=read.collection("BARRIER_COLLECTION", "_zerosource"),
        keepalive_seconds=read.seconds("KEEPALIVE_SECONDS", 10.0, 3600.0, low=SHORTEST),
        lease_seconds=read.seconds("LEASE_SECONDS", 3.0, 300.0, low=SHORTEST),
        reader_timeout_seconds=read.seconds("READER_TIMEOUT_SECONDS", 300.0, 86400.0),
        group_max_rows=read.integer("GROUP_MAX_ROWS", 1000, 1, 100_000),
        group_max_bytes=read.integer("GROUP_MAX_BYTES", 8 * MIB, 1024, 64 * MIB),
        group_max_age_ms=read.integer("GROUP_MAX_AGE_MS", 200, 1, 60_000),
        snapshot_batch_rows=read.integer("SNAPSHOT_BATCH_ROWS", 1000, 1, 100_000),
        snapshot_cursors=read.integer("SNAPSHOT_CURSORS", 4, 1, 1000),
        snapshot_catch_up_seconds=read.seconds("SNAPSHOT_CATCH_UP_SECONDS", 300.0, 86400.0),
        snapshot_frames=read.snapshot_frames(),
        layer_capacity=read.integer("LAYER_CAPACITY", 100, 1, 100_000),
        # zero-cache itself refuses frames from 100 MiB on, and one row may take 32 MiB.
        max_frame_bytes=read.integer("MAX_FRAME_BYTES", 64 * MIB, 33 * MIB, 100 * MIB - 1),
        data_dir=data_dir,
    )


def wrong(name: str, problem: str) -> SettingError:
    """The one-line error for the variable ``name``."""
    return SettingError(f"{name} {problem}.")


class _Reader:
    """Reads single variables, each with its check. A variable that is set but empty counts as unset."""

    def __init__(self, variables: MutableMapping[str, str], root: Path) -> None:
        dotenv = root / ".env"
        if dotenv.is_file():

            class Environment(environ.Env):  # type: ignore[misc]  # the package has no types
                ENVIRON = variables

            Environment.read_env(str(dotenv))
        # Not by env.str: it takes a value that begins with "$" for the name of another variable.
        self._variables = variables
        self._root = root

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding blanks, or ``default``."""
        value = self._variables.get(name, "").strip()
        # What the environment holds beside UTF-8 comes as halves of surrogate pairs, which nothing can encode.
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise wrong(name, "is no UTF-8, or holds U+0000")
        return value or default

    def items(self, name: str) -> tuple[str, ...]:
        """The comma-separated items; empty ones are left out."""
        return tuple(item for item in (part.strip() for part in self.text(name).split(",")) if item)

    def boolean(self, name: str, *, default: bool) -> bool:
        """on/off, true/false, yes/no, 1/0, in any case."""
        text = self.text(name, "on" if default else "off").lower()
        if text not in ("on", "true", "yes", "1", "off", "false", "no", "0"):
            raise wrong(name, f"is {text!r}; it must be on or off")
        return text in ("on", "true", "yes", "1")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        text = self.text(name, str(default))
        bound = f"it must be a whole number from {low} to {high}"
        try:
            number = int(text)
        except ValueError:
            raise wrong(name, f"is {text!r}; {bound}") from None
        if not low <= number <= high:
            raise wrong(name, f"is {number}; {bound}")
        return number

    def seconds(self, name: str, default: float, high: float, low: float = 0.0) -> float:
        """A number of seconds above 0, from ``low`` on."""
        text = self.text(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not (0 < number <= high and number >= low):
            bound = f"from {low:g} to {high:g}" if low else f"above 0, at most {high:g}"
            raise wrong(name, f"is {text!r}; it must be a number of seconds {bound}")
        return number

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of ``choices``, in any case."""
        text = self.text(name, default)
        for choice in choices:
            if choice.lower() == text.lower():
                return choice
        raise wrong(name, f"is {text!r}; it must be one of {', '.join(choices)}")

    def post_images(self) -> PostImages:
        """POST_IMAGES, typed."""
        text = self.choice("POST_IMAGES", "auto", ("auto", "required", "off"))
        return "required" if text == "required" else "off" if text == "off" else "auto"

    def snapshot_frames(self) -> SnapshotFrames:
        """SNAPSHOT_FRAMES, typed."""
        text = self.choice("SNAPSHOT_FRAMES", "backfill", ("backfill", "insert"))
        return "insert" if text == "insert" else "backfill"

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """A URL of one of ``schemes``; its value is never shown, since it may hold a password."""
        text = self.text(name)
        if not text:
            return None
        try:
            parts = urlsplit(text)
            if "," not in parts.netloc:  # MongoDB's may name several hosts, each with its port
                _ = parts.port
        except ValueError:
            raise wrong(name, "is not a valid URL") from None
        if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "unix"):
            raise wrong(name, f"is not a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
        return text

    def path(self, name: str, *, instead_of: str = "") -> Path | None:
        """A path, relative to the project; not together with the variable ``instead_of``."""
        text = self.text(name)
        if text and instead_of and self.text(instead_of):
            raise wrong(name, f"is set together with {instead_of}; only one of the two may be")
        try:
            return self._root / Path(text).expanduser() if text else None
        except RuntimeError:
            raise wrong(name, "begins with ~ and a user who has no home folder here") from None

    def mongodb_uri(self) -> str | None:
        """MONGODB_URI; no name is resolved and nothing is connected to."""
        uri = self.url("MONGODB_URI", ("mongodb", "mongodb+srv"))
        if uri is not None and uri.startswith("mongodb://"):
            try:
                parse_uri(uri, warn=False)
            except (PyMongoError, ValueError):
                # The driver's own words may quote a part of the password.
                raise wrong("MONGODB_URI", "is not a valid MongoDB connection string") from None
        return uri

    def mongodb_database(self, uri: str | None) -> str:
        """MONGODB_DATABASE, else the database of the URI's path, else ``test``."""
        in_uri = unquote(urlsplit(uri).path.lstrip("/")) if uri else ""
        name = self.text("MONGODB_DATABASE", in_uri or "test")
        if any(c in '/\\. "$*<>:|?\0' for c in name) or len(name.encode()) > 63 or name in ("admin", "local", "config"):
            raise wrong(
                "MONGODB_DATABASE",
                f"is {name!r}; it must be the name of one database, of at most 63 bytes, not admin, local or config",
            )
        return name

    def collection(self, name: str, default: str) -> str:
        """The name of a MongoDB collection."""
        text = self.text(name, default)
        if "$" in text or "\0" in text or text.startswith((".", "system.")) or len(text.encode()) > 120:
            raise wrong(name, f"is {text!r}; it must be a collection's name: no '$', not 'system.', at most 120 bytes")
        return text

    def database_url(self, data_dir: Path) -> str:
        """DATABASE_URL: SQLite or PostgreSQL; by default SQLite in the data folder."""
        text = self.text("DATABASE_URL")
        if not text:
            try:
                data_dir.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise wrong("DATA_DIR", f"cannot be made, and DATABASE_URL is not set: {exc.strerror}") from exc
            return f"sqlite:///{data_dir / 'zerosource.sqlite3'}"
        if not text.startswith(("sqlite://", "postgres://", "postgresql://")):
            raise wrong("DATABASE_URL", "must begin with sqlite:// or postgresql://")
        try:
            environ.Env.db_url_config(text)
        except ValueError:
            raise wrong("DATABASE_URL", "is not a valid URL") from None
        return text


def _kept_secret_key(data_dir: Path) -> str:
    """The secret key kept in the data folder, made at the first call, readable by its owner alone."""
    kept = data_dir / "secret_key"
    try:
        if not kept.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=data_dir, prefix="secret_key.") as new:  # made with mode 0600
                new.write(secrets.token_urlsafe(50))
                new.flush()
                try:
                    os.link(new.name, kept)  # whole or not at all, and the first of two processes wins
                except FileExistsError:
                    pass
        key = kept.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise wrong("SECRET_KEY", f"is not set, and none can be kept in DATA_DIR: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise wrong(
            "SECRET_KEY", f"is not set, and the kept one is no text: remove {kept.name} from DATA_DIR"
        ) from None
    if not key:
        raise wrong("SECRET_KEY", f"is not set, and the kept one is empty: remove {kept.name} from DATA_DIR")
    return key
