"""Pipelines: what each stage makes of a document, what is refused, and which fields stay what they were."""

from __future__ import annotations

import pytest
from bson.int64 import Int64

from changesource.exceptions import MappingError
from changesource.mapping import pipelines
from changesource.mapping.pipelines import PipelineFailed, compile_pipeline
from changesource.mapping.provenance import Image

ACCOUNT = {
    "_id": 1,
    "name": "n",
    "members": [{"user": "a", "roles": ["x", "y"]}, {"user": "b", "roles": []}],
    "address": {"city": "c", "lines": [{"t": 1, "u": 2}, 5, {"u": 3}]},
}


def shaped(*stages, document=ACCOUNT):
    return list(compile_pipeline(stages, "pipeline")(document))


SHAPES = [
    ([{"$match": {"name": "n"}}, {"$project": {"name": 1}}], [{"_id": 1, "name": "n"}]),
    ([{"$match": {"name": "x"}}], []),
    (
        [{"$unwind": "$members"}, {"$project": {"_id": 0, "u": "$members.user"}}],
        [{"u": "a"}, {"u": "b"}],
    ),
    (
        [
            {"$unwind": {"path": "$members", "includeArrayIndex": "at.m"}},
            {"$unwind": {"path": "$members.roles", "includeArrayIndex": "r", "preserveNullAndEmptyArrays": True}},
            {"$project": {"_id": 0, "at": 1, "r": 1, "members": 1}},
        ],
        [
            {"members": {"user": "a", "roles": "x"}, "at": {"m": Int64(0)}, "r": Int64(0)},
            {"members": {"user": "a", "roles": "y"}, "at": {"m": Int64(0)}, "r": Int64(1)},
            {"members": {"user": "b"}, "at": {"m": Int64(1)}, "r": None},
        ],
    ),
    ([{"$unwind": "$missing"}], []),
    ([{"$unwind": {"path": "$missing", "preserveNullAndEmptyArrays": True}}, {"$project": {"name": 1}}],
     [{"_id": 1, "name": "n"}]),
    ([{"$unwind": {"path": "$name", "includeArrayIndex": "i"}}, {"$project": {"name": 1, "i": 1}}],
     [{"_id": 1, "name": "n", "i": None}]),
    # A path of $unwind enters no array.
    ([{"$unwind": "$members.roles"}], []),
    ([{"$set": {"name": {"$toUpper": "$name"}}}, {"$project": {"name": 1}}], [{"_id": 1, "name": "N"}]),
    ([{"$addFields": {"a.b": 1, "name": "$$REMOVE"}}, {"$project": {"a": 1, "name": 1}}], [{"_id": 1, "a": {"b": 1}}]),
    ([{"$addFields": {"members": {"k": 1}}}, {"$project": {"members": 1, "_id": 0}}],
     [{"members": [{"user": "a", "roles": ["x", "y"], "k": 1}, {"user": "b", "roles": [], "k": 1}]}]),
    ([{"$addFields": {"address.lines.z": "$name"}}, {"$project": {"address.lines": 1, "_id": 0}}],
     [{"address": {"lines": [{"t": 1, "u": 2, "z": "n"}, {"z": "n"}, {"u": 3, "z": "n"}]}}]),
    ([{"$unset": ["members", "address.lines.u", "_id"]}],
     [{"name": "n", "address": {"city": "c", "lines": [{"t": 1}, 5, {}]}}]),
    ([{"$unset": "members"}, {"$project": {"_id": 0, "address": 0}}], [{"name": "n"}]),
    ([{"$project": {"address.lines.t": 1, "_id": 0}}], [{"address": {"lines": [{"t": 1}, {}]}}]),
    ([{"$project": {"address": {"lines": {"u": True}}, "_id": False}}], [{"address": {"lines": [{"u": 2}, {"u": 3}]}}]),
    ([{"$project": {"name.x": 1}}], [{"_id": 1}]),
    ([{"$project": {"_id": 1}}], [{"_id": 1}]),
    ([{"$project": {"_id": 0, "name": 1, "x": {"y": {"$literal": 1}}, "z": ["$name", "$gone"]}}],
     [{"name": "n", "x": {"y": 1}, "z": ["n", None]}]),
    ([{"$project": {"_id": "$name"}}], [{"_id": "n"}]),
    ([{"$replaceRoot": {"newRoot": "$address"}}, {"$project": {"city": 1}}], [{"city": "c"}]),
    ([{"$replaceWith": {"a": "$_id", "b": "$gone"}}], [{"a": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "expected"), SHAPES)
def test_stages(stages, expected):
    before = repr(ACCOUNT)
    found = shaped(*stages)
    assert found == expected
    assert [list(document) for document in found] == [list(document) for document in expected]
    assert repr(ACCOUNT) == before


def test_a_stage_that_a_document_cannot_pass_is_named():
    with pytest.raises(PipelineFailed, match=r"^pipeline\.1\.\$replaceWith: the new root is no embedded document"):
        shaped({"$match": {}}, {"$replaceWith": "$name"})
    with pytest.raises(PipelineFailed, match=r"^pipeline\.0\.\$set: \$divide by zero"):
        shaped({"$set": {"x": {"$divide": [1, {"$size": "$none"}]}}}, document={"_id": 1, "none": []})


def test_what_multiplies_without_bound_is_stopped(monkeypatch):
    monkeypatch.setattr(pipelines, "MAX_DOCUMENTS", 50)
    document = {"_id": 1, "a": list(range(8)), "b": list(range(8))}
    with pytest.raises(PipelineFailed, match="one document becomes more than 50"):
        shaped({"$unwind": "$a"}, {"$unwind": "$b"}, document=document)


REFUSED = [
    ({"$group": {"_id": 1}}, ".$group", "the stage $group is not supported; supported are $match, $unwind"),
    ({"$lookup": {}}, ".$lookup", "the stage $lookup is not supported"),
    ({"$sort": {"a": 1}}, ".$sort", "is not supported"),
    ("$match", "", "a stage is an object of one key"),
    ({}, "", "a stage is an object of one key"),
    ({"$match": []}, ".$match", "a filter is an object"),
    ({"$match": {"a": {"$near": 1}}}, ".$match.a.$near", "operator $near is not supported"),
    ({"$unwind": "members"}, ".$unwind", "takes a path such as"),
    ({"$unwind": {}}, ".$unwind", "takes a path such as"),
    ({"$unwind": {"path": "$a", "index": "i"}}, ".$unwind.index", "is not a known option"),
    ({"$unwind": {"path": "$a", "includeArrayIndex": "$i"}}, ".$unwind.includeArrayIndex", "must be a field's path"),
    ({"$unwind": {"path": "$a", "preserveNullAndEmptyArrays": 1}}, ".$unwind.preserveNullAndEmptyArrays", "true or"),
    ({"$project": {}}, ".$project", "at least one field"),
    ({"$project": {"a": 1, "b": 0}}, ".$project.b", "cannot be taken away where others are kept"),
    ({"$project": {"a": 1, "a.b": 1}}, ".$project.a.b", "stands below a path that is given too"),
    ({"$project": {"a.b": 1, "a": 1}}, ".$project.a", "stands above a path that is given too"),
    ({"$project": {"a": {"$foo": 1}}}, ".$project.a.$foo", "the expression $foo is not supported"),
    ({"$addFields": {"$a": 1}}, ".$addFields.$a", "starts with $"),
    ({"$addFields": []}, ".$addFields", "at least one field"),
    ({"$unset": [1]}, ".$unset", "takes a field's path"),
    ({"$project": {"a": {}}}, ".$project.a", "an empty object says nothing"),
    ({"$unset": []}, ".$unset", "names no field"),
    ({"$replaceRoot": {"root": 1}}, ".$replaceRoot", "takes an object of newRoot"),
    ({"$replaceWith": {"a": "$$NOW"}}, ".$replaceWith.a", "the same document must always give the same row"),
]


@pytest.mark.parametrize(("stage", "place", "words"), REFUSED)
def test_what_is_not_supported_is_refused_at_its_place(stage, place, words):
    with pytest.raises(MappingError) as caught:
        compile_pipeline([{"$match": {}}, stage], "tables.t.pipeline")
    assert caught.value.place == f"tables.t.pipeline.1{place}"
    assert words in caught.value.problem


ORIGINS = [
    ([], "_id", "_id"),
    ([], "a.b", "a.b"),
    ([{"$match": {"a": 1}}], "a", "a"),
    ([{"$unwind": "$a"}], "_id", "_id"),
    ([{"$unwind": "$a"}], "a", None),
    ([{"$unwind": "$a"}], "a.b", None),
    ([{"$unwind": "$a.b"}], "a", None),
    ([{"$unwind": "$a.b"}], "a.c", "a.c"),
    ([{"$unwind": {"path": "$a", "includeArrayIndex": "i"}}], "i", None),
    ([{"$set": {"x": "$_id"}}], "x", "_id"),
    ([{"$set": {"x": "$$ROOT.a"}}], "x.b", "a.b"),
    ([{"$set": {"x": {"$toLower": "$a"}}}], "x", None),
    ([{"$set": {"_id": 5}}], "_id", None),
    ([{"$set": {"x": "$_id"}}, {"$set": {"_id": "$a"}}], "x", "_id"),
    ([{"$set": {"x": "$_id"}}, {"$set": {"_id": "$a"}}], "_id", "a"),
    ([{"$unset": "a"}], "a.b", None),
    ([{"$unset": "a.b"}], "a.c", "a.c"),
    ([{"$project": {"a": 1}}], "_id", "_id"),
    ([{"$project": {"a": 1}}], "a.b", "a.b"),
    ([{"$project": {"a": 1}}], "b", None),
    ([{"$project": {"a": 1, "_id": 0}}], "_id", None),
    ([{"$project": {"_id": 0}}], "a", "a"),
    ([{"$project": {"x": "$_id", "y.z": "$a"}}], "y.z.w", "a.w"),
    ([{"$replaceRoot": {"newRoot": "$$ROOT"}}], "a", "a"),
    ([{"$replaceWith": "$a"}], "b", "a.b"),
    ([{"$replaceWith": {"x": "$_id"}}], "x", "_id"),
    ([{"$replaceWith": {"x": "$_id"}}], "_id", None),
    # Where a document has no `a`, it is the root's own `x`.
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"x": "$a"}]}}], "x", None),
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"_id": "$code"}]}}], "_id", None),
    ([{"$replaceWith": {"$mergeObjects": [{"x": "$nick"}, {"x": "$code"}]}}], "x", None),
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"x": "$_id"}]}}], "x", "_id"),
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"x": "$_id"}]}}], "a", "a"),
    ([{"$set": {"_id": "$other"}}, {"$replaceWith": {"$mergeObjects": ["$sub", "$$ROOT"]}}], "_id", None),
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", "$a"]}}], "_id", None),
    ([{"$replaceWith": {"$mergeObjects": ["$a", {"x": "$_id"}]}}], "x", "_id"),
    ([{"$replaceWith": {"$mergeObjects": [{"a": 1, "_id": 2}, "$$ROOT"]}}], "_id", "_id"),
    # Where a document has no `a`, it is 1.
    ([{"$replaceWith": {"$mergeObjects": [{"a": 1}, "$$ROOT"]}}], "a", None),
    ([{"$replaceWith": {"$arrayToObject": "$a"}}], "_id", None),
]


