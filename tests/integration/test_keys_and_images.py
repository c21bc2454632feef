"""What the keys and the history of tables need of MongoDB: asked when published, checked, and shown by a preview."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bson.objectid import ObjectId
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from pymongo.database import Database

from changesource import conf
from changesource.exceptions import ConfigurationUnavailable, KeyNotUnique, MappingError, PostImagesMissing
from changesource.mapping.formats import read_specification
from changesource.mapping.questions import Answers, Questions
from changesource.models import MappingRevision
from changesource.services import startup
from changesource.services.configuration import import_specification
from changesource.services.inspection import inspector
from changesource.sources.mongodb.inspect import inspect
from changesource.store import mappings
from tests.conftest import MongoServer
from tests.harness.failpoints import failing

pytestmark = pytest.mark.django_db
OID = ObjectId("65f000000000000000000001")
SEAT: dict[str, Any] = {
    "seat": {
        "collection": "seats",
        "columns": {"place": {"type": "string", "path": "place"}, "holder": {"type": "string", "path": "holder"}},
        "primaryKey": ["place"],
        "idType": "objectId",
    }
}
MEMBER: dict[str, Any] = {
    "member": {
        "collection": "accounts",
        "columns": {
            "accountId": {"type": "string", "path": "_id"},
            "userId": {"type": "string", "path": "members.user"},
            "name": {"type": "string", "expression": {"$toUpper": "$members.name"}, "optional": True},
            "age": {"type": "number", "path": "members.age", "optional": True},
        },
        "primaryKey": ["accountId", "userId"],
        "pipeline": [{"$unwind": "$members"}],
        "filter": {"closed": {"$ne": True}},
    }
}


@pytest.fixture
def database(mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Database[Any]]:
    """The test's database, which the settings name."""
    monkeypatch.setenv("MONGODB_URI", mongodb.uri)
    monkeypatch.setenv("MONGODB_DATABASE", mongo.name)
    conf.settings.cache_clear()
    yield mongo
    conf.settings.cache_clear()


def published(tables: dict[str, Any]) -> dict[str, Any]:
    import_specification(read_specification(tables), "me", inspect=inspector())
    specification: dict[str, Any] = MappingRevision.objects.latest("number").specification
    return specification["tables"]


def has_images(database: Database[Any], name: str) -> bool:
    (found,) = database.list_collections(filter={"name": name})
    return bool(found["options"].get("changeStreamPreAndPostImages", {}).get("enabled"))


INDEXES = [
    ([("place", 1)], {"unique": True}, True),
    ([("place", -1)], {"unique": True, "sparse": True}, True),
    ([("place", 1)], {}, False),
    ([("place", 1), ("hall", 1)], {"unique": True}, False),
    ([("place", 1)], {"unique": True, "partialFilterExpression": {"hall": 1}}, False),
]


@pytest.mark.parametrize(("keys", "options", "is_unique"), INDEXES)
def test_a_key_of_other_fields_needs_their_unique_index(
    database: Database[Any], keys: list[Any], options: dict[str, Any], is_unique: bool
) -> None:
    database["seats"].insert_one({"_id": OID, "place": 7, "holder": "ann"})
    database["seats"].create_index(keys, **options)
    if is_unique:
        assert published(SEAT)["seat"]["columns"]["place"]["keyType"] == "number"
        assert has_images(database, "seats")
        return
    with pytest.raises(KeyNotUnique, match=r"ZS317 The key of table seat shows place of seats.*'place': 1}, {unique"):
        published(SEAT)
    assert not MappingRevision.objects.exists()
    assert not has_images(database, "seats")


def test_a_collection_with_ids_of_several_types_needs_one_to_be_declared(database: Database[Any]) -> None:
    tables = {
        "plain": {"collection": "plain", "columns": {"id": {"type": "string", "path": "_id"}}, "primaryKey": ["id"]}
    }
    database["plain"].insert_many([{"_id": 1}, {"_id": "1"}])
    with pytest.raises(MappingError, match=r"tables.plain.idType: the collection's _id has several BSON types"):
        published(tables)
    tables["plain"]["idType"] = "string"
    assert published(tables)["plain"]["idType"] == "string"


def test_a_part_of_the_key_may_be_what_is_unique(database: Database[Any]) -> None:
    wider = json.loads(json.dumps(SEAT))
    wider["seat"]["primaryKey"] = ["holder", "place"]
    database["seats"].create_index("place", unique=True)
    assert published(wider)["seat"]["primaryKey"] == ["holder", "place"]


def test_images_are_switched_on_where_a_table_needs_them(database: Database[Any]) -> None:
    database["accounts"].insert_one({"_id": OID})
    database["plain"].insert_one({"_id": OID})
    plain = {
        "plain": {"collection": "plain", "columns": {"id": {"type": "string", "path": "_id"}}, "primaryKey": ["id"]}
    }
    published({**MEMBER, **plain})
    assert (has_images(database, "accounts"), has_images(database, "plain")) == (True, False)


