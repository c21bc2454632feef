"""The Zero schema as others take it: by the command, at /metadata/schemas, and from there by another instance."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import AsyncClient, Client

from changesource.mapping.formats import Mappings, combine, read_mappings, read_specification, write_specification
from changesource.mapping.schema_formats import read_schema, schema_of
from changesource.mapping.spec import Specification
from changesource.mapping.typescript import zero_schema
from changesource.models import MappingRevision, TableMapping
from changesource.services.configuration import import_specification
from changesource.store import api_keys
from changesource.store.mappings import save
from tests.harness.app import MAPPINGS
from tests.unit.test_typescript import HYPHENED

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/metadata/schemas"
SPEC = read_specification(MAPPINGS)


def published(*more: Any) -> Specification:
    """Publish the application's mappings and some tables more."""
    spec = Specification((*SPEC.tables, *more), SPEC.publications)
    import_specification(spec, "test")
    return spec


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("exportschema", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_writes_what_is_published_or_edited(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ZS102 Nothing has been published yet"):
        run()
    spec = published(HYPHENED)
    assert run() == zero_schema(spec.tables)
    assert read_schema(json.loads(run("--format", "json"))) == schema_of(spec.tables)
    people = [table for table in spec.tables if table.name in ("note", "user")]
    assert run("--publication", "people") == zero_schema(people)
    with pytest.raises(CommandError, match="ZS121 The publication 'nobody' does not exist"):
        run("--publication", "nobody")
    TableMapping.objects.filter(name="user").update(enabled=False)
    file = tmp_path / "schema.ts"
    assert run("--draft", "--publication", "people", "-o", str(file)) == ""
    assert file.read_text(encoding="utf-8") == zero_schema([t for t in people if t.name == "note"])
    with pytest.raises(CommandError, match="cannot be written"):
        run("-o", str(tmp_path / "none" / "schema.ts"))


def test_an_exported_schema_read_elsewhere_gives_the_same_tables() -> None:
    spec = published(HYPHENED)
    exported = json.loads(run("--format", "json"))
    # Alone it maps collections of the tables' own names; beside mappings it must agree with all that they say.
    alone = combine(read_schema(exported), Mappings())
    assert schema_of(alone.tables) == schema_of(spec.tables)
    mappings = write_specification(spec)
    beside = combine(read_schema(exported), read_mappings(mappings))
    assert write_specification(beside) == mappings
    MappingRevision.objects.all().delete()
    TableMapping.objects.all().delete()
    import_specification(beside, "test")
    assert json.loads(run("--format", "json")) == exported


async def test_the_page_wants_a_key_or_staff(async_client: AsyncClient) -> None:
    key = await database_sync_to_async(api_keys.create)("other")

    async def asked(query: str = "nothing=1", url: str = URL) -> Any:
        # Django's client has it as text, a server as bytes.
        return await async_client.get(url, QUERY_STRING=query.encode())

    assert (await asked(f"apiKey={key}")).status_code == 503
    spec = await database_sync_to_async(published)()
    for refused in (await asked(), await asked("apiKey=wrong")):
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="zerosource"')
        assert b"item" not in refused.content
    answer = await asked(f"apiKey={key}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert read_schema(answer.json()) == schema_of(spec.tables)
    assert set((await asked(f"apiKey={key}&publication=people")).json()["tables"]) == {"note", "user"}
    assert (await asked(f"apiKey={key}&publication=x")).status_code == 404
    for name, is_staff, status in (("customer", False, 401), ("colleague", True, 200)):
        user = await database_sync_to_async(User.objects.create_user)(name, is_staff=is_staff)
        await async_client.aforce_login(user)
        assert [(await asked(url=url)).status_code for url in (URL, "/metrics")] == [status, status]


def test_without_asgi_there_is_no_page(client: Client) -> None:
    assert client.get(URL).status_code == 501


def test_a_draft_that_is_wrong_gives_no_schema() -> None:
    save(SPEC, managed_by="")
    TableMapping.objects.filter(name="user").update(primary_key=["none"])
    with pytest.raises(CommandError, match=r"ZS110 tables\.user\.primaryKey"):
        run("--draft")
