"""Mappings and schemas as files give them."""

from __future__ import annotations

from changesource.mapping.formats import combine, read_mappings, read_schema, read_specification
from changesource.mapping.json_reading import parse
from changesource.mapping.spec import Specification


def specification_in(mappings: bytes, name: str, schema: bytes | None = None, schema_name: str = "") -> Specification:
    """What a file of mappings gives, in any of the forms that are read, completed by a schema where there is one.

    ``name`` and ``schema_name`` are what errors call the files. Raises ``MappingError``.
    """
    data = parse(mappings, name)
    if schema is None:
        return read_specification(data)
    return combine(read_schema(parse(schema, schema_name)), read_mappings(data))