def test_a_table_that_cannot_have_images_is_refused(
    database: Database[Any], mongodb: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database["accounts"].insert_one({"_id": OID})
    with (
        failing(mongodb.client, ["collMod"], "alwaysOn", code=13),
        pytest.raises(PostImagesMissing, match=r"ZS315 .*-images of accounts: The MongoDB user lacks collMod on "),
    ):
        published(MEMBER)
    asked = {"accounts": Questions(history=True)}
    with pytest.raises(
        PostImagesMissing, match=r"POST_IMAGES is off. Set POST_IMAGES=auto, or run db.runCommand\({coll"
    ):
        inspect(mongodb.uri, database.name, asked, "off", switch=True)
    assert not MappingRevision.objects.exists()
    database.command({"collMod": "accounts", "changeStreamPreAndPostImages": {"enabled": True}})
    assert inspect(mongodb.uri, database.name, asked, "off", switch=True) == {"accounts": Answers("objectId")}


def test_the_check_tells_of_each_table_and_changes_nothing(database: Database[Any]) -> None:
    database["accounts"].insert_one({"_id": OID})
    mappings.save(read_specification({**SEAT, **MEMBER}), managed_by="")
    with pytest.raises(SystemCheckError, match=r"(?s)changesource.ZS317\).*table seat"):
        call_command("check", tags=["changesource"])
    assert not has_images(database, "accounts")
    database["seats"].create_index("place", unique=True)
    call_command("check", tags=["changesource"])


def test_each_table_that_lacks_an_index_is_told_by_the_check_and_at_the_start(
    database: Database[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    second = {"other": {**SEAT["seat"], "columns": {"holder": {"type": "string", "path": "holder"}}}}
    second["other"]["primaryKey"] = ["holder"]
    for field in ("place", "holder"):
        database["seats"].create_index(field, unique=True)
    published({**SEAT, **second})
    database["seats"].drop_indexes()
    with pytest.raises(SystemCheckError) as caught:
        call_command("check", tags=["changesource"])
    assert "table seat shows place" in str(caught.value)
    assert "table other shows holder" in str(caught.value)
    startup._check_keys()
    assert [record.table for record in caplog.records if record.message == "two documents may have one key"] == [
        "other",
        "seat",
    ]


def test_a_dry_run_refuses_what_the_import_refuses_and_switches_nothing_on(
    database: Database[Any], tmp_path: Path
) -> None:
    database["accounts"].insert_one({"_id": OID})
    file = tmp_path / "mappings.json"
    file.write_text(json.dumps(SEAT))
    with pytest.raises(CommandError, match=r"Nothing was changed\. ZS317"):
        call_command("importmappings", str(file), dry_run=True)
    file.write_text(json.dumps(MEMBER))
    call_command("importmappings", str(file), dry_run=True)
    assert not has_images(database, "accounts")
    assert not MappingRevision.objects.exists()


def test_without_mongodb_a_key_by_an_index_is_refused() -> None:
    with pytest.raises(
        ConfigurationUnavailable, match="The key of table seat needs a unique index, and MONGODB_URI is"
    ):
        import_specification(read_specification(SEAT), "me")


def test_a_preview_knows_the_types_that_publishing_finds(database: Database[Any]) -> None:
    database["seats"].insert_many(
        [{"_id": OID, "place": "a", "holder": "x"}, {"_id": "odd", "place": 7, "holder": "y"}]
    )
    database["seats"].create_index("place", unique=True)
    published(SEAT)
    assert "error   column place: the field is of type int, declared is string" in previewed("seat", "--id", "odd")


def previewed(*arguments: str) -> str:
    out = StringIO()
    call_command("previewmapping", *arguments, stdout=out)
    return out.getvalue()


def test_a_preview_shows_documents_beside_their_rows(database: Database[Any]) -> None:
    members = [{"user": "u1", "name": "Ann", "age": 5}, {"user": "u2", "age": "old"}, {"user": "u1"}, {"name": "x"}]
    database["accounts"].insert_one({"_id": OID, "members": members})
    import_specification(read_specification(MEMBER), "me")
    lines = previewed("member", "--id", str(OID)).splitlines()
    assert lines[0].startswith('document  {"_id": {"$oid": "65f000000000000000000001"}, "members": [{"user": "u1"')
    assert lines[1] == '  row     {"accountId":"65f000000000000000000001","userId":"u1","name":"ANN","age":5}'
    assert json.loads(lines[2].removeprefix("  frame   "))[1]["new"]["userId"] == "u1"
    assert lines[3] == '  row     {"accountId":"65f000000000000000000001","userId":"u2","name":"","age":null}'
    assert lines[5:] == [
        "  error   column age: a value of type string does not fit a number column (null is sent)",
        "  error   column userId: another row of the same document has this key (a row is left out)",
        "  error   column userId: the field is missing, a string key column takes objectId, string, number, uuid, date "
        "(a row is left out)",
    ]
    database["accounts"].update_one({"_id": OID}, {"$set": {"closed": True}})
    assert previewed("member").splitlines()[1:] == ["  no row  the filter or the pipeline leaves the document out"]
    # Nothing was done to what is served, or to MongoDB.
    assert not has_images(database, "accounts")


@pytest.mark.parametrize(("stored", "given"), [(5, "5"), ("5", "5"), ("a b", "a b"), (2.5, "2.5"), ("x", '"x"')])
def test_a_preview_finds_a_document_by_its_id(database: Database[Any], stored: object, given: str) -> None:
    database["plain"].insert_one({"_id": stored})
    tables = {
        "plain": {"collection": "plain", "columns": {"id": {"type": "string", "path": "_id"}}, "primaryKey": ["id"]}
    }
    import_specification(read_specification(tables), "me")
    assert json.loads(previewed("plain", "--id", given).splitlines()[1].removeprefix("  row     ")) == {
        "id": str(stored)
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "ZS110 tables.nothing: there is no such table"),
        (("member",), "The collection is empty."),
        (("member", "--id", "5"), "There is no document with the _id 5."),
        (("member", "--sample", "0"), "--sample is a number from 1 to 1000."),
    ],
)
def test_a_preview_says_what_is_missing(database: Database[Any], arguments: tuple[str, ...], words: str) -> None:
    import_specification(read_specification(MEMBER), "me")
    with pytest.raises(CommandError, match=words):
        previewed(*arguments)
