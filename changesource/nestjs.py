"""Settings of the NestJS zero-sources server, under the names that they have here.

They are variables, and the places of a YAML file (CONFIG_FILE, else ``config.yml``). A setting that is given by our own
name wins. docs/moving-from-nestjs.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from .exceptions import SettingError

DEFAULT_FILE: Final = "config.yml"
MAX_BYTES: Final = 64 * 1024

# What PyYAML lets through of a value that is none of its type, such as the 30th of February, or nests too deep.
UNFORESEEN: Final = (AttributeError, LookupError, RecursionError, ValueError)

# A place in the file, and the setting that it gives.
PLACES: Final = {
    "db.uri": "MONGODB_URI",
    "db.db": "MONGODB_DATABASE",
    "zero.auth.token": "CHANGE_SOURCE_API_KEYS",
    "auth.token": "CHANGE_SOURCE_API_KEYS",
    "schema.schemaUrl": "SCHEMA_URL",
    "schema.schemaFile": "SCHEMA_FILE",
    "schema.tableMappingsUrl": "TABLE_MAPPINGS_URL",
    "schema.tableMappingsFile": "TABLE_MAPPINGS_FILE",
}
# Of each of these lines, what is given by one of the names keeps the file from giving any.
TOGETHER: Final = (("SCHEMA_URL", "SCHEMA_FILE"), ("TABLE_MAPPINGS_URL", "TABLE_MAPPINGS_FILE"))
# What SCHEMA_SOURCE and schema.source may say, and how the names begin that are not looked at then.
SOURCES: Final = {"url": "FILE", "file": "URL"}
LEVELS: Final = {"LOG": "INFO", "VERBOSE": "DEBUG", "TRACE": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}

_POSITIONS = "positions are kept in DATABASE_URL's database"
_USERS = "users of the application are its own matter"
# Variables and places that have no meaning here, and why.
WITHOUT_MEANING: Final = {
    "WATERMARK_STORAGE": _POSITIONS,
    "WATERMARK_DB_PATH": _POSITIONS,
    "NATS_SERVERS": _POSITIONS,
    "NATS_BUCKET": _POSITIONS,
    "CORS_ORIGIN": "pages of other sites are not let in",
    "db.publish": "the collections of the mapped tables are watched",
    "zero.kv": _POSITIONS,
    "zero.tableMapping": "mappings are read from TABLE_MAPPINGS_FILE or TABLE_MAPPINGS_URL",
    "auth.jwt": _USERS,
    "auth.github": _USERS,
}
_INLINE = "cannot be read from here: put its content, as JSON, into a file of its own, and name that by"
REFUSED: Final = {
    "schema.inlineSchema": f"{_INLINE} SCHEMA_FILE",
    "schema.inlineTableMappings": f"{_INLINE} TABLE_MAPPINGS_FILE",
}


@dataclass(frozen=True)
class Translated:
    """``variables`` with theirs in our names; ``origins`` says of each that the file gave at which place.

    ``without_meaning`` are the names that are given and do nothing here, each with the reason.
    """

    variables: Mapping[str, str]
    file: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    without_meaning: tuple[tuple[str, str], ...] = ()

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Have a ``SettingError`` name the place in the file that gave the wrong value."""
        try:
            yield
        except SettingError as error:
            if place := self.origins.get(error.message.partition(" ")[0]):
                raise SettingError(f"{place} of {self.file}, as {error.message}", remedy="Correct it there.") from error
            raise


def translate(variables: Mapping[str, str], root: Path) -> Translated:
    """Their settings among ``variables``, and in their file, as ours; relative paths start at ``root``.

    Raises ``SettingError`` where the file cannot be read, or holds what cannot work here.
    """
    found = {**variables}
    source = found.get("SCHEMA_SOURCE", "").strip().lower()
    for name in _unlooked_at("SCHEMA_SOURCE", source):
        found.pop(name, None)
    level = found.get("LOG_LEVEL", "").strip().upper()
    if level in LEVELS:
        found["LOG_LEVEL"] = LEVELS[level]
    path = root / Path(found.get("CONFIG_FILE", "").strip() or DEFAULT_FILE)
    # One that is named must be there.
    there = _is_set(found, "CONFIG_FILE") or path.is_file()
    places = _places(path) if there else {}
    origins: dict[str, str] = {}
    for place, name in _given(places):
        if name not in origins and not any(_is_set(found, other) and other not in origins for other in _group(name)):
            found[name] = _text(place, places[place], path)
            origins[name] = place
    idle = [(name, why) for name, why in WITHOUT_MEANING.items() if _is_set(found, name) or name in places]
    return Translated(found, path.name if there else "", origins, tuple(idle))


def _is_set(variables: Mapping[str, str], name: str) -> bool:
    return bool(variables.get(name, "").strip())


def _group(name: str) -> tuple[str, ...]:
    """The names of which one that is given stands in for ``name``."""
    if name == "MONGODB_DATABASE":
        # Another URI has another path, which names the database.
        return ("MONGODB_URI", "MONGODB_DATABASE")
    return next((names for names in TOGETHER if name in names), (name,))


def _unlooked_at(name: str, source: str) -> tuple[str, ...]:
    """The variables that a source of the schema leaves aside."""
    if not source:
        return ()
    if source == "inline":
        raise SettingError(f"{name} is 'inline', which {REFUSED['schema.inlineSchema']}.")
    if source not in SOURCES:
        raise SettingError(f"{name} is {source!r}; it must be url or file.")
    return tuple(name for names in TOGETHER for name in names if name.endswith(SOURCES[source]))


def _given(places: Mapping[str, object]) -> list[tuple[str, str]]:
    """The places that are looked at, with the settings that they give."""
    source = places.get("schema.source")
    aside = _unlooked_at("schema.source", str(source).strip().lower() if source is not None else "")
    return [(place, name) for place, name in PLACES.items() if place in places and name not in aside]


def _places(path: Path) -> dict[str, object]:
    """What the file says at the places that are known, by their dotted names."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        data = yaml.safe_load(content) if len(content) <= MAX_BYTES else None
    except OSError as exc:
        raise SettingError(f"CONFIG_FILE: {path.name} cannot be read: {exc.strerror}.") from exc
    except (yaml.YAMLError, *UNFORESEEN) as exc:
        # Their own words may quote a secret.
        mark = getattr(exc, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise SettingError(f"CONFIG_FILE: {path.name} is not YAML{line}.") from None
    if not isinstance(data, dict):
        raise SettingError(f"CONFIG_FILE: {path.name} holds no settings: it must be a YAML mapping of at most 64 KiB.")
    known = (*PLACES, *WITHOUT_MEANING, *REFUSED, "schema.source")
    found = {place: value for place in known if (value := _at(data, place)) is not None}
    for place, problem in REFUSED.items():
        if place in found:
            raise SettingError(f"{place} of {path.name} {problem}.")
    return found


def _at(data: object, place: str) -> object:
    for name in place.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _text(place: str, value: object, path: Path) -> str:
    """The value as a variable would hold it; files are looked for where ``path``, their file, is."""
    if not isinstance(value, str):
        raise SettingError(f"{place} of {path.name} must be text: put it into quotes.")
    if PLACES[place] == "CHANGE_SOURCE_API_KEYS" and ("," in value or value != value.strip()):
        raise SettingError(f"{place} of {path.name} has a comma or blanks, which no API key has: make another one.")
    if not place.endswith("File"):
        return value
    try:
        return str(path.parent / Path(value).expanduser())
    except RuntimeError:
        raise SettingError(f"{place} of {path.name} begins with ~ and a user who has no home here.") from None
