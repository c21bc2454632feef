"""Publishing, and the tables that files and URLs give: who wins, and what changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async

from changesource.conf import Settings, read_settings
from changesource.exceptions import ConfigurationUnavailable, MappingError, SourceUnavailable
from changesource.mapping.formats import read_specification
from changesource.mapping.questions import Answers, Questions
from changesource.mapping.spec import Specification
from changesource.models import ManagedContent, MappingRevision, Publication, TableMapping
from changesource.services import download
from changesource.services.configuration import acurrent, current, import_specification, load_managed, publish
from tests.conftest import MongoServer
from tests.harness.runtimes import running

pytestmark = pytest.mark.django_db
Wanted = Mapping[str, Questions]


def entry(collection: str = "messages", **parts: Any) -> dict[str, Any]:
    return {
        "collection": collection,
        "columns": {"id": {"type": "string", "path": "_id"}},
        "primaryKey": ["id"],
        **parts,
    }


def spec_of(tables: dict[str, Any], publications: dict[str, Any] | None = None) -> Specification:
    return read_specification({"tables": tables, "publications": publications or {}})


def served() -> Specification:
    published = current()
    assert published is not None
    return published.specification


def served_names() -> list[str]:
    return [table.name for table in served().tables]


class Managed:
    """A mappings file, and the settings that name it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mappings.json"
        self.settings: Settings = replace(read_settings({}, folder), table_mappings_file=self.path)

    def write(self, data: object) -> None:
        self.path.write_text(json.dumps(data), encoding="utf-8")

    def load(self, **options: Any) -> MappingRevision | None:
        return load_managed(self.settings, **options)


@pytest.fixture
def managed(tmp_path: Path) -> Managed:
    return Managed(tmp_path)


def database_content() -> list[Any]:
    return [
        list(TableMapping.objects.values()),
        list(Publication.objects.values("name", "managed_by", "tables__name")),
        list(MappingRevision.objects.values()),
        list(ManagedContent.objects.values()),
    ]


def test_nothing_is_served_before_the_first_publishing() -> None:
    assert current() is None


def test_edits_are_a_draft_until_published() -> None:
    import_specification(spec_of({"message": entry()}), "me")
    TableMapping.objects.update(collection="other")
    assert served().tables[0].collection == "messages"
    revision = publish("you", "why")
    assert served().tables[0].collection == "other"
    assert (revision.created_by, revision.note, list(revision.fingerprints)) == ("you", "why", ["message"])


def test_publishing_the_same_makes_no_revision() -> None:
    import_specification(spec_of({"message": entry()}), "me")
    first = publish("me")
    assert publish("me") == first
    assert MappingRevision.objects.count() == 1


def test_the_fingerprint_follows_the_filter_and_not_the_description() -> None:
    prints = []
    for parts in ({}, {"description": "d"}, {"filter": {"a": 1}}):
        import_specification(spec_of({"message": entry(**parts)}), "me")
        prints.append(MappingRevision.objects.latest("number").fingerprints["message"])
    assert prints[0] == prints[1] != prints[2]


def test_disabled_tables_are_not_served() -> None:
    tables = {"a": entry(), "b": entry(enabled=False)}
    import_specification(spec_of(tables, {"p": ["a", "b"]}), "me")
    assert served_names() == ["a"]
    assert served().publications == {"p": ("a",)}
    assert list(MappingRevision.objects.latest("number").fingerprints) == ["a"]


def test_an_unsound_draft_is_not_published() -> None:
    import_specification(spec_of({"message": entry()}), "me")
    TableMapping.objects.update(pipeline=[{"$group": {}}])
    with pytest.raises(MappingError, match=r"tables\.message\.pipeline"):
        publish("me")
    assert MappingRevision.objects.count() == 1


def test_our_own_collection_is_not_published() -> None:
    with pytest.raises(MappingError, match="zerosource's own collection"):
        import_specification(spec_of({"own": {**entry(), "collection": "_zerosource"}}), "me")


def test_names_that_differ_by_case_only_are_refused() -> None:
    with pytest.raises(MappingError, match="upper and lower case"):
        import_specification(spec_of({"message": entry(), "Message": entry()}), "me")


def test_the_type_of_id_is_found_when_published_and_stays_while_the_collection_is_empty() -> None:
    asked: list[set[str]] = []

    def inspect(wanted: Wanted) -> dict[str, Answers]:
        asked.append(set(wanted))
        return dict.fromkeys(wanted, Answers("objectId"))

    spec = spec_of({"a": entry(), "b": entry(), "c": entry("users", idType="string")})
    import_specification(spec, "me", inspect=inspect)
    assert {table.name: table.id_type for table in served().tables} == {"a": "objectId", "b": "objectId", "c": "string"}
    assert asked == [{"messages", "users"}]
    publish("me", inspect=lambda _: {"messages": Answers()})
    assert served().tables[0].id_type == "objectId"
    assert MappingRevision.objects.count() == 1
    assert TableMapping.objects.get(name="a").id_type == ""


