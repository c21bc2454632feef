"""The settings of a deployment, read once from the environment, as one frozen object.

``settings()`` is the only way to them; a wrong value raises ``SettingError`` with one line that names the variable,
what is wrong with it and the bound. No message ever shows a value that may hold a secret.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, unquote_plus, urlsplit

import environ
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from .exceptions import SettingError
from .nestjs import translate

ROOT = Path(__file__).resolve().parent.parent
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
KIB = 1024
MIB = 1024 * KIB
SECRET_LENGTH = 6  # characters from which on a secret is cut out of what is written
SHORTEST = 0.1  # seconds; MongoDB and the database are asked several times within some settings
# Characters. Whoever reaches the server may guess as often as it answers.
SHORTEST_KEY = 16

LogFormat = Literal["text", "json"]
PostImages = Literal["auto", "required", "off"]
SnapshotFrames = Literal["backfill", "insert"]


@dataclass(frozen=True, repr=False)  # whatever it gets into must not show its values
class Settings:
    """Every setting of zerosource. A field is named as its variable, in lower case, but for ``api_keys``
    (``CHANGE_SOURCE_API_KEYS``)."""

    debug: bool
    secret_key: str
    secret_key_fallbacks: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    csrf_trusted_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    secure_cookies: bool
    hsts_seconds: int
    session_idle_seconds: int
    session_seconds: int
    login_tries: int
    login_tries_seconds: int
    open_metrics: bool
    watcher_metrics_port: int
    port: int
    log_level: str
    log_format: LogFormat
    mongodb_uri: str | None
    mongodb_database: str
    schema_url: str | None
    schema_file: Path | None
    table_mappings_url: str | None
    table_mappings_file: Path | None
    reload_seconds: int
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
    max_connections: int
    max_connections_per_key: int
    max_live_pages: int
    max_requests: int
    max_replicas: int
    max_message_bytes: int
    max_messages_per_second: int
    max_headers: int
    max_header_bytes: int
    max_request_bytes: int
    request_seconds: float
    max_row_bytes: int
    max_row_errors: int
    max_revisions: int
    max_history: int
    data_dir: Path

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no output may show, raw and decoded: keys, passwords, tokens in queries. Short ones are but words."""
        found: list[str] = [self.secret_key, *self.secret_key_fallbacks]
        for url in (self.mongodb_uri, self.redis_url, self.database_url, self.schema_url, self.table_mappings_url):
            parts = urlsplit(url or "")
            found.append(parts.netloc.rpartition("@")[0].partition(":")[2])
            # Of services' URLs most parameters are options; of others any may be a token.
            named = parts.query.split("&")
            found += [
                value
                for name, _, value in (part.partition("=") for part in named)
                if parts.scheme in ("http", "https") or "password" in name.lower()
            ]
        long = [secret for secret in found if len(secret) >= SECRET_LENGTH]
        return (*self.api_keys, *dict.fromkeys(form for secret in long for form in (secret, unquote_plus(secret))))

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

    Those of the NestJS server are taken under our names (``nestjs``), where ours are not given. Creates the data
    folder, and a secret key in it where none is given. Raises ``SettingError``.
    """
    read = _Reader(variables, root)
    with read.translated.blamed():
        return _settings(read, root)


def _settings(read: _Reader, root: Path) -> Settings:
    debug = read.boolean("DEBUG", default=False)
    data_dir = read.path("DATA_DIR") or root / "data"
    mongodb_uri = read.mongodb_uri()
    return Settings(
        debug=debug,
        secret_key=read.text("SECRET_KEY") or _kept_secret_key(data_dir),
        secret_key_fallbacks=read.items("SECRET_KEY_FALLBACKS"),
        allowed_hosts=read.items("ALLOWED_HOSTS") or LOCAL_HOSTS,
        csrf_trusted_origins=read.origins("CSRF_TRUSTED_ORIGINS"),
        trusted_proxies=read.networks("TRUSTED_PROXIES"),
        secure_cookies=read.boolean("SECURE_COOKIES", default=not debug),
        hsts_seconds=read.integer("HSTS_SECONDS", 0, 0, 63_072_000),
        session_idle_seconds=read.integer("SESSION_IDLE_SECONDS", 3600, 60, 2_592_000),
        session_seconds=read.integer("SESSION_SECONDS", 43_200, 60, 2_592_000),
        login_tries=read.integer("LOGIN_TRIES", 5, 1, 1000),
        login_tries_seconds=read.integer("LOGIN_TRIES_SECONDS", 900, 1, 86_400),
        open_metrics=read.boolean("OPEN_METRICS", default=False),
        watcher_metrics_port=read.integer("WATCHER_METRICS_PORT", 0, 0, 65535),
        port=read.integer("PORT", 3000, 1, 65535),
        log_level=read.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        log_format="json" if read.choice("LOG_FORMAT", "text", ("text", "json")) == "json" else "text",
        mongodb_uri=mongodb_uri,
        mongodb_database=read.mongodb_database(mongodb_uri),
        schema_url=read.url("SCHEMA_URL", ("http", "https")),
        schema_file=read.path("SCHEMA_FILE", instead_of="SCHEMA_URL"),
        table_mappings_url=read.url("TABLE_MAPPINGS_URL", ("http", "https")),
        table_mappings_file=read.path("TABLE_MAPPINGS_FILE", instead_of="TABLE_MAPPINGS_URL"),
        reload_seconds=read.integer("RELOAD_SECONDS", 60, 0, 86_400),
        api_keys=read.api_keys(shortest=1 if debug else SHORTEST_KEY),
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
        max_connections=read.integer("MAX_CONNECTIONS", 500, 10, 100_000),
        max_connections_per_key=read.integer("MAX_CONNECTIONS_PER_KEY", 100, 1, 100_000),
        max_live_pages=read.integer("MAX_LIVE_PAGES", 20, 1, 10_000),
        max_requests=read.integer("MAX_REQUESTS", 8, 1, 1000),
        max_replicas=read.integer("MAX_REPLICAS", 1000, 1, 1_000_000),
        # zero-cache sends acknowledgements of some 100 bytes, one for each commit.
        max_message_bytes=read.integer("MAX_MESSAGE_BYTES", 64 * KIB, KIB, MIB),
        max_messages_per_second=read.integer("MAX_MESSAGES_PER_SECOND", 2000, 10, 1_000_000),
        max_headers=read.integer("MAX_HEADERS", 100, 10, 500),
        max_header_bytes=read.integer("MAX_HEADER_BYTES", 16 * KIB, KIB, MIB),
        max_request_bytes=read.integer("MAX_REQUEST_BYTES", 4 * MIB, 64 * KIB, 100 * MIB),
        request_seconds=read.seconds("REQUEST_SECONDS", 20.0, 3600.0),
        max_row_bytes=read.integer("MAX_ROW_BYTES", 32 * MIB, 64 * KIB, 32 * MIB),
        max_row_errors=read.integer("MAX_ROW_ERRORS", 10_000, 1, 1_000_000),
        max_revisions=read.integer("MAX_REVISIONS", 1000, 1, 1_000_000),
        max_history=read.integer("MAX_HISTORY", 10_000, 1, 10_000_000),
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
        self.translated = translate(variables, root)
        self._variables = self.translated.variables
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

    def origins(self, name: str) -> tuple[str, ...]:
        """Comma-separated origins as browsers send them, such as ``https://zerosource.example``."""
        found = self.items(name)
        for item in found:
            try:
                parts = urlsplit(item)
                valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                valid = False
            if not valid or item != f"{parts.scheme}://{parts.netloc}" or "@" in item or "*" in item:
                raise wrong(name, f"has {item!r}; each must be like https://zerosource.example, without a path")
        return found

    def networks(self, name: str) -> tuple[str, ...]:
        """Comma-separated addresses and networks, such as ``10.0.0.0/8``."""
        found = self.items(name)
        for item in found:
            try:
                ipaddress.ip_network(item)
            except ValueError:
                raise wrong(name, f"has {item!r}; each must be an address or a network, such as 10.0.0.0/8") from None
        return found

    def api_keys(self, shortest: int) -> tuple[str, ...]:
        """CHANGE_SOURCE_API_KEYS; none is shown, nor how long one is."""
        keys = self.items("CHANGE_SOURCE_API_KEYS")
        if any(len(key) < shortest for key in keys):
            raise wrong(
                "CHANGE_SOURCE_API_KEYS",
                f"has a key of fewer than {shortest} characters, which DEBUG off refuses; make one at random, such as "
                "by `openssl rand -hex 32`",
            )
        return keys

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
        if parts.scheme not in schemes or not (parts.hostname or parts.scheme == "unix"):
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
            except OSError:
                raise wrong("MONGODB_URI", "names a file of certificates that cannot be read") from None
            except (PyMongoError, ValueError):
                # The driver's own words may quote a part of the password.
                hint = "percent-encode what is special in its user and password"
                raise wrong("MONGODB_URI", f"is not a valid MongoDB connection string; {hint}") from None
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
            file = data_dir / "zerosource.sqlite3"
            try:
                _make_private(data_dir)
                # It has hashes of passwords. SQLite gives the files beside it the same mode.
                file.touch(mode=0o600)
            except OSError as exc:
                raise wrong("DATA_DIR", f"cannot be written to, and DATABASE_URL is not set: {exc.strerror}") from exc
            return f"sqlite:///{file}"
        if not text.startswith(("sqlite://", "postgres://", "postgresql://")):
            raise wrong("DATABASE_URL", "must begin with sqlite:// or postgresql://")
        try:
            environ.Env.db_url_config(text)
        except ValueError:
            raise wrong("DATABASE_URL", "is not a valid URL") from None
        return text


def _make_private(folder: Path) -> None:
    """Make it for its owner alone, where it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _kept_secret_key(data_dir: Path) -> str:
    """The secret key kept in the data folder, made at the first call, readable by its owner alone."""
    kept = data_dir / "secret_key"
    try:
        if not kept.exists():
            _make_private(data_dir)
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
