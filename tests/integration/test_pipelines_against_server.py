"""Our pipelines against the server's own `aggregate`: what each document becomes, field by field, in order."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import bson
import pytest
from bson.int64 import Int64
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import OperationFailure

from changesource.mapping.paths import as_document
from changesource.mapping.pipelines import STAGES, PipelineFailed, compile_pipeline

STAND_IN = "TEST_MONGODB_URI" not in os.environ
LEAST = 50
FIELDS = ["a", "b", "c"]
INNER = ["x", "y"]
# The stand-in takes a dotted path of an index for a name with a dot in it (mongo/db/exec/agg/unwind_processor.cpp).
INDEXES = ["i"] if STAND_IN else ["i", "at.i"]
SCALARS = st.sampled_from([None, 0, 1, 2, 2.5, "s", "t", True])
DOCUMENTS = st.dictionaries(st.sampled_from(INNER), SCALARS | st.lists(SCALARS, max_size=3), max_size=2)
VALUES = st.one_of(SCALARS, DOCUMENTS, st.lists(SCALARS, max_size=3), st.lists(DOCUMENTS, max_size=3))
WHOLE = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)
FIELD = st.sampled_from(FIELDS)
PATH = st.one_of(FIELD, FIELD, FIELD, st.builds("{}.{}".format, FIELD, st.sampled_from(INNER)))
EXPRESSION = st.one_of(
    FIELD.map("${}".format),
    SCALARS.map(lambda value: {"$literal": value}),
    FIELD.map(lambda field: {"$type": f"${field}"}),
    st.builds(lambda field, value: {"$ifNull": [f"${field}", {"$literal": value}]}, FIELD, SCALARS),
    st.just("$$REMOVE"),
    FIELD.map(lambda field: {"n": f"${field}", "m": {"$literal": 1}}),
)


def distinct(paths: list[str]) -> list[str]:
    """Those of ``paths`` of which none is above another: MongoDB refuses the others."""
    kept: list[str] = []
    for path in paths:
        if not any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in kept):
            kept.append(path)
    return kept


PATHS = st.lists(PATH, min_size=1, max_size=3).map(distinct)


@st.composite
def computed(draw: st.DrawFn) -> dict[str, Any]:
    """Fields with what they are given: at a path, or in objects within each other."""
    found: dict[str, Any] = {}
    for path in draw(PATHS):
        expression = draw(EXPRESSION)
        outer, dot, inner = path.partition(".")
        nest = bool(dot) and not any(other.startswith(f"{outer}.") for other in found) and draw(st.booleans())
        if nest:
            found[outer] = {inner: expression}
        else:
            found[path] = expression
    return found


@st.composite
def projects(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["include", "exclude", "compute"]))
    paths = draw(PATHS)
    flags: dict[str, Any] = {path: kind != "exclude" for path in paths}
    if kind == "compute":
        flags[paths[0]] = draw(EXPRESSION)
    if draw(st.booleans()):
        flags["_id"] = draw(st.booleans()) if kind != "exclude" else False
    return {"$project": flags}


@st.composite
def unwinds(draw: st.DrawFn) -> dict[str, Any]:
    path = f"${draw(PATH)}"
    if draw(st.booleans()):
        return {"$unwind": path}
    options: dict[str, Any] = {"path": path, "preserveNullAndEmptyArrays": draw(st.booleans())}
    if draw(st.booleans()):
        options["includeArrayIndex"] = draw(st.sampled_from(INDEXES))
    return {"$unwind": options}


CONDITIONS = st.one_of(
    st.booleans().map(lambda there: {"$exists": there}),
    SCALARS.map(lambda value: {"$ne": value}),
    st.sampled_from(["array", "object", "number", "string"]).map(lambda kind: {"$type": kind}),
)
ROOTS = st.one_of(
    FIELD.map("${}".format),
    st.just("$$ROOT"),
    st.builds(lambda name, field: {name: f"${field}", "k": "$_id"}, FIELD, FIELD),
    st.builds(lambda field: {"$mergeObjects": ["$$ROOT", {"k": f"${field}"}]}, FIELD),
    st.builds(lambda field: {"$mergeObjects": [{"a": 7}, f"${field}", {"k": "$_id"}]}, FIELD),
)
BY_NAME: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "$match": st.builds(lambda path, condition: {"$match": {path: condition}}, FIELD, CONDITIONS),
    "$unwind": unwinds(),
    "$addFields": st.builds(lambda fields: {"$addFields": fields}, computed()),
    "$set": st.builds(lambda fields: {"$set": fields}, computed()),
    "$unset": st.builds(lambda paths: {"$unset": paths[0] if len(paths) == 1 else paths}, PATHS),
    "$project": projects(),
    "$replaceRoot": st.builds(lambda root: {"$replaceRoot": {"newRoot": root}}, ROOTS),
    "$replaceWith": st.builds(lambda root: {"$replaceWith": root}, ROOTS),
}
MORE = st.lists(st.sampled_from(STAGES).flatmap(lambda name: BY_NAME[name]), max_size=2)
# Where the stand-in errs; tests/unit/test_pipelines.py holds what is right, and a MongoDB is asked all.
# 1. Dotted paths in stages: it leaves a value that has no fields as it is where a field below it is computed, for which
#    MongoDB puts a document in its place (manual: "$addFields", "Overwriting an existing field"); $unset and $project
#    take no field away from the documents in an array (manual: "$unset"); and see INDEXES.
# 2. What is given to a second field is one value in both: $unwind of a path below one changes the other.
# 3. $mergeObjects of an array among several, and ints for longs (here the index of $unwind), as in
#    test_expressions_against_server.py.


def fields_below(pipeline: list[dict[str, Any]]) -> bool:
    """Whether a stage computes a field below another, or takes one away."""
    for stage in pipeline:
        ((name, body),) = stage.items()
        if name == "$unset" and "." in str(body):
            return True
        if name in ("$addFields", "$set", "$project"):
            for path, value in body.items():
                nested = isinstance(value, dict) and not next(iter(value)).startswith("$")
                if nested or ("." in path and value is not True):
                    return True
    return False


def encoded(documents: list[Any]) -> list[bytes]:
    return [bson.encode(as_document(plain(document)) or {}) for document in documents]


def below_what_is_shared(pipeline: list[dict[str, Any]]) -> bool:
    """Whether $unwind goes below a field after a stage that may have given its value to another."""
    given = False
    for stage in pipeline:
        ((name, body),) = stage.items()
        path = body if isinstance(body, str) else body.get("path") if isinstance(body, dict) else ""
        if name == "$unwind" and "." in str(path) and given:
            return True
        given = given or name in ("$addFields", "$set", "$project", "$replaceRoot", "$replaceWith")
    return False


def plain(value: Any) -> Any:
    """``value``, on the stand-in with ints for longs: no other long is in it than an index."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return int(value) if STAND_IN and isinstance(value, Int64) else value


