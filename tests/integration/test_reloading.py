"""Files and URLs that are read again, in this process: what is taken, what is kept, what is told."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any

import pytest

from changesource.conf import Settings, read_settings
from changesource.exceptions import MappingError, SourceUnavailable
from changesource.mapping.questions import Answers
from changesource.models import ManagedContent, ManagedReading, MappingRevision, TableMapping
from changesource.services import reloading as module
from changesource.services.config_files import ROUNDS
from changesource.services.configuration import import_specification, load_managed
from changesource.services.reloading import Reloading, until_next
from changesource.services.startup import load_mappings
from changesource.store.readings import Result
from tests.integration.test_configuration import entry, served, served_names, spec_of

pytestmark = pytest.mark.django_db
KEPT = "managed mappings cannot be used, keeping the last ones"


def read() -> tuple[str, str]:
    """What operators see of the last reading."""
    row = ManagedReading.objects.get()
    return row.result, row.code


class FileSource:
    """A mappings file that was loaded once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mappings.json"
        self.settings: Settings = replace(read_settings({}, folder), table_mappings_file=self.path)
        self.write({"a": entry(idType="string")})
        load_managed(self.settings)
        self.reloading = Reloading(self.settings)

    def write(self, data: object) -> None:
        self.path.write_text(json.dumps(data), encoding="utf-8")

    def once(self) -> str:
        return str(self.reloading.once())


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return FileSource(tmp_path)


def test_a_file_is_taken_by_its_content(source: FileSource) -> None:
    assert [source.once(), source.once()] == ["unchanged", "unchanged"]
    os.utime(source.path)
    source.path.write_text(source.path.read_text() + "\n")
    assert source.once() == "unchanged"
    source.write({"b": entry("others", idType="string")})
    assert [source.once(), source.once()] == ["loaded", "unchanged"]
    assert served_names() == ["b"]
    assert MappingRevision.objects.count() == 2
    assert read() == ("unchanged", "")


def test_what_is_wrong_is_told_once_and_recovers(source: FileSource, caplog: pytest.LogCaptureFixture) -> None:
    source.once()
    wrong = {"b": entry(idType="string"), "c": entry(primaryKey=["none"])}
    for content, times in ((wrong, 2), ("text", 3), (wrong, 1)):
        source.write(content)
        assert [source.once() for _ in range(times)] == ["failed"] * times
        assert read() == ("failed", "ZS110")
    source.path.unlink()
    assert source.once() == "failed"
    assert read() == ("failed", "ZS102")
    told = [record for record in caplog.records if record.getMessage() == KEPT]
    assert [record.code for record in told] == ["ZS110", "ZS110", "ZS102"]  # type: ignore[attr-defined]
    assert served_names() == ["a"]
    del wrong["c"]
    source.write(wrong)
    assert source.once() == "loaded"
    assert served_names() == ["b"]
    assert caplog.records[-1].getMessage() == "managed mappings can be used again"


def test_since_when_it_is_so(source: FileSource) -> None:
    def since() -> Any:
        return ManagedReading.objects.get().since

    began = since()
    source.once()
    assert since() == began
    source.path.write_text("{")
    source.once()
    failed = since()
    source.once()
    assert since() == failed > began
    source.path.unlink()
    source.once()
    assert since() > failed


def test_an_older_content_is_held_back_and_told_once(source: FileSource, caplog: pytest.LogCaptureFixture) -> None:
    first = source.path.read_bytes()
    source.write({"b": entry(idType="string")})
    source.once()
    source.path.write_bytes(first)
    assert [source.once(), source.once()] == ["older", "older"]
    assert read() == ("older", "")
    assert served_names() == ["b"]
    assert len([one for one in caplog.records if "older ones that were replaced" in one.getMessage()]) == 1
    load_managed(source.settings, again=True)
    assert source.once() == "unchanged"
    assert served_names() == ["a"]


def test_nothing_at_all_is_taken_on_purpose_alone(source: FileSource) -> None:
    """A server that answers with an empty object for a while would take all rows from all replicas, and keep them."""
    first = source.path.read_bytes()
    for nothing in ({}, {"tables": {}, "publications": {"some": []}}):
        source.write(nothing)
        assert source.once() == "failed"
    assert read() == ("failed", "ZS110")
    source.path.write_bytes(first)
    assert source.once() == "unchanged"
    assert served_names() == ["a"]
    source.write({})
    load_managed(source.settings, again=True)
    assert (source.once(), served_names()) == ("unchanged", [])
    source.write({"b": entry(idType="string")})
    assert (source.once(), served_names()) == ("loaded", ["b"])


