"""The schema and the mappings that come from files and URLs: SCHEMA_* and TABLE_MAPPINGS_*."""

from __future__ import annotations

import time
from base64 import b64encode
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from changesource.conf import Settings
from changesource.exceptions import ConfigurationUnavailable
from changesource.mapping.formats import Mappings, combine, read_mappings, read_schema
from changesource.mapping.json_reading import parse
from changesource.mapping.spec import Specification

ANSWER_SECONDS: Final = 10.0
WHOLE_SECONDS: Final = 30.0
MAX_BYTES: Final = 8 * 1024 * 1024


def read_managed(settings: Settings) -> Specification:
    """The specification that SCHEMA_* and TABLE_MAPPINGS_* give together.

    Raises ``ConfigurationUnavailable`` where one cannot be read, ``MappingError`` where one is wrong.
    """
    schema = _read(settings.schema_url, settings.schema_file)
    mappings = _read(settings.table_mappings_url, settings.table_mappings_file)
    return combine(
        None if schema is None else read_schema(parse(schema, "schema")),
        Mappings() if mappings is None else read_mappings(parse(mappings, "mappings")),
    )


def shown_origin(settings: Settings) -> str:
    """Where the managed tables come from, in words for the admin, without passwords and tokens."""
    places = []
    for url, path in (
        (settings.schema_url, settings.schema_file),
        (settings.table_mappings_url, settings.table_mappings_file),
    ):
        if url:
            places.append(_bare(url))
        elif path:
            places.append(str(path))
    return ", ".join(places)


def _bare(url: str) -> str:
    """The URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _read(url: str | None, path: Path | None) -> bytes | None:
    if url:
        return _download(url)
    if path:
        return read_file(path)
    return None


def read_file(path: Path) -> bytes:
    """A file's content, at most 8 MiB. Raises ``ConfigurationUnavailable``."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationUnavailable(f"{path} cannot be read: {exc.strerror}.") from exc
    if len(content) > MAX_BYTES:
        raise ConfigurationUnavailable(f"{path} is larger than {MAX_BYTES} bytes.")
    return content


def _download(url: str) -> bytes:
    """A URL's content, at most 8 MiB, within 30 seconds."""
    parts = urlsplit(url)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    request = Request(bare, headers={"Accept": "application/json"})  # noqa: S310 -- conf takes http and https alone
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    deadline = time.monotonic() + WHOLE_SECONDS
    content = b""
    try:
        with urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            while chunk := answer.read1(65536):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ConfigurationUnavailable(f"{_bare(url)} answers with more than {MAX_BYTES} bytes.")
                if time.monotonic() > deadline:
                    raise ConfigurationUnavailable(f"{_bare(url)} took longer than {WHOLE_SECONDS:g} seconds.")
    except (OSError, HTTPException, ValueError) as exc:
        raise ConfigurationUnavailable(f"{_bare(url)} cannot be read: {exc}.") from exc
    return content