def compare(database: Database[Any], documents: list[dict[str, Any]], pipeline: list[Any], seen: Counter[str]) -> None:
    """Fail where a document becomes something else than the server says; count the stages of what becomes something."""
    run = compile_pipeline(pipeline, "pipeline")
    for number, fields in enumerate(documents):
        document = {"_id": number, **fields}
        held = [{"$documents": [{"it": {"$literal": document}}]}, {"$replaceWith": "$it"}]
        try:
            theirs = list(database.aggregate([*held, *pipeline]))
        except OperationFailure:
            theirs = None
        try:
            ours = list(run(document))
        except PipelineFailed:
            ours = None
        if STAND_IN and ours is None and "$mergeObjects" in str(pipeline):
            continue
        assert (ours is None) == (theirs is None), (pipeline, document, ours, theirs)
        if ours and theirs is not None:
            assert encoded(ours) == encoded(theirs), (pipeline, document, ours, theirs)
            seen.update(name for stage in pipeline for name in stage)


def check(database: Database[Any], stage: str, examples: int) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(WHOLE, min_size=6, max_size=8), BY_NAME[stage], MORE, st.booleans())
    def run(documents: list[dict[str, Any]], first: Any, more: list[Any], last: bool) -> None:
        pipeline = [*more, first] if last else [first, *more]
        if not (STAND_IN and (fields_below(pipeline) or below_what_is_shared(pipeline))):
            compare(database, documents, pipeline, seen)

    run()
    assert seen[stage] >= LEAST


@pytest.mark.parametrize("stage", STAGES)
def test_documents_become_what_the_server_makes_of_them(mongo: Database[Any], stage: str) -> None:
    check(mongo, stage, 60)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_documents_become_what_the_server_makes_of_them_many_times(mongo: Database[Any], stage: str) -> None:
    check(mongo, stage, 1250)