def test_what_is_wrong_is_quoted_in_part(source: FileSource, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept and logged: a key of the file may have megabytes."""
    source.write({"a": entry(**{"x" * 1_000_000: 1})})
    assert source.once() == "failed"
    assert len(ManagedReading.objects.get().problem) < 3000
    assert all(len(str(vars(record).get("why", ""))) < 3000 for record in caplog.records)


def test_a_start_serves_on_what_was_loaded_before(source: FileSource, caplog: pytest.LogCaptureFixture) -> None:
    """A process that is started anew while the file is wrong would leave its replicas alone until that is corrected."""
    for content in ("{", json.dumps({"c": entry(primaryKey=["none"])})):
        source.path.write_text(content)
        caplog.clear()
        load_mappings(source.settings)
        (told,) = [record for record in caplog.records if record.getMessage() == KEPT]
        assert told.code == "ZS110"  # type: ignore[attr-defined]
        assert read() == ("failed", "ZS110")
        assert served_names() == ["a"]
    ManagedContent.objects.all().delete()
    with pytest.raises(MappingError):
        load_mappings(source.settings)


def test_what_another_process_gave_is_seen(source: FileSource, tmp_path: Path) -> None:
    """Though the own file is the same: two processes may be given different ones, which operators must know."""
    assert source.once() == "unchanged"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"b": entry(idType="string")}), encoding="utf-8")
    load_managed(replace(source.settings, table_mappings_file=other))
    assert [source.once(), source.once()] == ["older", "older"]
    assert served_names() == ["b"]


def test_a_database_that_was_restored_is_brought_up_to_date(source: FileSource) -> None:
    assert source.once() == "unchanged"
    (first,) = ManagedContent.objects.all()
    source.write({"b": entry(idType="string")})
    assert [source.once(), source.once()] == ["loaded", "unchanged"]
    ManagedContent.objects.exclude(pk=first.pk).delete()
    MappingRevision.objects.order_by("-number")[0].delete()
    TableMapping.objects.update(name="a")
    assert source.once() == "loaded"
    assert served_names() == ["b"]


def test_a_table_of_the_same_name_stands_in_the_way_for_a_while(source: FileSource) -> None:
    """The same content is tried again: what stood in its way may be gone."""
    import_specification(spec_of({"own": entry(idType="string")}), "me")
    source.write({"own": entry(idType="string")})
    assert [source.once(), source.once()] == ["failed", "failed"]
    TableMapping.objects.filter(name="own").delete()
    assert source.once() == "loaded"
    assert TableMapping.objects.get(name="own").managed_by == str(source.path)


def test_mongodb_away_is_waited_for(source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The type of ``_id`` is to be found out: the content is taken once MongoDB answers, though it is the same."""
    answers: list[Any] = [SourceUnavailable("nobody answers"), {}]

    def inspect(wanted: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "inspector", lambda: inspect)
    source.once()
    source.write({"b": entry()})
    assert source.once() == "failed"
    assert read() == ("failed", "ZS300")
    assert source.once() == "loaded"


def test_another_process_is_faster(source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the same content while this one asks MongoDB: that is one revision, which the other one made."""

    def inspect(wanted: object) -> dict[str, Answers]:
        monkeypatch.setattr(module, "inspector", lambda: None)
        load_managed(source.settings)
        return {}

    source.write({"b": entry(idType="string")})
    monkeypatch.setattr(module, "inspector", lambda: inspect)
    assert source.once() == "unchanged"
    assert served_names() == ["b"]
    assert MappingRevision.objects.count() == 2


@pytest.mark.parametrize("starts", [False, True])
def test_another_process_has_read_a_newer_one(
    source: FileSource, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    """It is served before this one has got through: the older one is not taken, and the newer one not held back."""

    def inspect(wanted: object) -> dict[str, Answers]:
        monkeypatch.setattr(module, "inspector", lambda: None)
        source.write({"c": entry(idType="string")})
        load_managed(source.settings)
        return {}

    source.once()
    source.write({"b": entry(idType="string")})
    if starts:
        load_managed(source.settings, inspect)
    else:
        monkeypatch.setattr(module, "inspector", lambda: inspect)
        source.once()
    assert served_names() == ["c"]
    assert [source.once(), source.once()] == ["unchanged", "unchanged"]
    assert MappingRevision.objects.count() == 2


def test_a_start_takes_its_own_beside_another_process(source: FileSource, tmp_path: Path) -> None:
    """That one has another file, and is faster."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"c": entry(idType="string")}), encoding="utf-8")
    others: list[Settings] = [replace(source.settings, table_mappings_file=other)]

    def inspect(wanted: object) -> dict[str, Answers]:
        if others:
            load_managed(others.pop())
        return {}

    source.write({"b": entry(idType="string")})
    load_managed(source.settings, inspect)
    assert served_names() == ["b"]
    assert source.once() == "unchanged"


def test_all_processes_read_at_the_same_moments() -> None:
    assert [until_next(60, now) for now in (0.0, 1.0, 59.5, 60.0, 6_000_000_030.0)] == [60, 59, 0.5, 60, 30]


async def test_nothing_is_read_again_where_it_is_switched_off(tmp_path: Path) -> None:
    chosen = replace(read_settings({}, tmp_path), table_mappings_file=tmp_path / "none.json")
    await asyncio.wait_for(Reloading(replace(chosen, reload_seconds=0)).run(), 5)
    await asyncio.wait_for(Reloading(read_settings({}, tmp_path)).run(), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Reloading(chosen).run(), 0.1)


class Pages(BaseHTTPRequestHandler):
    """Answers by what the test gave for each path."""

    pages: dict[str, Callable[[], bytes | None]]

    def do_GET(self) -> None:
        body = self.pages[self.path]()
        self.send_response(503 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[Callable[[Any], str]]:
    """Serve by a handler; return the host and port."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(handler: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, name="web")
        thread.start()
        running.append((server, thread))
        return f"127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join(10)
        server.server_close()


async def test_a_reading_that_nobody_waits_for_any_more(tmp_path: Path, web: Callable[[Any], str]) -> None:
    """It comes to its end in its thread, where the process goes on without the lead, say."""
    begun, released = threading.Event(), threading.Event()

    def page() -> bytes:
        begun.set()
        released.wait(10)
        return b"{"

    place = web(type("Handler", (Pages,), {"pages": {"/m": page}}))
    chosen = read_settings({"TABLE_MAPPINGS_URL": f"http://{place}/m"}, tmp_path)
    task = asyncio.create_task(Reloading(replace(chosen, reload_seconds=1)).run())
    assert await asyncio.to_thread(begun.wait, 10)
    (thread,) = [one for one in threading.enumerate() if one.name == "question"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    released.set()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()  # what it had raised would fail this test


def schema(*names: str) -> bytes:
    table = {"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}
    return json.dumps(dict.fromkeys(names, table)).encode()


def mappings(**collections: str) -> bytes:
    return json.dumps({name: {"collection": to, "idType": "string"} for name, to in collections.items()}).encode()


class Two:
    """A schema and mappings behind two URLs, loaded once. ``moment`` is called each time the schema was asked for."""

    def __init__(self, folder: Path, web: Callable[[Any], str]) -> None:
        self.schema: bytes | None = schema("a")
        self.mappings: bytes | None = mappings(a="one")
        self.moment: Callable[[], None] = lambda: None
        handler = type("Handler", (Pages,), {"pages": {"/s": self._schema, "/m": lambda: self.mappings}})
        place = web(handler)
        given = {"SCHEMA_URL": f"http://{place}/s", "TABLE_MAPPINGS_URL": f"http://{place}/m"}
        self.settings = read_settings(given, folder)
        load_managed(self.settings)
        self.reloading = Reloading(self.settings)
        assert self.reloading.once() is Result.UNCHANGED

    def _schema(self) -> bytes | None:
        given = self.schema
        self.moment()
        return given


@pytest.fixture
def two(tmp_path: Path, web: Callable[[Any], str]) -> Two:
    return Two(tmp_path, web)


def test_what_changed_is_not_forgotten_while_the_other_fails(two: Two) -> None:
    two.schema, two.mappings = schema("b"), None
    assert two.reloading.once() is Result.FAILED
    two.mappings = mappings(b="two")
    assert two.reloading.once() is Result.LOADED
    # And where it fails only when both are read once more, to make sure.
    asked: list[int] = []

    def fails_at_the_second_time() -> None:
        asked.append(1)
        two.mappings = None if len(asked) == 2 else mappings(b="two")

    two.schema, two.moment = schema("b", "c"), fails_at_the_second_time
    assert [two.reloading.once() for _ in range(2)] == [Result.FAILED, Result.LOADED]
    assert served_names() == ["b", "c"]


def test_two_are_read_until_they_are_of_one_moment(two: Two) -> None:
    """Published in between, the new mappings beside the old schema would be other tables."""

    def published() -> None:
        two.schema, two.mappings = schema("a", "b"), mappings(a="one", b="two")

    two.schema = schema("a")
    two.moment = published
    assert two.reloading.once() is Result.LOADED
    assert {table.name: table.collection for table in served().tables} == {"a": "one", "b": "two"}
    assert MappingRevision.objects.count() == 2


def test_at_the_start_too_they_are_of_one_moment(two: Two) -> None:
    """Else a new table would be that of the collection of its own name, until both are read again."""
    asked: list[int] = []

    def published_after_the_first() -> None:
        asked.append(1)
        two.mappings = mappings(a="one", b="two") if len(asked) > 1 else mappings(a="one")

    two.schema, two.moment = schema("a", "b"), published_after_the_first
    load_managed(two.settings)
    assert {table.name: table.collection for table in served().tables} == {"a": "one", "b": "two"}
    assert MappingRevision.objects.count() == 2


def test_two_that_never_stay_the_same_are_taken_all_the_same(two: Two) -> None:
    """Some servers write the same content otherwise each time."""
    asked: list[int] = []

    def otherwise() -> None:
        asked.append(1)
        two.schema = schema("b") + b" " * len(asked)

    two.moment, two.mappings = otherwise, mappings(b="two")
    two.schema = schema("b")
    assert two.reloading.once() is Result.LOADED
    assert len(asked) == 1 + ROUNDS
    assert two.reloading.once() is Result.UNCHANGED


class FileServer:
    """A mappings file behind a web server that tells its versions apart by ``Last-Modified`` alone."""

    def __init__(self, folder: Path, web: Callable[[Any], str]) -> None:
        self.statuses: list[int] = []
        statuses = self.statuses

        class Files(SimpleHTTPRequestHandler):
            """Answers with files, and notes how."""

            def send_response(self, code: int, message: str | None = None) -> None:
                statuses.append(code)
                super().send_response(code, message)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.file = folder / "mappings.json"
        self.write("a", age=60)
        place = web(partial(Files, directory=str(folder)))
        chosen = read_settings({"TABLE_MAPPINGS_URL": f"http://{place}/mappings.json"}, folder)
        load_managed(chosen)
        self.reloading = Reloading(chosen)

    def write(self, table: str, age: float) -> None:
        self.file.write_bytes(json.dumps({table: entry(idType="string")}).encode())
        self.cut(None, age)

    def cut(self, size: int | None, age: float) -> None:
        self.file.write_bytes(self.file.read_bytes()[:size])
        os.utime(self.file, (time() - age, time() - age))


def test_a_web_server_that_knows_times_alone(tmp_path: Path, web: Callable[[Any], str]) -> None:
    """It is asked by ``Last-Modified``."""
    server = FileServer(tmp_path, web)
    assert [server.reloading.once() for _ in range(3)] == [Result.UNCHANGED] * 3
    assert server.statuses == [200, 200, 304, 304]
    server.write("b", age=30)
    assert server.reloading.once() is Result.LOADED
    assert server.statuses[-1] == 200


def test_a_file_that_is_read_while_it_is_written(tmp_path: Path, web: Callable[[Any], str]) -> None:
    """The rest of it comes within the same second, which for ``Last-Modified`` is the same version."""
    server = FileServer(tmp_path, web)
    assert server.reloading.once() is Result.UNCHANGED
    server.write("b", age=-30)  # however slow this machine is
    whole, moment = server.file.read_bytes(), server.file.stat().st_mtime
    server.cut(20, age=-30)
    os.utime(server.file, (moment, moment))
    assert server.reloading.once() is Result.FAILED
    server.file.write_bytes(whole)
    os.utime(server.file, (moment, moment))
    assert server.reloading.once() is Result.LOADED
    assert served_names() == ["b"]