IMAGES = [
    ([{"$project": {"x": {"$toString": "$_id"}}}], "x", Image(("_id",), "text")),
    ([{"$set": {"x": {"$toString": ["$a.b"]}}}], "x", Image(("a", "b"), "text")),
    ([{"$set": {"x": {"$toString": "$a"}}}], "x.y", None),
    ([{"$set": {"x": {"$convert": {"input": "$_id", "to": "string"}}}}], "x", Image(("_id",), "text")),
    ([{"$set": {"x": {"$convert": {"input": "$_id", "to": "string", "onError": "?"}}}}], "x", None),
    ([{"$set": {"x": {"$toString": "$_id"}}}, {"$set": {"y": {"$hexToBase64Url": "$x"}}}], "y",
     Image(("_id",), "base64")),
    ([{"$replaceWith": {"$mergeObjects": ["$a", {"x": {"$toString": "$_id"}}]}}], "x", Image(("_id",), "text")),
    ([{"$replaceWith": {"$mergeObjects": ["$a", {"x": {"$toString": "$b"}}]}}], "x", None),
    ([{"$set": {"x": {"$toString": {"$toString": "$_id"}}}}], "x", None),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "path", "image"), IMAGES)
def test_which_fields_are_images_of_the_documents(stages, path, image):
    assert compile_pipeline(stages, "pipeline").provenance.of(tuple(path.split("."))) == image


@pytest.mark.parametrize(("stages", "path", "origin"), ORIGINS)
def test_which_fields_are_still_those_of_the_document(stages, path, origin):
    found = compile_pipeline(stages, "pipeline").provenance.of(tuple(path.split(".")))
    assert found == (None if origin is None else tuple(origin.split(".")))
