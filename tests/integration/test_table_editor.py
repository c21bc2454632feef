"""What the editor of a table asks and says: columns, previews, checks, conflicts; no page waits long for MongoDB."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pymongo import timeout
from pymongo.database import Database

from changesource import conf, sample_data
from changesource.admin import mappings as mappings_admin
from changesource.admin.mapping_forms import version_of
from changesource.exceptions import DraftChanged, MappingError
from changesource.mapping.formats import read_specification
from changesource.mapping.spec import ColumnSpec, Specification, TableSpec
from changesource.models import MappingRevision, TableMapping, Watermark
from changesource.services import configuration
from changesource.services.configuration import current, publish
from changesource.services.consequences import plan, resynced_rows
from changesource.services.findings import Finding, oplog_finding, table_findings
from changesource.sources.mongodb.looking import looking
from changesource.sources.mongodb.server import Oplog
from changesource.store import mappings
from devtools.secantusdb import SecantusDB
from tests.conftest import MongoServer
from tests.integration.test_admin import ADD, ID, LIST, form

pytestmark = pytest.mark.django_db
EDITOR = f"{LIST}editor/"
ROOMS = {"collection": "rooms", "name": ""}
PATIENCE = 10.0  # seconds: two for MongoDB, and some for a busy machine; by itself the driver would wait for 30


def configured(monkeypatch: pytest.MonkeyPatch, uri: str, database: str) -> None:
    monkeypatch.setenv("MONGODB_URI", uri)
    monkeypatch.setenv("MONGODB_DATABASE", database)
    conf.settings.cache_clear()


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    yield
    conf.settings.cache_clear()


@pytest.fixture
def database(mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch) -> Database[Any]:
    """The sample data, in the database that the settings name."""
    configured(monkeypatch, mongodb.uri, mongo.name)
    sample_data.load(mongo)
    return mongo


def asked(client: Client, what: str, data: dict[str, Any], pk: object = "") -> Any:
    answer = client.post(f"{EDITOR}{what}/?id={pk}", data)
    assert answer.status_code == 200
    return answer.json()


def columns_of(inferred: dict[str, Any]) -> list[dict[str, Any]]:
    """What the script would send for the proposed columns."""
    return [
        {
            "name": one["name"],
            "type": one["type"],
            "path": one["path"],
            **({"optional": "on"} if one["optional"] else {}),
        }
        for one in inferred["columns"]
    ]


def saved(client: Client, name: str = "room", **parts: Any) -> TableMapping:
    answer = client.post(ADD, form([ID], **{"name": name, "collection": "rooms", **parts}))
    assert answer.status_code == 302, answer.content.decode()
    return TableMapping.objects.get(name=name)


def url_of(mapping: TableMapping) -> str:
    return reverse("admin:changesource_tablemapping_change", args=(mapping.pk,))


def test_the_collections_that_exist_are_offered(admin_client: Client, database: Database[Any]) -> None:
    database["_zerosource"].insert_one({})
    found = admin_client.get(f"{EDITOR}collections/").json()
    assert found == {"collections": ["accounts", "messages", "rooms", "users"], "problem": ""}


def test_inferred_columns_can_be_previewed_saved_and_published(admin_client: Client, database: Database[Any]) -> None:
    inferred = asked(admin_client, "infer", form([], **ROOMS))
    assert (inferred["name"], inferred["primaryKey"], inferred["idType"]) == ("rooms", ["id"], "string")
    assert "tells kinds of documents apart" in inferred["html"]
    title = next(one for one in inferred["columns"] if one["name"] == "title")
    assert (title["optional"], title["seen"]) == (True, "string 8, missing 4")
    data = form(columns_of(inferred), collection="rooms", name="rooms", id_type="string")
    drafted = asked(admin_client, "draft", data)
    assert drafted["errors"] == {}
    assert "title: string().optional()" in drafted["typescript"]
    html = asked(admin_client, "preview", {**data, "document_id": "general"})["html"]
    assert "All about general" in html
    assert (
        "There is no document with the _id nothing"
        in asked(admin_client, "preview", {**data, "document_id": "nothing"})["html"]
    )
    assert not TableMapping.objects.exists()
    answer = admin_client.post(ADD, {**data, "_publish": ""})
    assert answer.headers["Location"] == f"{LIST}publish/"
    page = admin_client.get(f"{LIST}publish/")
    assert "this is the first revision" in page.content.decode()
    admin_client.post(f"{LIST}publish/", {"seen": page.context["plan"].draft_hash})
    assert MappingRevision.objects.count() == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"$regularExpression": {"pattern": "", "options": ""}}',
        '{"$regularExpression": {"pattern": "a\\u0000b", "options": ""}}',
        '{"$numberDecimal": "x"}',
        '{"a\\u0000b": 1}',
        '{"$where": "sleep(9)"}',
        '["general"]',
        "9" * 26,
        "[" * 50_000,
    ],
    ids=range(8),
)
def test_what_can_be_no_id_finds_no_document(admin_client: Client, database: Database[Any], text: str) -> None:
    """A regular expression would match the ids of all."""
    html = asked(admin_client, "preview", {**form([ID], collection="rooms"), "document_id": text})["html"]
    assert "There is no document with the _id" in html


def test_a_table_of_many_columns_can_be_edited(admin_client: Client, database: Database[Any]) -> None:
    many = [ID, *({"name": f"c{n}", "type": "string", "path": f"c{n}", "optional": "on"} for n in range(300))]
    assert asked(admin_client, "draft", form(many, collection="rooms"))["errors"] == {}


def test_only_what_passes_the_filter_is_inferred(admin_client: Client, database: Database[Any]) -> None:
    inferred = asked(admin_client, "infer", form([], filter='{"type": "channel"}', **ROOMS))
    assert not any(one["optional"] for one in inferred["columns"])
    inferred = asked(admin_client, "infer", form([], filter='{"title": {"$regex": "^G"}}', **ROOMS))
    assert next(one for one in inferred["columns"] if one["name"] == "title")["seen"] == "string 1"
    unwound = form([], collection="accounts", name="", pipeline='[{"$unwind": "$members"}]')
    assert asked(admin_client, "infer", unwound)["primaryKey"] == ["id", "membersUserId"]
    nothing = asked(admin_client, "infer", form([], filter='{"type": "none"}', **ROOMS))
    assert nothing["columns"] == []
    assert "No document passes" in nothing["html"]


def test_a_drifting_field_is_told(admin_client: Client, database: Database[Any]) -> None:
    database["drifting"].insert_many([{"_id": n, "a": "x" if n % 10 < 7 else n} for n in range(500)])
    inferred = asked(admin_client, "infer", form([], collection="drifting", name=""))
    drifting = inferred["columns"][1]
    assert (drifting["type"], drifting["optional"], drifting["seen"]) == ("string", False, "string 350, int 150")
    assert "Mixed: string in 70 %, int in 30 %." in inferred["html"]
    html = asked(admin_client, "preview", {**form(columns_of(inferred), collection="drifting"), "document_id": "8"})
    assert "<code>8</code>" in html["html"]


@pytest.mark.parametrize(
    ("parts", "columns", "field", "words"),
    [
        ({"filter": '{"a": 1,\n "b": }'}, [ID], "filter", "Line 2, column 7: Expecting value"),
        ({"filter": '{"a": 1, "a": 2}'}, [ID], "filter", "the key 'a' is given twice"),
        ({"filter": '{"x": 1,\n  "a": {"$near": 1}}'}, [ID], "filter", "Line 2, column 9 (a.$near): operator $near"),
        ({"pipeline": '[\n{"$group": {}}]'}, [ID], "pipeline", "Line 2, column 2 (0.$group): the stage $group"),
        (
            {},
            [ID, {"name": "b", "type": "string", "expression": '{"$toLower": {"$no": 1}}'}],
            "columns-1-expression",
            "Line 1, column 15 ($toLower.$no)",
        ),
        ({}, [{**ID, "name": "a b"}], "columns-0-name", "letters, digits"),
        ({"name": "a b"}, [ID], "name", "a table's name is letters, digits"),
        ({}, [ID, ID], "columns-1-name", "Another column has this name."),
        ({"collection": ""}, [ID], "collection", "This field is required."),
    ],
)
def test_what_is_wrong_is_told_at_its_place(
    admin_client: Client, parts: dict[str, Any], columns: list[dict[str, Any]], field: str, words: str
) -> None:
    drafted = asked(admin_client, "draft", form(columns, **parts))
    assert words in " ".join(drafted["errors"][field])
    assert drafted["typescript"] == ""
    if field in ("filter", "pipeline", "collection"):
        assert words in " ".join(asked(admin_client, "infer", form([], **parts))["errors"][field])
    assert words in " ".join(asked(admin_client, "preview", form(columns, **parts))["errors"][field])


@pytest.mark.parametrize(
    ("part", "typed", "words"),
    [
        ("filter", "[]", "must be an object"),
        ("filter", "true", "must be an object"),
        ("filter", '{"a": {"$numberLong": "99999999999999999999"}}', "beyond 64 bits"),
        ("pipeline", "true", "must be a list of stages"),
    ],
)
def test_nothing_is_inferred_by_what_is_no_filter(
    admin_client: Client, database: Database[Any], part: str, typed: str, words: str
) -> None:
    answer = admin_client.post(f"{EDITOR}infer/", form([], **ROOMS, **{part: typed}))
    assert answer.status_code == 200
    assert words in answer.json()["errors"][part][0]


def test_an_id_that_is_no_number_of_a_table_is_none(admin_client: Client) -> None:
    for text, status in (("9" * 5000, 404), ("9" * 18, 404), ("x", 200)):
        assert admin_client.post(f"{EDITOR}draft/?id={text}", form([ID])).status_code == status, text[:20]


def test_row_errors_are_previewed(admin_client: Client, database: Database[Any]) -> None:
    data = form([ID, {"name": "title", "type": "number", "path": "title"}], collection="rooms")
    html = asked(admin_client, "preview", {**data, "document_id": "general"})["html"]
    assert "a value of type string does not fit a number column" in html
    assert "The row is left out" in html


def edited(mapping: TableMapping, **parts: Any) -> dict[str, Any]:
    """What a page of the mapping, opened now, would send with these changes."""
    columns = [{"id": row.pk, "name": row.name, "type": row.type, "path": row.path} for row in mapping.columns.all()]
    start = {"columns-INITIAL_FORMS": len(columns), "version": version_of(mapping)}
    return form(columns, **{"name": mapping.name, "collection": mapping.collection, **start, **parts})


def test_the_second_of_two_operators_is_told(admin_client: Client) -> None:
    mapping = saved(admin_client)
    mine, theirs = edited(mapping, filter='{"a": 1}'), edited(mapping, description="Theirs")
    User.objects.create_superuser("other", password="for-tests-only")
    other = Client()
    assert other.login(username="other", password="for-tests-only")
    assert other.post(url_of(mapping), theirs).status_code == 302
    answer = admin_client.post(url_of(mapping), mine)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "other saved this table while you edited it" in page
    assert "&quot;Theirs&quot;" in page
    mapping.refresh_from_db()
    assert (mapping.filter, mapping.description) == ({}, "Theirs")
    # What was typed is still there, and may be saved all the same, knowingly.
    version = answer.context["adminform"].form.conflict.version
    assert version == version_of(mapping)
    assert admin_client.post(url_of(mapping), {**mine, "_overwrite": version}).status_code == 302
    mapping.refresh_from_db()
    assert (mapping.filter, mapping.description) == ({"a": 1}, "")


def test_columns_that_were_saved_meanwhile_are_not_overwritten_either(admin_client: Client) -> None:
    """An import makes all columns anew, so that the rows that the page began with are gone."""
    mapping = saved(admin_client)
    mine = edited(mapping, description="Mine")
    columns = (ColumnSpec("id", "string", "_id"), ColumnSpec("more", "json", "more", optional=True))
    mappings.save(Specification((replace(TableSpec("room", "rooms", columns, ("id",))),)), managed_by="")
    answer = admin_client.post(url_of(mapping), mine)
    assert "columns.more" in answer.content.decode()
    assert [row.name for row in mapping.columns.all()] == ["id", "more"]
    version = answer.context["adminform"].form.conflict.version
    assert admin_client.post(url_of(mapping), {**mine, "_overwrite": version}).status_code == 302
    assert [row.name for row in mapping.columns.all()] == ["id"]
    # A page that does not say what it began with overwrites nothing; one that changes nothing is no conflict.
    assert admin_client.post(url_of(mapping), edited(mapping, version="", filter='{"b": 1}')).status_code == 200
    assert admin_client.post(url_of(mapping), edited(mapping, version="", description="Mine")).status_code == 302


def test_two_columns_may_swap_names_and_the_history_says_what_changed(admin_client: Client) -> None:
    mapping = saved(admin_client)
    two = [{**ID}, {"name": "a", "type": "string", "path": "x"}, {"name": "b", "type": "string", "path": "y"}]
    start = {"columns-INITIAL_FORMS": 0, "version": version_of(mapping), "collection": "rooms", "name": "room"}
    first = mapping.columns.get().pk
    assert admin_client.post(url_of(mapping), form([{**ID, "id": first}, *two[1:]], **start)).status_code == 302
    data = edited(mapping)
    data["columns-1-name"], data["columns-2-name"] = "b", "a"
    data["columns-1-position"], data["columns-2-position"] = 2, 1
    assert admin_client.post(url_of(mapping), data).status_code == 302
    assert [(row.name, row.path, row.position) for row in mapping.columns.all()] == [
        ("id", "_id", 0),
        ("a", "y", 1),
        ("b", "x", 2),
    ]
    swapped = 'room: columns.a.path "x" -> "y"; columns.b.path "y" -> "x".'
    assert LogEntry.objects.latest("action_time").get_change_message() == swapped


def test_what_was_looked_at_is_what_is_published(admin_client: Client) -> None:
    mapping = saved(admin_client, id_type="string")
    seen = plan().draft_hash
    TableMapping.objects.filter(pk=mapping.pk).update(description="changed by another")
    page = admin_client.post(f"{LIST}publish/", {"seen": seen, "note": "kept"})
    assert "Nothing was published. ZS111" in page.content.decode()
    assert 'value="kept"' in page.content.decode()
    assert current() is None
    with pytest.raises(DraftChanged):
        publish("test", seen=seen)
    admin_client.post(f"{LIST}publish/", {"seen": page.context["plan"].draft_hash})
    assert current() is not None


def test_it_is_said_how_much_replicas_read_again(admin_client: Client, database: Database[Any]) -> None:
    spec = read_specification(json.loads(sample_data.MAPPINGS_FILE.read_text(encoding="utf-8")))
    mappings.save(spec, managed_by="")
    publish("test")
    Watermark.objects.create(kind="replica", app_id="a", publications=["accounts"], state="streaming")
    Watermark.objects.create(kind="replica", app_id="b", publications=["chat"])
    TableMapping.objects.filter(name="accountMember").update(filter={"plan": "team"})
    planned = plan()
    assert [(one.kind, one.name, one.change) for one in planned.changes] == [("table", "accountMember", "changed")]
    # 5 accounts, 4 members in each of the two that are on the plan, and 20 users.
    assert resynced_rows(conf.settings(), planned) == 5 + 8 + 20
    page = admin_client.get(f"{LIST}publish/").content.decode()
    assert "1 replica will resync about 33 rows:" in page
    assert "a/0 (streaming)" in page
    out = StringIO()
    call_command("publishmappings", "--dry-run", stdout=out)
    assert out.getvalue().splitlines() == [
        "changed accountMember",
        '  filter {} -> {"plan": "team"}',
        "Publishing the draft makes these replicas sync anew: a/0 (streaming).",
        "1 replicas will read about 33 rows.",
    ]
    assert MappingRevision.objects.count() == 1
    call_command("publishmappings", "--note", "why", stdout=out)
    assert "published as revision" in out.getvalue()
    assert MappingRevision.objects.first().note == "why"  # type: ignore[union-attr]


def test_a_managed_table_is_taken_over(admin_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = replace(conf.settings(), table_mappings_file=tmp_path / "m.json")
    monkeypatch.setattr(mappings_admin, "settings", lambda: chosen)
    mapping, second = saved(admin_client), saved(admin_client, "second")
    TableMapping.objects.update(managed_by="http://h/m.json")
    page = admin_client.get(url_of(mapping)).content.decode()
    assert "This table is managed." in page
    assert "const roomTable" in page
    takeover = f"{LIST}{mapping.pk}/takeover/"
    assert "Remove it from there too" in admin_client.get(takeover).content.decode()
    admin_client.post(takeover)
    mapping.refresh_from_db()
    assert mapping.managed_by == ""
    assert 'name="_continue"' in admin_client.get(url_of(mapping)).content.decode()
    assert "Taken over from http://h/m.json" in LogEntry.objects.latest("action_time").get_change_message()
    out = StringIO()
    with pytest.raises(CommandError, match=r"ZS110 tables\.room: there is no managed table"):
        call_command("takeovermappings", "second", "room", stdout=out)
    second.refresh_from_db()
    assert second.managed_by
    call_command("takeovermappings", "second", stdout=out)
    assert out.getvalue() == "second was taken over; remove it from http://h/m.json\n"
    # Where the file gives it still, what is edited here stays.
    assert chosen.table_mappings_file is not None
    chosen.table_mappings_file.write_text(
        '{"tables": {"room": {"collection": "others", "columns": {}, "primaryKey": []}}}'
    )
    with pytest.raises(MappingError, match="a table of this name is made in the admin"):
        configuration.load_managed(chosen)
    assert TableMapping.objects.get(name="room").collection == "rooms"


def test_the_command_proposes_what_the_import_takes(database: Database[Any], tmp_path: Path) -> None:
    out, err = StringIO(), StringIO()
    call_command("infermapping", "rooms", "--table", "chat", "--filter", '{"type": "chat"}', stdout=out, stderr=err)
    assert "members: array 4." in err.getvalue()
    file = tmp_path / "m.json"
    file.write_text(out.getvalue(), encoding="utf-8")
    call_command("importmappings", str(file), stdout=StringIO())
    table = TableMapping.objects.get()
    assert (table.name, table.filter, table.id_type) == ("chat", {"type": "chat"}, "string")
    err = StringIO()
    call_command("infermapping", "rooms", stdout=StringIO(), stderr=err)
    assert "type tells kinds of documents apart: " in err.getvalue()
    for arguments, words in (
        (("nothing",), "There is no collection nothing in the database "),
        (("rooms", "--filter", '{"type": "none"}'), "No document of rooms passes"),
        (("rooms", "--filter", "[]"), "must be an object"),
        (("rooms", "--filter", '{"a": {"$near": 1}}'), r"filter\.a\.\$near"),
        (("rooms", "--pipeline", "{}"), "list of stages"),
        (("rooms", "--sample", "0"), "--sample is a number"),
    ):
        with pytest.raises(CommandError, match=words):
            call_command("infermapping", *arguments, stdout=StringIO(), stderr=StringIO())


def found(spec: TableSpec) -> dict[str, Finding]:
    return {one.about: one for one in table_findings(conf.settings(), spec)}


def test_a_table_that_is_as_it_must_be_passes_all_checks(database: Database[Any]) -> None:
    database["rooms"].create_index([("type", 1), ("_id", 1)])
    spec = TableSpec("chat", "rooms", (ColumnSpec("id", "string", "_id"),), ("id",), filter={"type": "chat"})
    findings = found(spec)
    assert {about: one.level for about, one in findings.items()} == {
        "collection": "ok",
        "images": "note",
        "filter": "ok",
        "key": "ok",
        "row errors": "ok",
        "oplog": "ok",
    }
    assert "An index serves the filter (type)" in findings["filter"].message
    assert "about 12 documents" in findings["collection"].message


def test_each_check_tells_what_is_wrong(database: Database[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    key, title = ColumnSpec("id", "string", "_id"), ColumnSpec("title", "number", "title", optional=True)
    missing = found(TableSpec("a", "nothing", (key,), ("id",)))
    assert (missing["collection"].level, missing["collection"].code) == ("warning", "W002")
    monkeypatch.setattr("changesource.services.findings.SMALL", 1)
    odd = found(TableSpec("a", "rooms", (key, title), ("id",), filter={"type": {"$in": ["chat", "group"]}}))
    assert odd["filter"].code == "W004"
    assert odd["filter"].remedy == 'Create one: db.rooms.createIndex({"type": 1, "_id": 1}).'
    assert odd["row errors"].code == "W005"
    assert "4 of 8 sampled documents (50.0 %)" in odd["row errors"].message
    unwound = TableSpec(
        "m",
        "accounts",
        (key, ColumnSpec("user", "string", "members.userId")),
        ("id", "user"),
        pipeline=({"$unwind": "$members"},),
    )
    images = found(unwound)["images"]
    assert (images.level, images.code, images.mends) == ("warning", "W003", "images")
    # Without a declared type, a number and the same digits as text give one key.
    database["meeting"].insert_many([{"_id": 1}, {"_id": "1"}])
    meeting = found(TableSpec("m", "meeting", (key,), ("id",)))
    assert (meeting["key"].level, meeting["key"].code) == ("error", "E001")
    by_place = TableSpec("s", "rooms", (ColumnSpec("title", "string", "title"),), ("title",))
    assert found(by_place)["publishing"].code == "ZS317"
    chosen = conf.settings()
    told = [oplog_finding(chosen, oplog) for oplog in (None, Oplog(0, 60, 0.1), Oplog(0, 60, 1.0), Oplog(0, 7200, 1.0))]
    assert [one.level for one in told] == ["note", "ok", "warning", "note"]
    assert told[2].code == "W006"
    assert oplog_finding(chosen, Oplog(0, 900_000, 1.0)).level == "ok"


def test_the_command_says_what_the_page_says(admin_client: Client, database: Database[Any]) -> None:
    mapping = saved(admin_client, collection="nothing")
    page = admin_client.get(f"{LIST}{mapping.pk}/checks/").content.decode()
    words = "The collection nothing does not exist."
    assert words in page
    assert "W002" in page
    err = StringIO()
    call_command("check", tags=["changesource"], stderr=err)
    assert words in err.getvalue()
    assert "changesource.W002" in err.getvalue()


def test_images_are_switched_on_by_a_button(admin_client: Client, database: Database[Any]) -> None:
    mapping = saved(admin_client)
    switch = f"{LIST}{mapping.pk}/images/"
    assert switch in admin_client.get(f"{LIST}{mapping.pk}/checks/").content.decode()
    page = admin_client.post(switch, follow=True).content.decode()
    assert "MongoDB keeps pre- and post-images of rooms from now on." in page
    assert switch not in admin_client.get(f"{LIST}{mapping.pk}/checks/").content.decode()
    TableMapping.objects.update(collection="gone")
    assert "Images were not switched on." in admin_client.post(switch, follow=True).content.decode()


def test_a_viewer_sees_and_saves_nothing(admin_client: Client, client: Client, database: Database[Any]) -> None:
    mapping = saved(admin_client)
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(viewer)
    page = client.get(url_of(mapping)).content.decode()
    assert "<code" in page
    for name in ("_continue", "_publish"):
        assert f'name="{name}"' not in page
    assert "Take over" not in page
    assert client.get(f"{LIST}{mapping.pk}/checks/").status_code == 200
    assert client.post(url_of(mapping), edited(mapping, description="x")).status_code == 403
    assert client.get(f"{EDITOR}collections/").status_code == 403
    for what in ("infer", "preview", "draft"):
        assert client.post(f"{EDITOR}{what}/", form([ID])).status_code == 403
        assert admin_client.get(f"{EDITOR}{what}/").status_code == 405
    for what in ("images", "takeover"):
        assert client.post(f"{LIST}{mapping.pk}/{what}/").status_code == 403
    assert admin_client.get(f"{LIST}{mapping.pk + 9}/checks/").status_code == 404


def test_who_may_not_publish_is_not_offered_it(admin_client: Client, client: Client) -> None:
    mapping = saved(admin_client)
    editor = User.objects.create_user("editor", is_staff=True)
    editor.user_permissions.set(Permission.objects.filter(codename__endswith="_tablemapping"))
    client.force_login(editor)
    page = client.get(url_of(mapping)).content.decode()
    assert 'name="_continue"' in page
    assert 'name="_publish"' not in page
    assert 'name="_publish"' in admin_client.get(url_of(mapping)).content.decode()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def test_no_page_waits_for_a_mongodb_that_hangs(
    admin_client: Client, secantusdb: Callable[..., SecantusDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says so after two seconds, and shows the rest; all but the first are hurried."""
    server = secantusdb()
    configured(monkeypatch, server.uri, "own")
    mapping = saved(admin_client, id_type="string")
    publish("test")
    Watermark.objects.create(kind="replica", app_id="a")
    TableMapping.objects.update(filter={"a": 1})
    server.pause()
    try:
        with within(PATIENCE):
            page = admin_client.get(f"{LIST}{mapping.pk}/checks/").content.decode()
        assert "ZS300" in page
        monkeypatch.setattr("changesource.sources.mongodb.looking.timeout", lambda seconds: timeout(seconds / 4))
        with within(PATIENCE):
            assert "ZS300" in admin_client.get(f"{EDITOR}collections/").json()["problem"]
        with within(PATIENCE):
            assert "ZS300" in asked(admin_client, "infer", form([], **ROOMS))["errors"][""][0]
        with within(PATIENCE):
            assert "ZS300" in asked(admin_client, "preview", form([ID]))["html"]
        with within(PATIENCE):
            page = admin_client.get(f"{LIST}publish/").content.decode()
        assert "How many rows that is cannot be told: ZS300" in page
        assert "a/0" in page
        with within(PATIENCE):
            admin_client.post(f"{LIST}{mapping.pk}/images/")
        with within(PATIENCE):
            admin_client.post(f"{LIST}publish/")
        # Not at all for the form itself.
        monkeypatch.setattr("changesource.sources.mongodb.looking.timeout", lambda seconds: timeout(seconds * 10))
        with within(PATIENCE):
            assert admin_client.get(url_of(mapping)).status_code == 200
    finally:
        server.resume()


