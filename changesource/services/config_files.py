"""The schema and the mappings that come from files and URLs: SCHEMA_* and TABLE_MAPPINGS_*."""

from __future__ import annotations

from pathlib import Path

from changesource.conf import Settings
from changesource.exceptions import ConfigurationUnavailable
from changesource.mapping.formats import Mappings, combine, read_mappings, read_schema
from changesource.mapping.json_reading import parse
from changesource.mapping.spec import Specification
from changesource.services.download import MAX_BYTES, bare, download


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
            places.append(bare(url))
        elif path:
            places.append(str(path))
    return ", ".join(places)


def _read(url: str | None, path: Path | None) -> bytes | None:
    if url:
        return download(url)
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
