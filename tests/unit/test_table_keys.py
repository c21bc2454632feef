"""Keys of tables: which columns can tell documents apart, what is asked of MongoDB for them, and what they show."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from bson.objectid import ObjectId

from changesource.exceptions import MappingError
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.questions import Questions, questions_of
from changesource.mapping.rows import Problem, compile_table
from changesource.mapping.spec import ColumnSpec, Specification, TableSpec

OID = ObjectId("65f000000000000000000001")
MEMBER = TableSpec(
    name="member",
    collection="accounts",
    columns=(
        ColumnSpec("accountId", "string", "accountId"),
        ColumnSpec("userId", "string", "userId"),
        ColumnSpec("role", "string", "role", optional=True),
    ),
    primary_key=("accountId", "userId"),
    pipeline=(
        {"$unwind": "$members"},
        {"$project": {"accountId": "$_id", "userId": "$members.id", "role": "$members.role"}},
    ),
)
USER = TableSpec(
    name="user",
    collection="users",
    columns=(ColumnSpec("email", "string", "email"), ColumnSpec("name", "string", "name", optional=True)),
    primary_key=("email",),
)
NOTE = TableSpec(name="note", collection="notes", columns=(ColumnSpec("id", "string", "_id"),), primary_key=("id",))


def rows_and_problems(spec: TableSpec, document: dict[str, object]):
    found = list(compile_table(spec).rows(document))
    return [one for one in found if isinstance(one, dict)], [one for one in found if isinstance(one, Problem)]


def test_rows_of_one_document_are_told_apart_by_a_computed_key():
    table = compile_table(MEMBER)
    assert table.has_history
    assert table.table_key.unique_fields == ()
    document = {"_id": OID, "members": [{"id": "a", "role": "owner"}, {"id": OID}, {"id": 5}]}
    rows, problems = rows_and_problems(MEMBER, document)
    assert rows == [
        {"accountId": str(OID), "userId": "a", "role": "owner"},
        {"accountId": str(OID), "userId": str(OID), "role": None},
        {"accountId": str(OID), "userId": "5", "role": None},
    ]
    assert problems == []


@pytest.mark.parametrize("value", [{}, {"id": None}, {"id": True}, {"id": ["a"]}, {"id": {"a": 1}}, {"id": "a\0"}])
def test_a_key_that_is_none_leaves_its_row_out_alone(value):
    rows, (problem,) = rows_and_problems(MEMBER, {"_id": OID, "members": [value, {"id": "b"}]})
    assert [row["userId"] for row in rows] == ["b"]
    assert (problem.column, problem.left_out) == ("userId", True)


def test_of_two_rows_with_one_key_the_first_stays():
    members = [{"id": "a", "role": "x"}, {"id": "b"}, {"id": "a", "role": "y"}]
    rows, problems = rows_and_problems(MEMBER, {"_id": OID, "members": members})
    assert [(row["userId"], row["role"]) for row in rows] == [("a", "x"), ("b", None)]
    assert problems == [Problem("userId", "another row of the same document has this key", left_out=True)]


def test_a_pipeline_that_fails_leaves_all_rows_out():
    spec = replace(MEMBER, pipeline=({"$set": {"accountId": "$_id", "userId": {"$toInt": "$n"}}},))
    rows, (problem,) = rows_and_problems(spec, {"_id": OID, "n": "x"})
    assert rows == []
    assert problem == Problem("", "pipeline.0.$set: the string is no int", left_out=True)


def test_a_filter_that_fails_leaves_the_row_out():
    spec = replace(NOTE, filter={"$expr": {"$toInt": "$n"}})
    assert rows_and_problems(spec, {"_id": OID, "n": "x"}) == (
        [],
        [Problem("", "filter: the string is no int", left_out=True)],
    )


IMAGES = [
    ({"path": "_id"}, str(OID)),
    ({"expression": "$_id"}, str(OID)),
    ({"expression": {"$toString": "$_id"}}, str(OID)),
    ({"expression": {"$convert": {"input": "$_id", "to": "string"}}}, str(OID)),
    ({"expression": {"$hexToBase64Url": {"$toString": "$_id"}}}, base64.urlsafe_b64encode(OID.binary).decode()),
    ({"expression": {"$hexToBase64Url": "$_id"}}, base64.urlsafe_b64encode(OID.binary).decode()),
]


@pytest.mark.parametrize(("source", "expected"), IMAGES)
def test_expressions_that_differ_wherever_the_id_does_are_keys(source, expected):
    spec = replace(NOTE, columns=(ColumnSpec("id", "string", **source),), id_type="objectId")
    table = compile_table(spec)
    assert not table.has_history
    assert table.key(OID) == {"id": expected}
    assert rows_and_problems(spec, {"_id": OID}) == ([{"id": expected}], [])


JOINED = [
    {"$concat": ["$_id", "--", "$members.id"]},
    {"$concat": [{"$toString": "$_id"}, "--", "$members.id"]},
    {"$concat": ["$members.id", "--", "$_id"]},
]


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("expression", JOINED)
def test_a_text_that_begins_or_ends_with_the_id_is_a_key_where_it_tells_where_that_ends(expression, in_pipeline):
    shape = ({"$unwind": "$members"}, *(({"$set": {"_id": expression}},) if in_pipeline else ()))
    column = ColumnSpec("id", "string", **({"path": "_id"} if in_pipeline else {"expression": expression}))
    spec = replace(NOTE, columns=(column,), pipeline=shape)
    table = compile_table(spec)
    assert table.has_history
    assert table.table_key.unique_fields == ()
    seen: dict[str, str] = {}
    for identity in ("a", "b", "a-", "-a", "a--b", "--a", "a--", "a-b"):
        rows, problems = rows_and_problems(spec, {"_id": identity, "members": [{"id": x} for x in ("c", "-c", "c-")]})
        sound = "--" not in identity and not identity.startswith("-") and not identity.endswith("-")
        assert (len(rows), len(problems)) == ((3, 0) if sound else (0, 3))
        for row in rows:
            assert seen.setdefault(row["id"], identity) == identity
        assert all("_id holds '--'" in problem.reason for problem in problems)
    assert set(seen.values()) == {"a", "b", "a-b"}


def test_a_joined_key_takes_object_ids_by_their_text():
    column = ColumnSpec("id", "string", expression={"$concat": [{"$hexToBase64Url": "$_id"}, ":", "$m"]})
    spec = replace(NOTE, columns=(column,), id_type="objectId")
    text = base64.urlsafe_b64encode(OID.binary).decode()
    assert rows_and_problems(spec, {"_id": OID, "m": "x"}) == ([{"id": f"{text}:x"}], [])
    rows, (problem,) = rows_and_problems(spec, {"_id": OID})
    assert (rows, problem.column) == ([], "id")


@pytest.mark.parametrize(("image", "length"), [("$hexToBase64Url", 16), ("$toString", 24)])
@pytest.mark.parametrize("separator", ["-", "_", "a"])
def test_a_joined_key_takes_every_object_id(image, length, separator):
    """Each fifth has a - or a _ in base64url; but all are as long, so that none can be taken for another."""
    identities = [ObjectId(f"{number * 0x9E3779B97F4A7C15 % 2**96:024x}") for number in range(1, 300)]
    text = {image: "$_id"}
    for parts, place in (([text, separator, "$m"], slice(length)), (["$m", separator, text], slice(-length, None))):
        spec = replace(NOTE, columns=(ColumnSpec("id", "string", expression={"$concat": parts}),), id_type="objectId")
        found = [rows_and_problems(spec, {"_id": identity, "m": "-_a"}) for identity in identities]
        assert not any(problems for _, problems in found)
        assert len({row["id"][place] for rows, _ in found for row in rows}) == len(identities)


NO_KEYS = [
    ({"expression": {"$toLower": "$_id"}}, {}, ".primaryKey", "id shows neither"),
    ({"expression": {"$concat": ["$_id", "$x"]}}, {}, ".primaryKey", "two documents could have one key"),
    ({"expression": {"$concat": ["$a", "x", "$_id", "x", "$b"]}}, {}, ".primaryKey", "id shows neither"),
    ({"expression": {"$concat": ["$_id", ""]}}, {}, ".primaryKey", "id shows neither"),
    ({"expression": {"$concat": [{"$toLower": "$_id"}, "_"]}}, {}, ".primaryKey", "id shows neither"),
    ({"expression": {"$concat": ["$_id", "x"]}}, {"id_type": "objectId"}, ".idType", "objectId does not fit"),
    ({"expression": {"$hexToBase64Url": "$_id"}}, {"id_type": "string"}, ".idType", "string does not fit"),
    ({"expression": {"$toString": "$_id"}}, {"id_type": "number"}, ".idType", "number does not fit this expression"),
    ({"path": "email"}, {"pipeline": ({"$set": {"email": {"$toLower": "$email"}}},)}, ".primaryKey", "shows neither"),
    ({"expression": "$$ROOT.$_id"}, {}, ".columns.id", "starts with $"),
    ({"path": "_id"}, {"pipeline": ({"$set": {"_id": 1}},)}, ".primaryKey", "shows neither"),
    ({"path": "_id"}, {"pipeline": ({"$replaceWith": "$a"},), "id_type": "string"}, None, ""),
]


@pytest.mark.parametrize(("source", "changes", "place", "words"), NO_KEYS)
def test_a_key_by_which_documents_could_meet_is_refused(source, changes, place, words):
    spec = replace(NOTE, columns=(ColumnSpec("id", "string", **source),), **changes)
    if place is None:
        # `a._id` may have a unique index, which is asked of MongoDB.
        assert compile_table(spec).table_key.unique_fields == ("a._id",)
        return
    with pytest.raises(MappingError) as caught:
        compile_table(spec)
    assert caught.value.place == f"tables.note{place}"
    assert words in caught.value.problem


def test_fields_of_a_unique_index_are_asked_for():
    renamed = replace(
        USER, name="alias", columns=(ColumnSpec("key", "string", "mail"),), primary_key=("key",),
        pipeline=({"$project": {"mail": "$email"}},),
    )  # fmt: skip
    tables = [compile_table(one) for one in (USER, renamed, MEMBER, NOTE)]
    assert [table.has_history for table in tables] == [True, True, True, False]
    assert questions_of(tables) == {
        "users": Questions({"user": ("email",), "alias": ("email",)}, frozenset({"email"}), history=True),
        "accounts": Questions({}, frozenset(), history=True),
        "notes": Questions(),
    }
    typed = replace(USER, columns=(replace(USER.columns[0], key_type="string"), USER.columns[1]))
    assert questions_of([compile_table(typed)])["users"].typed_fields == frozenset()


def test_a_key_of_one_type_takes_no_other():
    typed = replace(USER, columns=(replace(USER.columns[0], key_type="objectId"), USER.columns[1]))
    assert rows_and_problems(typed, {"_id": 1, "email": OID})[0] == [{"email": str(OID), "name": None}]
    rows, (problem,) = rows_and_problems(typed, {"_id": 1, "email": str(OID)})
    assert rows == []
    assert problem.reason == "the field is of type string, declared is objectId"


def needs(*tables: TableSpec):
    return CompiledMapping.compile(Specification(tables), "app").needs


def test_what_is_read_of_a_collection():
    found = needs(MEMBER, NOTE, replace(NOTE, name="other", columns=(*NOTE.columns, ColumnSpec("x", "json", "a.b"))))
    # Names that a pipeline makes are asked for as well: a field may have one.
    assert found["accounts"].fields == {"_id", "members", "accountId", "userId", "role"}
    assert found["notes"].fields == {"_id", "a"}
    assert (found["accounts"].history, found["notes"].history) == (True, False)


@pytest.mark.parametrize(
    "expression", ["$$ROOT", {"$objectToArray": "$$CURRENT"}, {"$getField": "a.b"}, {"$map": {"input": ["$$ROOT"],
    "in": 1}}],
)  # fmt: skip
def test_an_expression_over_the_whole_document_reads_all_of_it(expression):
    assert (
        needs(replace(NOTE, columns=(*NOTE.columns, ColumnSpec("x", "json", expression=expression))))["notes"].fields
        is None
    )


PUSHED = [
    ({}, {}),
    ({"a": 1}, {"a": {"$eq": 1}}),
    ({"a": "x", "b": True}, {"$and": [{"a": {"$eq": "x"}}, {"b": {"$eq": True}}]}),
    ({"a": {"$oid": str(OID)}}, {"a": {"$eq": OID}}),
    ({"a": {"$in": [1, "x"]}}, {"a": {"$in": [1, "x"]}}),
    ({"a": {"$gt": 1, "$lt": 5}}, {"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 5}}]}),
    ({"$or": [{"a": 1}, {"b": 2}]}, {"$or": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]}),
    ({"$and": [{"a": 1}, {"b": None}]}, {"a": {"$eq": 1}}),
    # What MongoDB might see otherwise is left to us.
    ({"a": None}, {}),
    ({"a": "\ufffd"}, {}),
    ({"a": {"$gt": "x"}}, {}),
    ({"a": {"$in": [1, None]}}, {}),
    ({"a": {"$ne": 1}}, {}),
    ({"a": {"$exists": True}}, {}),
    ({"a": 1.5}, {}),
    ({"a": {"x": 1}}, {}),
    ({"$or": [{"a": 1}, {"b": None}]}, {}),
    ({"$nor": [{"a": 1}]}, {}),
]


@pytest.mark.parametrize(("filter", "expected"), PUSHED)
def test_what_a_snapshot_leaves_to_mongodb(filter, expected):
    assert needs(replace(NOTE, filter=filter))["notes"].filter == expected


def test_tables_of_one_collection_share_its_reading():
    one, other = replace(NOTE, filter={"a": 1}), replace(NOTE, name="other", filter={"a": 2})
    assert needs(one, other)["notes"].filter == {"$or": [{"a": {"$eq": 1}}, {"a": {"$eq": 2}}]}
    assert needs(one, replace(one, name="same"))["notes"].filter == {"a": {"$eq": 1}}
    assert needs(one, replace(NOTE, name="all"))["notes"].filter == {}
