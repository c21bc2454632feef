"""The forms in which applications of the NestJS zero-sources server hand over schemas and mappings, as ours.

Its mappings have a ``source``, and say a few things that are written otherwise here.
"""

from __future__ import annotations

from dataclasses import dataclass

from changesource.exceptions import MappingError

from .json_reading import flag, parse
from .spec import Json


@dataclass(frozen=True)
class Shown:
    """Which fields a projection shows: ``kept`` (None: all) without those that are ``gone``."""

    kept: frozenset[str] | None = None
    gone: frozenset[str] = frozenset()

    def has(self, *names: str) -> bool:
        """Whether a field of one of these names is shown."""
        return (self.kept is None or not self.kept.isdisjoint(names)) and self.gone.isdisjoint(names)


ALL_SHOWN = Shown()


def shown_by(projection: Json) -> Shown:
    """What a projection shows, by MongoDB's meaning: all but what goes, or nothing but what it keeps or computes."""
    if not isinstance(projection, dict):
        return ALL_SHOWN
    projection = _dotted(projection)
    kept = frozenset(key.partition(".")[0] for key, value in projection.items() if _is_kept(value))
    return Shown(kept or None, frozenset(key for key, value in projection.items() if flag(value) is False))


def schema_in(data: Json) -> Json:
    """A schema without what is wrapped around it, an export's version or both in one; a single table as a list."""
    if isinstance(data, dict):
        if _has_both(data):
            return schema_in(data["schema"])
        tables = data.get("tables")
        if isinstance(tables, list) and tables:
            return tables
        if isinstance(data.get("tableName"), str) and "columns" in data:
            return [data]
    return data


def mappings_in(data: Json) -> Json:
    """Mappings without what is wrapped around them: an export's version, or both in one."""
    if isinstance(data, dict):
        if _has_both(data):
            return mappings_in(data["mapping"])
        inner = data.get("mappings")
        if isinstance(inner, dict) and not any(isinstance(inner.get(key), str) for key in ("source", "collection")):
            return inner
    return data


def beside_schema(data: Json) -> dict[str, Json]:
    """The mappings by table that come with a schema in one file; none where there are none."""
    found = mappings_in(data) if isinstance(data, dict) and _has_both(data) else {}
    return found if isinstance(found, dict) else {}


def mapping_of_name(name: str) -> dict[str, Json] | None:
    """The mapping that a table's upstream name is the JSON of; None for a plain name."""
    if not name.startswith("{"):
        return None
    try:
        found = parse(name.encode("utf-8", "surrogatepass"), "serverName")
    except MappingError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("source"), str) else None


def _has_both(data: dict[str, Json]) -> bool:
    """Whether this is an export of schema and mappings in one, rather than tables of these names."""
    schema, mapping = data.get("schema"), data.get("mapping")
    return isinstance(schema, dict) and "tables" in schema and isinstance(mapping, dict)


def as_ours(entry: dict[str, Json]) -> dict[str, Json]:
    """A table's mapping as it is written here; one without a ``source`` stays as it is."""
    if "source" not in entry:
        return entry
    found = {**entry}
    if isinstance(projection := entry.get("projection"), dict):
        found["projection"] = _projection(projection)
    if isinstance(pipeline := entry.get("pipeline"), list):
        found["pipeline"] = [_stage(stage) for stage in pipeline]
    if isinstance(projection := found.get("projection"), dict) and _shapes(projection):
        # It speaks of fields in fields, or of what is to go: that is what a stage is for. The key needs `_id` all the
        # same.
        del found["projection"]
        pipeline = found.get("pipeline", [])
        stages = pipeline if isinstance(pipeline, list) else []
        shaping = {k: _shown(v) for k, v in projection.items() if k != "_id" or flag(v) is not False}
        found["pipeline"] = [*stages, {"$project": shaping}]
    return found


def _dotted(projection: dict[str, Json]) -> dict[str, Json]:
    """With what an object says of a field's own fields at their paths; an object of expressions is one itself."""
    found: dict[str, Json] = {}
    for key, value in projection.items():
        if isinstance(value, dict) and _is_of_fields(value):
            found |= {f"{key}.{inner}": own for inner, own in _dotted(value).items()}
        else:
            found[key] = value
    return found


def _is_of_fields(value: dict[str, Json]) -> bool:
    """Whether an object in a projection says of fields in a field whether they are shown."""
    return not any(key.startswith("$") for key in value) and any(
        flag(inner) is not None or (isinstance(inner, dict) and _is_of_fields(inner)) for inner in value.values()
    )


def _projection(projection: dict[str, Json]) -> dict[str, Json]:
    """With texts joined; beside fields that are kept, those that are taken away say nothing."""
    projection = _dotted(projection)
    kept = any(_is_kept(value) for value in projection.values())
    return {
        key: _texts_joined(value)
        for key, value in projection.items()
        if key == "_id" or not kept or flag(value) is not False
    }


def _is_kept(value: Json) -> bool:
    return flag(value) is True or isinstance(value, str | dict | list)


def _shapes(projection: dict[str, Json]) -> bool:
    gone = any(flag(value) is False for key, value in projection.items() if key != "_id")
    return gone or any("." in key for key in projection)


def _shown(value: Json) -> Json:
    """A path is written with ``$`` in a stage."""
    return f"${value}" if isinstance(value, str) and not value.startswith("$") else value


def _stage(stage: Json) -> Json:
    if not isinstance(stage, dict) or len(stage) != 1:
        return stage
    ((name, value),) = stage.items()
    if name == "$unwind":
        if isinstance(value, dict) and "path" in value:
            return {name: {**value, "path": _shown(value["path"])}}
        return {name: _shown(value)}
    return {name: _texts_joined(value)} if name in ("$project", "$addFields", "$set") else stage


def _texts_joined(value: Json) -> Json:
    """With every ``$concat`` taking fields of any type by their text, where MongoDB's takes strings alone."""
    if isinstance(value, list):
        return [_texts_joined(inner) for inner in value]
    if not isinstance(value, dict) or "$literal" in value:
        return value
    found = {key: _texts_joined(inner) for key, inner in value.items()}
    if isinstance(parts := found.get("$concat"), list):
        found["$concat"] = [{"$toString": part} if _is_field(part) else part for part in parts]
    return found


def _is_field(part: Json) -> bool:
    return isinstance(part, str) and part.startswith("$") and not part.startswith("$$")
