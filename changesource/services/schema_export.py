"""What is mapped, for clients and for other instances: the Zero schema, and the mappings themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final, Literal, TypeAlias, get_args

from changesource.exceptions import ConfigurationUnavailable, UnknownPublication
from changesource.mapping.formats import write_specification
from changesource.mapping.schema_formats import schema_of, write_schema
from changesource.mapping.spec import Specification, TableSpec
from changesource.mapping.typescript import zero_schema
from changesource.services.configuration import Published, check, current
from changesource.store.mappings import read_draft

Format: TypeAlias = Literal["typescript", "json"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


def exported_schema(form: Format, *, publication: str = "", draft: bool = False) -> str:
    """The schema of the enabled tables that are published, or of a publication's; with ``draft`` as they are edited.

    Raises ``ConfigurationUnavailable`` where nothing is published, ``UnknownPublication``, and ``MappingError`` where
    the draft is wrong.
    """
    tables = _tables(_specification(draft=draft), publication)
    return zero_schema(tables) if form == "typescript" else json.dumps(write_schema(schema_of(tables)), indent=2) + "\n"


def exported_mappings(publication: str = "") -> str:
    """The published mappings, in the form that ``exportmappings`` writes; of a publication its tables, and itself.

    They say their revision, so that whoever follows them tells one that was restored from one that is out of date.
    Raises ``ConfigurationUnavailable`` where nothing is published, and ``UnknownPublication``.
    """
    published = _published()
    spec = published.specification
    if publication:
        tables = tuple(_tables(spec, publication))
        spec = Specification(tables, {publication: spec.publications[publication]})
    return json.dumps(write_specification(replace(spec, revision=published.number)), indent=2) + "\n"


def _specification(*, draft: bool) -> Specification:
    if draft:
        edited = read_draft()
        check(edited)
        return edited
    return _published().specification


def _published() -> Published:
    published = current()
    if published is None:
        raise ConfigurationUnavailable(
            "Nothing has been published yet.", remedy="Publish the mappings, or take the draft."
        )
    return published


def _tables(spec: Specification, publication: str) -> list[TableSpec]:
    if publication and publication not in spec.publications:
        raise UnknownPublication(f"The publication {publication[:80]!r} does not exist.")
    members = spec.publications[publication] if publication else [table.name for table in spec.tables]
    return [table for table in spec.tables if table.enabled and table.name in members]