def test_the_number_of_queries_does_not_grow(admin_client: Client) -> None:
    def queries(url: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as taken:
            assert admin_client.get(url).status_code == 200
        return len(taken)

    columns = [ID, *({"name": f"c{n}", "type": "string", "path": f"c{n}"} for n in range(3))]
    admin_client.post(ADD, form(columns, name="t0"))
    mapping = TableMapping.objects.get()
    pages = (LIST, url_of(mapping), f"{LIST}publish/")
    before = [queries(page) for page in pages]
    more = [ID, *({"name": f"c{n}", "type": "string", "path": f"c{n}"} for n in range(30))]
    admin_client.post(url_of(mapping), form(more, name="t0", version=version_of(mapping)))
    for number in range(1, 8):
        admin_client.post(ADD, form(columns, name=f"t{number}"))
    assert [queries(page) for page in pages] == before


def test_a_sample_is_drawn_by_the_filter_and_each_document_once(database: Database[Any], mongodb: MongoServer) -> None:
    database["many"].insert_many([{"_id": ObjectId(), "n": n} for n in range(400)])
    with looking(mongodb.uri, database.name) as look:
        assert len(look.sample("many", 1000)) == 400
        assert {document["n"] for document in look.sample("many", 1000, {"n": {"$lt": 5}})} == set(range(5))
        assert len(look.sample("many", 10)) == 10
        assert look.sample("nothing", 10) == []
        assert look.count("many") == 400
        oplog = look.oplog()
    assert oplog is not None
    assert oplog.filled < 0.5
