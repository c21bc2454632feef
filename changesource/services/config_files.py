"""The schema and the mappings that come from files and URLs: SCHEMA_* and TABLE_MAPPINGS_*."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from changesource.conf import Settings
from changesource.exceptions import ConfigurationUnavailable
from changesource.mapping.formats import Mappings, combine, read_mappings, read_schema
from changesource.mapping.json_reading import parse
from changesource.mapping.spec import Specification
from changesource.services.download import MAX_BYTES, Content, bare, fetch

# How often two sources are read once more, until they are of one moment.
ROUNDS: Final = 3


class ManagedSources:
    """SCHEMA_* and TABLE_MAPPINGS_*, which may be read again and again.

    A server that tells versions apart sends a content that has not changed only once.
    """

    def __init__(self, settings: Settings) -> None:
        """Reads nothing yet."""
        self._schema = (settings.schema_url, settings.schema_file)
        self._mappings = (settings.table_mappings_url, settings.table_mappings_file)
        self._found: tuple[Content | None, Content | None] = (None, None)

    def read(self) -> bool:
        """Read both; return whether one differs from what was read before.

        Raises ``ConfigurationUnavailable`` where one cannot be read; what was read before is kept then.
        """
        before = self._found
        found = (_read(*self._schema, before[0]), _read(*self._mappings, before[1]))
        self._found = found
        return any(_body(new) != _body(old) for new, old in zip(found, before, strict=True))

    def read_until_of_one_moment(self) -> None:
        """Where both are set, read them once more, and again as long as one has changed; raises as ``read`` does.

        One may have changed between the reading of the other and its own.
        """
        if not (any(self._schema) and any(self._mappings)):
            return
        for _ in range(ROUNDS):
            if not self.read():
                return

    def specification(self) -> Specification:
        """What they gave together when they were read last. Raises ``MappingError`` where one is wrong."""
        schema, mappings = map(_body, self._found)
        return combine(
            None if schema is None else read_schema(parse(schema, "schema")),
            Mappings() if mappings is None else read_mappings(parse(mappings, "mappings")),
        )


def read_managed(settings: Settings) -> Specification:
    """The specification that SCHEMA_* and TABLE_MAPPINGS_* give together.

    Raises ``ConfigurationUnavailable`` where one cannot be read, ``MappingError`` where one is wrong.
    """
    sources = ManagedSources(settings)
    sources.read()
    sources.read_until_of_one_moment()
    return sources.specification()


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


def _read(url: str | None, path: Path | None, known: Content | None) -> Content | None:
    if url:
        return fetch(url, known)
    if path:
        return Content(read_file(path))
    return None


def _body(content: Content | None) -> bytes | None:
    return None if content is None else content.body


def read_file(path: Path, remedy: str = "") -> bytes:
    """A file's content, at most 8 MiB. Raises ``ConfigurationUnavailable``, with ``remedy`` in the place of its own."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationUnavailable(f"{path} cannot be read: {exc.strerror}.", remedy=remedy) from exc
    if len(content) > MAX_BYTES:
        raise ConfigurationUnavailable(f"{path} is larger than {MAX_BYTES} bytes.", remedy=remedy)
    return content
