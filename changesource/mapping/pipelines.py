"""Pipelines: aggregation stages that shape one document into none, one or many, compiled once.

Only stages that look at one document at a time: what a document gives must depend on it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bson.int64 import Int64

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, charge
from changesource.mapping.expressions import compile_expression
from changesource.mapping.filters import compile_filter
from changesource.mapping.paths import MISSING, Document, Path, as_document, split_path
from changesource.mapping.projection import Projection, compile_add_fields, compile_project, compile_unset
from changesource.mapping.provenance import Provenance
from changesource.mapping.spec import Json

Shape: TypeAlias = Callable[[Document], Iterable[Document]]

MAX_STAGES = 1000
"""As in MongoDB."""
MAX_DOCUMENTS = 100_000
"""What one document may become; several ``$unwind`` in a row multiply."""


class PipelineFailed(ValueError):
    """A document that a stage cannot take; says where and why, without the document's contents."""


@dataclass(frozen=True)
class Pipeline:
    """Compiled stages. ``multiplies`` says whether a document may become several."""

    stages: tuple[tuple[str, Shape], ...]
    multiplies: bool
    provenance: Provenance

    def __call__(self, document: Document) -> Sequence[Document]:
        """What ``document`` becomes; ``PipelineFailed`` where the server's ``aggregate`` would fail."""
        documents: Sequence[Document] = (document,)
        for name, shape in self.stages:
            try:
                shaped: list[Document] = []
                for one in documents:
                    shaped.extend(shape(one))
                    if len(shaped) > MAX_DOCUMENTS:
                        raise ValueError(f"one document becomes more than {MAX_DOCUMENTS}")
            except ValueError as exc:
                raise PipelineFailed(f"{name}: {exc}") from exc
            documents = shaped
        return documents


def compile_pipeline(stages: Sequence[Json], place: str) -> Pipeline:
    """The stages, ready to be applied; ``MappingError`` names the first that is not supported, and its place."""
    compiled: list[tuple[str, Shape]] = []
    provenance = Provenance()
    multiplies = False
    if len(stages) > MAX_STAGES:
        raise MappingError(place, f"the pipeline has more than {MAX_STAGES} stages")
    for index, stage in enumerate(stages):
        own = f"{place}.{index}"
        if not isinstance(stage, dict) or len(stage) != 1:
            raise MappingError(own, "a stage is an object of one key, such as $match")
        (name,) = stage
        build = _STAGES.get(name)
        if build is None:
            raise MappingError(f"{own}.{name}", f"the stage {name} is not supported; supported are {', '.join(STAGES)}")
        shape, provenance = build(stage[name], f"{own}.{name}", provenance)
        compiled.append((f"pipeline.{index}.{name}", shape))
        multiplies = multiplies or name == "$unwind"
    return Pipeline(tuple(compiled), multiplies, provenance)


_Built: TypeAlias = tuple[Shape, Provenance]
_Build: TypeAlias = Callable[[Json, str, Provenance], _Built]


def _match(stage: Json, place: str, before: Provenance) -> _Built:
    if not isinstance(stage, dict):
        raise MappingError(place, "a filter is an object")
    matches = compile_filter(stage, place)
    return (lambda document: (document,) if matches(document) else ()), before


def _projecting(compile_stage: Callable[[Json, str], Projection]) -> _Build:
    def build(stage: Json, place: str, before: Provenance) -> _Built:
        projection = compile_stage(stage, place)
        return (lambda document: (projection(document),)), before.projected(projection)

    return build


def _replace_root(stage: Json, place: str, before: Provenance) -> _Built:
    if not isinstance(stage, dict) or list(stage) != ["newRoot"]:
        raise MappingError(place, "takes an object of newRoot")
    return _replace_with(stage["newRoot"], f"{place}.newRoot", before)


def _replace_with(stage: Json, place: str, before: Provenance) -> _Built:
    expression = compile_expression(stage, place)

    def shape(document: Document) -> Iterable[Document]:
        found = as_document(expression(document))
        if found is None:
            raise ValueError("the new root is no embedded document")
        return (found,)

    return shape, before.replaced(stage)


def _unwind(stage: Json, place: str, before: Provenance) -> _Built:
    given: dict[str, Json] = {"path": stage} if isinstance(stage, str) else stage if isinstance(stage, dict) else {}
    for key in given:
        if key not in ("path", "includeArrayIndex", "preserveNullAndEmptyArrays"):
            raise MappingError(f"{place}.{key}", "is not a known option of $unwind")
    source, index, preserve = (
        given.get("path"),
        given.get("includeArrayIndex"),
        given.get("preserveNullAndEmptyArrays", False),
    )
    if not isinstance(source, str) or not source.startswith("$") or source.startswith("$$"):
        raise MappingError(place, 'takes a path such as "$members", or an object with it as path')
    if not isinstance(preserve, bool):
        raise MappingError(f"{place}.preserveNullAndEmptyArrays", "must be true or false")
    if index is not None and (not isinstance(index, str) or index.startswith("$")):
        raise MappingError(f"{place}.includeArrayIndex", "must be a field's path, which does not begin with $")
    path = split_path(source[1:], place)
    index_path = () if index is None else split_path(index, f"{place}.includeArrayIndex")

    def shape(document: Document) -> Iterable[Document]:
        value = _nested(document, path)
        if isinstance(value, list):
            if len(value) > MAX_DOCUMENTS:
                raise ValueError(f"one document becomes more than {MAX_DOCUMENTS}")
            charge(len(value) * (PART + len(document)))
            if value:
                return [
                    _with(_with(document, path, element), index_path, Int64(at)) for at, element in enumerate(value)
                ]
            return (_with(_with(document, path, MISSING), index_path, None),) if preserve else ()
        if value is None or value is MISSING:
            return (_with(document, index_path, None),) if preserve else ()
        return (_with(document, index_path, None),)

    after = before.without(path)
    return shape, after.without(index_path) if index_path else after


def _nested(document: Document, path: Path) -> object:
    """The value at ``path``, which enters no array."""
    value: object = document
    for name in path:
        inner = document if value is document else as_document(value)
        if inner is None:
            return MISSING
        value = inner.get(name, MISSING)
    return value


def _with(document: Document, path: Path, value: object) -> Document:
    """A copy of ``document`` with ``value`` at ``path``; where that is ``MISSING``, without the field."""
    if not path:
        return document
    copy = dict(document)
    name, rest = path[0], path[1:]
    if rest:
        value = _with(as_document(copy.get(name)) or {}, rest, value)
    if value is MISSING:
        copy.pop(name, None)
    else:
        copy[name] = value
    return copy


_STAGES: dict[str, _Build] = {
    "$match": _match,
    "$unwind": _unwind,
    "$addFields": _projecting(compile_add_fields),
    "$set": _projecting(compile_add_fields),
    "$unset": _projecting(compile_unset),
    "$project": _projecting(compile_project),
    "$replaceRoot": _replace_root,
    "$replaceWith": _replace_with,
}
STAGES = tuple(_STAGES)
"""The names of all stages that are supported."""
