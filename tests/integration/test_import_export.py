"""importmappings and exportmappings: a round trip loses nothing, a wrong file changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis.extra.django import TestCase

from changesource import conf, sample_data
from changesource.management.commands import reloadmappings
from changesource.mapping.formats import write_specification
from changesource.mapping.spec import Specification
from changesource.models import MappingRevision, Publication, TableMapping, Watermark
from changesource.services import configuration
from changesource.services.configuration import import_specification
from changesource.store.mappings import read_draft
from tests.specifications import specifications


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class RoundTrip(TestCase):
    """Each example runs in a transaction of its own, which is rolled back."""

    @given(specifications())
    @bounds(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_the_database_keeps_all(self, spec: Specification) -> None:
        import_specification(spec, "test")
        written = write_specification(read_draft())
        assert json.dumps(written) == json.dumps(write_specification(spec))


@pytest.mark.django_db
def test_export_and_import_give_the_same_again(tmp_path: Path) -> None:
    run("importmappings", str(sample_data.MAPPINGS_FILE))
    file = tmp_path / "out.json"
    run("exportmappings", "--output", str(file))
    revision = MappingRevision.objects.get()
    TableMapping.objects.all().delete()
    Publication.objects.all().delete()
    said = run("importmappings", str(file))
    assert said.startswith("made: account, ")
    assert json.loads(run("exportmappings")) == json.loads(file.read_text(encoding="utf-8"))
    assert MappingRevision.objects.get() == revision
    assert run("importmappings", str(file)).startswith("unchanged: account, ")


@pytest.mark.django_db
def test_a_schema_completes_the_mappings(tmp_path: Path) -> None:
    mappings, schema = tmp_path / "m.json", tmp_path / "s.json"
    mappings.write_text('{"message": {"collection": "messages", "fields": {"id": "_id"}}}', encoding="utf-8")
    schema.write_text('{"message": {"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]}}', encoding="utf-8")
    run("importmappings", str(mappings), "--schema", str(schema))
    assert [table.collection for table in read_draft().tables] == ["messages"]


def table(**parts: Any) -> dict[str, Any]:
    return {"collection": "c", "columns": {"id": {"type": "string", "path": "_id"}}, "primaryKey": ["id"], **parts}


@pytest.mark.django_db
def test_a_dry_run_says_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"a": table(), "b": table()}), encoding="utf-8")
    run("importmappings", str(file))
    file.write_text(json.dumps({"a": table(), "b": table(description="x"), "c": table()}), encoding="utf-8")
    said = run("importmappings", str(file), "--dry-run")
    assert said.splitlines() == ["would be made: c", "would be changed: b", "would be unchanged: a"]
    assert [table.name for table in read_draft().tables] == ["a", "b"]
    assert MappingRevision.objects.count() == 1


@pytest.mark.django_db
def test_what_else_is_published_is_said_and_which_replicas_sync_anew(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"a": table(), "b": table()}), encoding="utf-8")
    assert run("importmappings", str(file)) == "made: a, b\n"
    run("disabletables", "b")
    Watermark.objects.create(kind=Watermark.Kind.REPLICA, app_id="shop")
    file.write_text(json.dumps({"a": table(collection="d")}), encoding="utf-8")
    for options, would_be in ((["--dry-run"], "would be "), ([], "")):
        *said, replicas = run("importmappings", str(file), *options).splitlines()
        assert said == [f"{would_be}changed: a", f"{would_be}published as well, since they were edited before: b"]
        assert replicas.startswith("Publishing the draft makes these replicas sync anew: shop/0")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        (json.dumps({"good": table(), "bad": table(colour=1)}), "tables.bad.colour: is not a known key"),
        (json.dumps({"good": table(), "bad": table(pipeline=[{"$group": {}}])}), "tables.bad.pipeline"),
        (json.dumps({"good": table(), "bad": table(errorPolicy="ignore")}), "tables.bad.errorPolicy"),
        (json.dumps({"taken": table()}), "tables.taken: a table of this name is managed"),
    ],
)
def test_a_wrong_file_changes_nothing(tmp_path: Path, content: str, words: str) -> None:
    TableMapping.objects.create(name="taken", collection="c", primary_key=["id"], managed_by="http://h/m")
    file = tmp_path / "m.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match="Nothing was changed") as caught:
        run("importmappings", str(file))
    assert words in str(caught.value)
    assert [table.name for table in read_draft().tables] == ["taken"]
    assert not MappingRevision.objects.exists()


@pytest.mark.django_db
def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be read: No such file or directory\. Name a file that is there"):
        run("importmappings", str(tmp_path / "none.json"))


@pytest.mark.django_db
def test_reloading_reads_the_managed_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="Neither SCHEMA_URL"):
        run("reloadmappings")
    file = tmp_path / "m.json"
    chosen = replace(conf.settings(), table_mappings_file=file)
    for module in (reloadmappings, configuration):
        monkeypatch.setattr(module, "settings", lambda: chosen)
    for collection in ("one", "two", "one"):
        file.write_text(json.dumps({"a": table(collection=collection)}), encoding="utf-8")
        assert run("reloadmappings").startswith("serving revision ")
        assert [found.collection for found in read_draft().tables] == [collection]
    file.write_text("{}]", encoding="utf-8")
    with pytest.raises(CommandError, match="Nothing was changed"):
        run("reloadmappings")
