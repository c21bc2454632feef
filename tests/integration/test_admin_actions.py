"""What operators do in the admin beside editing, and by commands: the same rules, and a history of it."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pymongo.database import Database

from changesource import conf
from changesource.admin import files, state
from changesource.exceptions import DraftChanged, MappingError, SourceUnavailable
from changesource.management.commands import retryrowerrors
from changesource.mapping.formats import read_specification, write_specification
from changesource.mapping.typescript import zero_schema
from changesource.models import MappingRevision, Publication, RowError, TableMapping, Watermark
from changesource.services import configuration, revisions, switching
from changesource.services.retrying import Retried, retry
from changesource.services.revisions import restore, restoring
from changesource.store import row_errors, watermarks
from changesource.store.mappings import read_draft
from tests.conftest import MongoServer
from tests.harness.desk import ADMIN, chosen, confirmed, file, mapped, scene
from tests.harness.desk import revisions as numbers

pytestmark = pytest.mark.django_db

IMPORT = f"{ADMIN}/tablemapping/import/"


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def history(**about: Any) -> list[tuple[str, int, str]]:
    """The admin's history of what was done just now: object, flag, words; the oldest first."""
    rows = LogEntry.objects.filter(**about).order_by("pk")
    return [(row.object_repr, row.action_flag, row.get_change_message()) for row in rows]


def enabled() -> list[str]:
    return [table.name for table in read_draft().tables if table.enabled]


def test_tables_are_switched_in_the_draft(admin_client: Client) -> None:
    scene()
    tables = list(TableMapping.objects.all())
    assert "2 disabled in the draft" in chosen(admin_client, "tablemapping", "disable", *tables)
    assert "1 enabled in the draft" in chosen(admin_client, "tablemapping", "enable", tables[0])
    assert "0 enabled in the draft" in chosen(admin_client, "tablemapping", "enable", tables[0])
    assert enabled() == ["message"]
    assert history() == [
        ("message", CHANGE, "Disabled."),
        ("room", CHANGE, "Disabled."),
        ("message", CHANGE, "Enabled."),
    ]
    assert run("enabletables", "room", "message") == "enabled in the draft: room"
    assert run("enabletables", "room") == "all were enabled already"
    assert run("disabletables", "message") == "disabled in the draft: message"
    assert enabled() == ["room"]
    assert len(numbers()) == 2