def test_the_types_of_key_fields_are_found_when_published_and_stay() -> None:
    columns = {"email": {"type": "string", "path": "mail"}, "id": {"type": "string", "path": "_id"}}
    spec = spec_of({"a": entry(columns=columns, primaryKey=["email"], idType="string")})
    asked: list[Wanted] = []

    def inspect(wanted: Wanted) -> dict[str, Answers]:
        asked.append(wanted)
        return {"messages": Answers("", {"mail": "uuid"})}

    import_specification(spec, "me", inspect=inspect)
    assert asked == [{"messages": Questions({"a": ("mail",)}, frozenset({"mail"}), history=True)}]
    assert [column.key_type for column in served().tables[0].columns] == ["uuid", ""]
    publish("me", inspect=lambda _: {})
    assert served().tables[0].columns[0].key_type == "uuid"
    # Another field has another type.
    columns["email"]["path"] = "other"
    import_specification(spec_of({"a": entry(columns=columns, primaryKey=["email"])}), "me", inspect=lambda _: {})
    assert served().tables[0].columns[0].key_type == ""


def test_a_type_of_id_that_does_not_fit_is_refused() -> None:
    numbers = entry(columns={"id": {"type": "number", "path": "_id"}})
    with pytest.raises(MappingError, match="idType"):
        import_specification(spec_of({"a": numbers}), "me", inspect=lambda _: {"messages": Answers("objectId")})
    assert not TableMapping.objects.exists()