def test_what_cannot_be_switched_is_refused_as_a_whole(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene()
    run("disabletables", "message", "room")
    TableMapping.objects.filter(name="room").update(primary_key=["none"])
    page = chosen(admin_client, "tablemapping", "enable", *TableMapping.objects.all())
    assert "Nothing was enabled. ZS110 tables.room.primaryKey: there is no column none" in page
    with pytest.raises(CommandError, match="there is no such table"):
        run("enabletables", "message", "nothing")
    TableMapping.objects.filter(name="message").update(managed_by="http://h/m.json")
    managed = replace(conf.settings(), table_mappings_file=tmp_path / "m.json")
    monkeypatch.setattr(switching, "settings", lambda: managed)
    with pytest.raises(CommandError, match=r"tables\.message: is managed"):
        run("enabletables", "message")
    assert enabled() == []


def test_replicas_are_resynced_and_forgotten_by_commands() -> None:
    watermarks.note_progress("zero", 1, watermarks.Progress("streaming"))
    for command in ("resyncreplica", "forgetreplica"):
        with pytest.raises(CommandError, match="There is no replica zero/0"):
            run(command, "zero")
    assert run("resyncreplica", "zero", "--shard", "1") == "zero/1 is told to sync anew."
    assert watermarks.resyncs_wanted().keys() == {("zero", 1)}
    with pytest.raises(CommandError, match="is connected"):
        run("forgetreplica", "zero", "--shard", "1")
    watermarks.note_progress("zero", 1, watermarks.Progress("disconnected"))
    assert run("forgetreplica", "zero", "--shard", "1") == "zero/1 was forgotten."
    assert not Watermark.objects.exists()


# Files.


def test_files_are_downloaded(admin_client: Client) -> None:
    page = admin_client.get(f"{ADMIN}/tablemapping/schema/typescript/", follow=True).content.decode()
    assert "Nothing has been published yet" in page
    scene()
    export = admin_client.get(f"{ADMIN}/tablemapping/export/")
    assert export.headers["Content-Disposition"] == 'attachment; filename="mappings.json"'
    assert export.json() == json.loads(run("exportmappings"))
    for form, name in (("typescript", "schema.ts"), ("json", "schema.json")):
        answer = admin_client.get(f"{ADMIN}/tablemapping/schema/{form}/")
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.content.decode().strip() == run("exportschema", "--format", form)
    assert admin_client.get(f"{ADMIN}/tablemapping/schema/xml/").status_code == 404
    links = admin_client.get(f"{ADMIN}/tablemapping/").content.decode()
    assert reverse("admin:changesource_schema", args=("typescript",)) in links


def test_an_import_says_what_it_does_and_does_it_once_confirmed(admin_client: Client) -> None:
    scene()
    watermarks.note_progress("zero", 0, watermarks.Progress("streaming"))
    data = {
        "tables": {"message": mapped("message", filter={"a": 1}), "room": mapped("room"), "new": mapped("new")},
        "publications": {"chat": ["message", "new"]},
    }
    asked = admin_client.post(IMPORT, {"mappings": file(data)})
    page = asked.content.decode()
    for words in ("Makes: new.", "Changes: message, room, publication chat.", "sync anew: zero/0 (streaming)"):
        assert words in page
    assert len(numbers()) == 2
    assert "Imported and published as revision" in confirmed(admin_client, IMPORT, {"mappings": file(data)})
    revision = MappingRevision.objects.order_by("-number")[0]
    assert (revision.created_by, revision.note) == ("admin", "Imported from mappings.json")
    assert read_draft().publications == {"chat": ("message", "new")}
    words = "Imported from mappings.json."
    assert history() == [
        ("new", ADDITION, words),
        ("message", CHANGE, words),
        ("room", CHANGE, words),
        ("chat", CHANGE, words),
        (str(revision), ADDITION, words),
    ]


def test_a_schema_completes_what_is_imported(admin_client: Client) -> None:
    schema = {"note": {"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}}
    upload = {"mappings": file({"note": {"collection": "notes"}}), "schema": file(schema, "schema.json")}
    assert "Imported and published" in confirmed(admin_client, IMPORT, upload)
    assert [table.collection for table in read_draft().tables] == ["notes"]


@pytest.mark.parametrize(
    ("upload", "words"),
    [
        (b"{", "ZS110 mappings.json: is not JSON"),
        (b"\xff", "The file is no UTF-8"),
        (b" " * (files.MAX_BYTES + 1), "larger than"),
        ({"a": mapped("a"), "b": mapped("b", colour=1)}, "ZS110 tables.b.colour: is not a known key"),
        ({"a": mapped("a"), "b": mapped("b", filter={"$near": 1})}, "ZS110 tables.b.filter"),
    ],
)
def test_a_wrong_file_is_told_of_at_its_place_and_changes_nothing(
    admin_client: Client, upload: object, words: str
) -> None:
    page = admin_client.post(IMPORT, {"mappings": file(upload)})
    assert words in page.content.decode()
    assert "confirmed" not in page.context
    assert not TableMapping.objects.exists()


def test_an_import_is_not_confirmed_on_another_draft(admin_client: Client) -> None:
    scene()
    asked = admin_client.post(IMPORT, {"mappings": file({"new": mapped("new")})}).context["hidden"]
    TableMapping.objects.filter(name="room").update(collection="elsewhere")
    page = admin_client.post(IMPORT, {**dict(asked), "confirmed": "yes"}, follow=True).content.decode()
    assert "Nothing was changed. ZS111" in page
    assert not TableMapping.objects.filter(name="new").exists()


def test_managed_tables_are_loaded_now(admin_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = f"{ADMIN}/tablemapping/load/"
    assert "No file and no URL is set" in confirmed(admin_client, load, {})
    source = tmp_path / "m.json"
    managed = replace(conf.settings(), table_mappings_file=source)
    for module in (files, configuration):
        monkeypatch.setattr(module, "settings", lambda: managed)
    source.write_text(json.dumps({"note": mapped("note")}))
    assert str(source) in admin_client.post(load).content.decode()
    assert not numbers()
    assert "Loaded and served as revision" in confirmed(admin_client, load, {})
    assert "Nothing has changed there" in confirmed(admin_client, load, {})
    source.write_text("{")
    assert "Nothing was changed. ZS110" in confirmed(admin_client, load, {})
    assert [entry[1:] for entry in history()] == [(ADDITION, f"Loaded from {source}.")]
    assert "Load from file or URL" in admin_client.get(f"{ADMIN}/tablemapping/").content.decode()


# Revisions.


def test_revisions_are_compared(admin_client: Client) -> None:
    scene()
    first, second = numbers()
    page = chosen(admin_client, "mappingrevision", "compare", *MappingRevision.objects.all())
    for words in ("message", "filter", "<del>{}</del>", "<ins>{&quot;deleted&quot;: false}</ins>"):
        assert words in page
    said = 'changed message\n  filter {} -> {"deleted": false}'
    assert run("comparerevisions", str(first), str(second)) == said
    assert run("comparerevisions", str(second)) == 'changed room\n  description "" -> "Not published yet"'
    assert run("comparerevisions", str(second), str(second)) == "nothing differs"
    compare = f"{ADMIN}/mappingrevision/compare/"
    assert "Not published yet" in admin_client.get(compare, {"old": second, "new": "draft"}).content.decode()
    assert "there is no revision 999" in admin_client.get(compare, {"old": 999}).content.decode()
    assert "named by its number" in admin_client.get(compare, {"old": "x"}).content.decode()
    page = chosen(admin_client, "mappingrevision", "compare", MappingRevision.objects.all()[0])
    assert "Select two revisions" in page
    with pytest.raises(CommandError, match="there is no revision 999"):
        run("comparerevisions", "999")


def test_a_draft_that_is_wrong_is_compared_all_the_same() -> None:
    scene()
    TableMapping.objects.filter(name="room").update(primary_key=["none"])
    assert 'primaryKey ["id"] -> ["none"]' in run("comparerevisions", str(numbers()[1]))


def test_nothing_to_compare(admin_client: Client) -> None:
    assert "There is nothing to compare" in admin_client.get(f"{ADMIN}/mappingrevision/compare/").content.decode()


def test_an_old_revision_becomes_the_draft_and_is_served_once_published(admin_client: Client) -> None:
    scene()
    first, _ = numbers()
    old = MappingRevision.objects.get(number=first).specification
    run("importmappings", str(_written({"later": mapped("later")})))
    Publication.objects.create(name="later").tables.set(TableMapping.objects.filter(name="later"))
    url = f"{ADMIN}/mappingrevision/{first}/restore/"
    asked = admin_client.get(url).content.decode()
    for words in ("Not published yet", "publication later", "removed", "enabled"):
        assert words in asked
    assert len(read_draft().publications) == 2
    assert f"The draft is as revision {first} was" in confirmed(admin_client, url, {})
    assert enabled() == ["message", "room"]
    assert not TableMapping.objects.get(name="later").enabled
    assert len(numbers()) == 3
    run("publishmappings")
    assert MappingRevision.objects.order_by("-number")[0].specification == old
    words = f"Restored as in revision {first}."
    tables = [entry for entry in history() if entry[2] == words]
    assert tables == [(name, CHANGE, words) for name in ("later", "message", "room")]
    assert (f"revision {first}", CHANGE, "Restored as the draft.") in history()
    assert f"The draft is as revision {first} was" in admin_client.get(url, follow=True).content.decode()


def _written(data: object) -> Path:
    path = conf.settings().data_dir / "import.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def test_restoring_by_command(admin_client: Client) -> None:
    scene()
    first, second = numbers()
    said = 'changed message\n  filter {"deleted": false} -> {}\nchanged room\n  description "Not published yet" -> ""'
    assert run("restorerevision", str(first), "--dry-run") == said
    assert TableMapping.objects.get(name="message").filter == {"deleted": False}
    assert run("restorerevision", str(first)) == said
    assert TableMapping.objects.get(name="message").filter == {}
    assert run("restorerevision", str(first)) == f"the draft is as revision {first} was"
    assert numbers() == [first, second]
    page = admin_client.get(f"{ADMIN}/mappingrevision/999/restore/", follow=True).content.decode()
    assert "Nothing was restored. ZS110 revision: there is no revision 999" in page


def test_another_draft_than_the_one_decided_on_is_not_overwritten() -> None:
    scene()
    first, _ = numbers()
    seen = restoring(first).draft_hash
    TableMapping.objects.filter(name="room").update(collection="elsewhere")
    with pytest.raises(DraftChanged):
        restore(first, seen=seen)
    assert TableMapping.objects.get(name="room").collection == "elsewhere"


def test_managed_tables_stay_when_a_revision_is_restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scene()
    first, _ = numbers()
    TableMapping.objects.filter(name="message").update(managed_by="http://h/m.json", collection="managed")
    Publication.objects.update(managed_by="http://h/m.json")
    managed = replace(conf.settings(), table_mappings_file=tmp_path / "m.json")
    monkeypatch.setattr(revisions, "settings", lambda: managed)
    done = restore(first)
    assert done.kept == ("message", "publication chat")
    assert [one.name for one in done.changes] == ["room"]
    assert [table.collection for table in read_draft().tables] == ["managed", "rooms"]
    assert TableMapping.objects.get(name="message").managed_by == "http://h/m.json"
    # A table of the revision's own that meets a managed one of the same name, but for case, cannot be served.
    TableMapping.objects.filter(name="message").update(name="Room")
    with pytest.raises(MappingError, match="upper and lower case"):
        restore(first)


# History.


def test_an_edit_is_told_with_what_stood_and_stands_there(admin_client: Client) -> None:
    scene()
    publication = Publication.objects.get()
    url = reverse("admin:changesource_publication_change", args=(publication.pk,))
    room = TableMapping.objects.get(name="room")
    admin_client.post(url, {"name": "chat", "tables": [room.pk]})
    assert history() == [("chat", CHANGE, 'publication chat: ["message"] -> ["room"].')]
    admin_client.post(url, {"name": "talk", "tables": [room.pk]})
    assert history()[1:] == [("talk", CHANGE, "removed publication chat. added publication talk.")]
    admin_client.post(url, {"name": "talk", "tables": [room.pk]})
    assert history()[2:] == [("talk", CHANGE, "Nothing changed.")]


# Row errors.


def listed(*entries: tuple[str, str, str]) -> list[row_errors.Listed]:
    for table, document_id, column in entries:
        RowError.objects.create(table=table, document_id=document_id, column=column, reason="r")
    return row_errors.after(0, 100)


def connected(mongodb: MongoServer, mongo: Database[Any]) -> conf.Settings:
    return replace(conf.settings(), mongodb_uri=mongodb.uri, mongodb_database=mongo.name)


def test_mended_documents_leave_the_list_at_once(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    configuration.import_specification(read_specification({"message": mapped("message")}), "test")
    mongo["messages"].insert_many([{"_id": "good", "text": "x"}, {"_id": "bad", "text": ["no"]}])
    known = connected(mongodb, mongo)
    entries = [("message", f'"{name}"', "text") for name in ("good", "bad", "deleted")]
    unknown = [("message", '"half of an _id', "text"), ("gone", '"x"', "")]
    assert retry(known, listed(*entries, *unknown)) == Retried(mended=3, wrong=1, unknown=1)
    left = list(RowError.objects.all())
    assert {row.document_id for row in left} == {'"bad"', '"half of an _id'}
    monkeypatch.setattr(state, "settings", lambda: known)
    words = "0 mended and taken off the list, 1 as wrong as before, 1 with an _id that cannot be looked up."
    assert words in chosen(admin_client, "rowerror", "retry", *left)
    mongo["messages"].update_one({"_id": "bad"}, {"$set": {"text": "mended"}})
    assert "1 mended" in chosen(admin_client, "rowerror", "retry", *left)
    assert history() == [('message "bad" text', DELETION, "Mended, taken off the list.")]


def test_a_long_list_is_retried_part_by_part(
    monkeypatch: pytest.MonkeyPatch, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    tables = {"message": mapped("message", idType="number"), "b": mapped("b")}
    configuration.import_specification(read_specification(tables), "test")
    mongo["messages"].insert_one({"_id": 0, "text": []})
    for module, name, value in (
        (retryrowerrors, "AT_ONCE", 2),
        (retryrowerrors, "settings", lambda: connected(mongodb, mongo)),
    ):
        monkeypatch.setattr(module, name, value)
    listed(*(("message", str(number), "text") for number in range(5)), ("b", "1", ""))
    said = run("retryrowerrors", "message")
    assert said == "4 mended and taken off the list, 1 as wrong as before."
    assert RowError.objects.count() == 2


def test_a_mongodb_that_is_away_is_told_of_within_seconds(admin_client: Client) -> None:
    configuration.import_specification(read_specification({"message": mapped("message")}), "test")
    away = replace(conf.settings(), mongodb_uri="mongodb://127.0.0.1:9/")
    with pytest.raises(SourceUnavailable):
        retry(away, listed(("message", "1", "")), seconds=0.2)
    page = chosen(admin_client, "rowerror", "retry", RowError.objects.get())
    assert "Nothing was looked at. ZS101 MONGODB_URI is not set" in page


def test_what_is_exported_is_what_is_edited() -> None:
    """The two forms of one draft: its mappings, and the schema that clients get of them."""
    scene()
    spec = read_draft()
    assert json.loads(run("exportmappings")) == write_specification(spec)
    assert run("exportschema", "--draft") == zero_schema(spec.tables).strip()