def test_while_mongodb_is_away_only_what_needs_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Where every type of ``_id`` is declared, what is imported is served all the same, with a warning."""

    def away(wanted: Wanted) -> dict[str, Answers]:
        raise SourceUnavailable("nobody answers")

    with pytest.raises(SourceUnavailable):
        import_specification(spec_of({"a": entry()}), "me", inspect=away)
    assert current() is None
    import_specification(spec_of({"a": entry(idType="string")}), "me", inspect=away)
    assert served_names() == ["a"]
    assert "collections were not checked" in caplog.text


def test_what_others_publish_meanwhile_is_not_undone(managed: Managed) -> None:
    """Publishing asks MongoDB and takes a while; an edit, a publishing or a reload that comes between is in it."""
    import_specification(spec_of({"a": entry("one"), "own": entry()}), "me")
    first = MappingRevision.objects.latest("number").number

    def meanwhile(wanted: Wanted) -> dict[str, Answers]:
        if served().tables[0].collection == "one":
            TableMapping.objects.filter(name="a").update(collection="two")
            assert publish("another").number == first + 1
        return {}

    TableMapping.objects.filter(name="own").update(description="edited")
    publish("me", inspect=meanwhile)
    assert [table.collection for table in served().tables] == ["two", "messages"]

    def edited(wanted: Wanted) -> dict[str, Answers]:
        if served().tables[0].collection == "two":
            TableMapping.objects.filter(name="a").update(collection="three")
            publish("another")
        return {}

    managed.write({"b": entry("managed")})
    managed.load(inspect=edited)
    assert [table.collection for table in served().tables] == ["three", "managed", "messages"]
    import_specification(
        spec_of({"c": entry()}),
        "me",
        inspect=lambda _: TableMapping.objects.filter(name="a").update(collection="four") and {},  # type: ignore[func-returns-value]
    )
    assert served().tables[0].collection == "four"


def test_others_who_never_stop_are_told_of() -> None:
    """It gives up after some tries, and has changed nothing."""
    import_specification(spec_of({"a": entry("c0")}), "me")
    count = itertools.count(1)

    def again(wanted: Wanted) -> dict[str, Answers]:
        TableMapping.objects.filter(name="a").update(collection=f"c{next(count)}")
        return {}

    with pytest.raises(ConfigurationUnavailable, match="changed by others"):
        publish("me", inspect=again)
    assert served().tables[0].collection == "c0"


@pytest.mark.django_db(transaction=True)
async def test_another_revision_of_the_same_number_is_taken_up(mongodb: MongoServer) -> None:
    """As of a database that was restored, or made anew."""
    await database_sync_to_async(import_specification)(spec_of({"a": entry("one")}), "me")
    async with running(mongodb.uri, "own") as runtime:
        first = await runtime.revision()
        await MappingRevision.objects.all().adelete()
        await TableMapping.objects.all().aupdate(collection="two")
        await database_sync_to_async(publish)("me")
        async with asyncio.timeout(5):
            while (second := await runtime.revision()) == first:
                await asyncio.sleep(0.05)
        assert second.mapping.by_collection.keys() == {"two"}
        await MappingRevision.objects.all().aupdate(number=first.number)


@pytest.mark.django_db(transaction=True)
async def test_coroutines_see_the_same() -> None:
    assert await acurrent() is None


def test_managed_tables_are_replaced_and_own_ones_untouched(managed: Managed) -> None:
    import_specification(spec_of({"own": entry()}, {"mine": ["own"]}), "me")
    managed.write({"tables": {"a": entry(), "b": entry()}, "publications": {"p": ["a", "b"]}})
    managed.load()
    assert served_names() == ["a", "b", "own"]
    assert TableMapping.objects.get(name="a").managed_by == str(managed.path)
    Publication.objects.get(name="mine").tables.add(TableMapping.objects.get(name="b"))
    managed.write({"a": entry("other")})
    managed.load()
    assert served_names() == ["a", "own"]
    assert served().tables[0].collection == "other"
    assert served().publications == {"mine": ("own",)}
    assert TableMapping.objects.get(name="own").managed_by == ""


def test_loading_does_not_publish_drafts(managed: Managed) -> None:
    import_specification(spec_of({"own": entry()}), "me")
    TableMapping.objects.update(collection="draft")
    managed.write({"a": entry()})
    managed.load()
    assert [table.collection for table in served().tables] == ["messages", "messages"]


def test_a_content_seen_before_changes_nothing(managed: Managed) -> None:
    managed.write({"a": entry("one")})
    first = managed.load()
    before = database_content()
    managed.write({"tables": {"a": entry("one")}})  # the same in another form
    assert managed.load(inspect=lambda _: {"messages": Answers("string")}) == first
    assert database_content() == before
    managed.write({"a": entry("two")})
    second = managed.load()
    assert second != first
    managed.write({"a": entry("one")})  # an old process of a rolling update starts once more
    assert managed.load() == second
    assert served().tables[0].collection == "two"
    assert managed.load(again=True) != second  # an operator brings the older content back
    assert served().tables[0].collection == "one"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"a": {"colour": 1}}', "tables.a.colour"),
        ('{"a": ', "mappings"),
        (json.dumps({"a": entry(), "b": entry(filter={"x": {"$near": "y"}})}), "tables.b.filter"),
        (json.dumps({"tables": {"a": entry()}, "publications": {"p": ["x"]}}), "publications.p"),
        (json.dumps({"own": entry()}), "tables.own"),
        (json.dumps({"tables": {"a": entry()}, "publications": {"mine": ["a"]}}), "publications.mine"),
    ],
)
def test_a_wrong_file_changes_nothing_and_says_which_key(managed: Managed, content: str, place: str) -> None:
    import_specification(spec_of({"own": entry()}, {"mine": ["own"]}), "me")
    managed.write({"a": entry("one")})
    managed.load()
    before = database_content()
    managed.path.write_text(content, encoding="utf-8")
    with pytest.raises(MappingError) as caught:
        managed.load()
    assert caught.value.place.startswith(place)
    assert database_content() == before


def test_an_unreachable_source_keeps_the_last_good_configuration(
    managed: Managed, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationUnavailable, match=r"mappings\.json cannot be read"):
        managed.load()
    managed.write({"a": entry()})
    first = managed.load()
    managed.path.unlink()
    assert managed.load() == first
    assert "managed mappings unreachable" in caplog.text


def test_without_a_source_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_managed(read_settings({}, tmp_path)) is None


class Served(BaseHTTPRequestHandler):
    """Answers with what the test put into ``answers``."""

    answers: dict[str, tuple[int, bytes]]
    logins: list[str | None]

    def do_GET(self) -> None:
        self.logins.append(self.headers["Authorization"])
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def web() -> Iterator[tuple[str, type[Served]]]:
    handler = type("Handler", (Served,), {"answers": {}, "logins": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="web")
    thread.start()
    yield f"127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_schema_and_mappings_come_from_urls(web: tuple[str, type[Served]], tmp_path: Path) -> None:
    place, handler = web
    schema = {"message": {"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}}
    schema["user"] = schema["message"]
    handler.answers = {
        "/schema?token=t0ken": (200, json.dumps(schema).encode()),
        "/mappings": (200, json.dumps({"message": {"source": "messages", "projection": {"_id": 1}}}).encode()),
    }
    chosen = read_settings(
        {
            "SCHEMA_URL": f"http://me:hunter2@{place}/schema?token=t0ken",
            "TABLE_MAPPINGS_URL": f"http://{place}/mappings",
        },
        tmp_path,
    )
    load_managed(chosen)
    assert {table.name: table.collection for table in served().tables} == {"message": "messages", "user": "user"}
    assert TableMapping.objects.get(name="user").managed_by == f"http://{place}/schema, http://{place}/mappings"
    assert handler.logins == ["Basic bWU6aHVudGVyMg==", None] * 2  # read once more, until they are of one moment


def test_an_answer_that_is_no_content_counts_as_unreachable(
    web: tuple[str, type[Served]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, handler = web
    chosen = read_settings({"TABLE_MAPPINGS_URL": f"http://me:hunter2@{place}/m?token=t0ken"}, tmp_path)
    monkeypatch.setattr(download, "MAX_BYTES", 100)
    for answer in ((404, b"{}"), (500, b"{}"), (200, b" " * 101)):
        handler.answers = {"/m?token=t0ken": answer}
        with pytest.raises(ConfigurationUnavailable) as caught:
            load_managed(chosen)
        assert place in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "t0ken" not in str(caught.value)
