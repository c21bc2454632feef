"""The admin: a table is checked with its columns, errors stand where they belong, managed tables are shown only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from django.urls import reverse

from changesource import conf
from changesource.admin import mappings as mappings_admin
from changesource.admin.mapping_forms import version_of
from changesource.models import ApiKey, MappingRevision, Publication, RowError, TableMapping, Watermark
from changesource.services.configuration import current

pytestmark = pytest.mark.django_db

ADD = "/admin/changesource/tablemapping/add/"
LIST = "/admin/changesource/tablemapping/"


def form(columns: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    """What a browser sends for a table with these columns."""
    data: dict[str, Any] = {
        "name": "message",
        "collection": "messages",
        "filter": "{}",
        "pipeline": "[]",
        "primary_key": '["id"]',
        "id_type": "",
        "error_policy": "coerce",
        "large_integers": "reject",
        "enabled": "on",
        "description": "",
        "columns-TOTAL_FORMS": len(columns),
        "columns-INITIAL_FORMS": 0,
        **parts,
    }
    for number, column in enumerate(columns):
        data.update({f"columns-{number}-{key}": value for key, value in {"position": number, **column}.items()})
    return data


ID = {"name": "id", "type": "string", "path": "_id"}
TEXT = {"name": "text", "type": "string", "path": "body.text", "optional": "on"}


def test_a_table_is_saved_as_a_draft_and_published_by_the_button(admin_client: Client) -> None:
    answer = admin_client.post(ADD, form([ID, TEXT], filter='{"b": 1, "a": {"$gt": 2}}'))
    assert answer.status_code == 302
    table = TableMapping.objects.get()
    assert list(table.filter) == ["b", "a"]
    assert [column.name for column in table.columns.all()] == ["id", "text"]
    assert current() is None
    assert "Nothing is served yet" in admin_client.get(LIST).content.decode()
    page = admin_client.post(f"{LIST}publish/", {"note": "first"}, follow=True).content.decode()
    revision = MappingRevision.objects.get()
    assert (revision.created_by, revision.note) == ("admin", "first")
    assert f"Published as {revision}" in page
    assert f"Served now: {revision}" in page
    page = admin_client.post(f"{LIST}publish/", follow=True).content.decode()
    assert "Nothing has changed since" in page
    published = current()
    assert published is not None
    assert [column.path for column in published.specification.tables[0].columns] == ["_id", "body.text"]


def test_pipelines_and_expressions_are_saved(admin_client: Client) -> None:
    whole = {"name": "size", "type": "number", "expression": '{"$size": {"$ifNull": ["$tags", []]}}'}
    user = {"name": "userId", "type": "string", "path": "members.id"}
    parts = {"pipeline": '[{"$unwind": "$members"}]', "primary_key": '["id", "userId"]', "error_policy": "stop"}
    answer = admin_client.post(ADD, form([ID, user, whole], large_integers="round", **parts))
    assert answer.status_code == 302, answer.content.decode()
    table = TableMapping.objects.get()
    page = admin_client.get(reverse("admin:changesource_tablemapping_change", args=(table.pk,))).content.decode()
    assert "&quot;$ifNull&quot;" in page
    assert ">null</textarea>" not in page.replace("\n", "")
    admin_client.post(f"{LIST}publish/")
    published = current()
    assert published is not None
    (spec,) = published.specification.tables
    assert (spec.pipeline, spec.large_integers) == (({"$unwind": "$members"},), "round")
    assert spec.columns[2].expression == {"$size": {"$ifNull": ["$tags", []]}}


@pytest.mark.parametrize(
    ("columns", "parts", "field", "words"),
    [
        ([ID], {"filter": '{"a": {"$near": "x"}}'}, "filter", "$near is not supported"),
        ([ID], {"filter": "{"}, "filter", "Enter a valid JSON"),
        ([ID], {"filter": "[]"}, "filter", "must be an object"),
        ([ID], {"filter": '{"a": ' * 150 + "1" + "}" * 150}, "filter", "JSON. It is nested deeper than"),
        ([ID], {"filter": '{"a": ' * 30_000}, "filter", "JSON. It is nested deeper than"),
        ([ID], {"filter": "9" * 5000}, "filter", "JSON. It Exceeds the limit"),
        ([ID], {"filter": r'{"a": "\ud800"}'}, "filter", "half of a surrogate pair"),
        ([ID], {"pipeline": "true"}, "pipeline", "must be a list of stages"),
        ([ID], {"filter": '{"a": 1e999}'}, "filter", "JSON. a is a number too large"),
        ([ID], {"pipeline": '[{"$unwind": "$a"}, {"$group": {}}]'}, "pipeline", "the stage $group is not supported"),
        ([ID], {"error_policy": "ignore"}, "error_policy", "ignore is not one of the available choices"),
        ([ID, {**TEXT, "path": "", "expression": '{"$no": 1}'}], {}, "columns.1.expression", "$no is not supported"),
        ([ID, {**TEXT, "expression": '{"$toLower": "$a"}'}], {}, "columns.1.expression", "is given beside a path"),
        ([ID, {**TEXT, "path": ""}], {}, "columns.1.path", "the path is empty"),
        ([ID, {**TEXT, "key_type": "string"}], {}, "columns.1.key_type", "only a column of the primary key"),
        ([ID], {"primary_key": '["other"]'}, "primary_key", "there is no column other"),
        ([ID], {"collection": "system.users"}, "collection", "system collections"),
        ([ID, {**TEXT, "path": "a..b"}], {}, "columns.1.path", "has an empty component"),
        ([{**ID, "type": "json"}], {}, "columns.0.type", "a primary key is a string or a number"),
        ([ID, {**TEXT, "name": "ID"}], {}, "columns.1.name", "two columns have this name"),
        ([], {}, "__all__", "at least one column"),
    ],
)
def test_errors_stand_where_they_belong(
    admin_client: Client, columns: list[dict[str, Any]], parts: dict[str, Any], field: str, words: str
) -> None:
    answer = admin_client.post(ADD, form(columns, **parts))
    assert answer.status_code == 200
    assert not TableMapping.objects.exists()
    if field.startswith("columns."):
        _, number, key = field.split(".")
        errors = answer.context["inline_admin_formsets"][0].formset.errors[int(number)][key]
    else:
        errors = answer.context["adminform"].form.errors[field]
    assert words in " ".join(errors)
    assert words.replace("'", "&#x27;") in answer.content.decode()


def test_an_edit_is_checked_with_the_columns_that_it_sends(admin_client: Client) -> None:
    admin_client.post(ADD, form([ID, TEXT]))
    table = TableMapping.objects.get()
    stored = [
        {**column, "id": row.pk, "table": table.pk} for column, row in zip((ID, TEXT), table.columns.all(), strict=True)
    ]
    url = reverse("admin:changesource_tablemapping_change", args=(table.pk,))
    begun = {"columns-INITIAL_FORMS": 2, "version": version_of(table)}
    stored[0]["DELETE"] = "on"
    answer = admin_client.post(url, form(stored, **begun))
    assert "there is no column id" in answer.content.decode()
    del stored[0]["DELETE"]
    stored[1]["name"] = "body"
    answer = admin_client.post(url, form(stored, filter="", **begun))
    assert answer.status_code == 302, answer.content.decode()
    assert [column.name for column in table.columns.all()] == ["id", "body"]
    assert TableMapping.objects.get().filter == {}


def test_managed_tables_are_shown_and_not_edited(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = replace(conf.settings(), table_mappings_file=tmp_path / "m.json")
    monkeypatch.setattr(mappings_admin, "settings", lambda: chosen)
    table = TableMapping.objects.create(name="a", collection="c", primary_key=["id"], managed_by="http://h/m.json")
    publication = Publication.objects.create(name="p", managed_by="http://h/m.json")
    for url in (
        reverse("admin:changesource_tablemapping_change", args=(table.pk,)),
        reverse("admin:changesource_publication_change", args=(publication.pk,)),
    ):
        page = admin_client.get(url)
        assert "http://h/m.json" in page.content.decode()
        for name in ("_save", "_continue", "_publish"):
            assert f'name="{name}"' not in page.content.decode()
        assert admin_client.post(url, form([ID])).status_code == 403
        assert admin_client.post(url.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    chosen = conf.settings()  # no source any more: what it gave may be edited
    page = admin_client.get(reverse("admin:changesource_tablemapping_change", args=(table.pk,)))
    assert 'name="_continue"' in page.content.decode()


def test_a_publication_takes_tables(admin_client: Client) -> None:
    table = TableMapping.objects.create(name="a", collection="c", primary_key=["id"])
    answer = admin_client.post("/admin/changesource/publication/add/", {"name": "p", "tables": [table.pk]})
    assert answer.status_code == 302
    assert list(Publication.objects.get().tables.all()) == [table]


def said(client: Client) -> str:
    """What the list says that publishing would do."""
    return str(client.get(LIST).context["consequences"])


def test_what_publishing_does_is_said_before(admin_client: Client) -> None:
    """Which replicas would sync anew, which would be refused, and which notice nothing."""
    for name in ("one", "two"):
        admin_client.post(ADD, form([ID, TEXT], name=name))
        table = TableMapping.objects.get(name=name)
        Publication.objects.create(name=f"p-{name}").tables.add(table)
    assert said(admin_client) == ""
    admin_client.post(f"{LIST}publish/")
    assert said(admin_client) == "The draft is what is served."
    assert "The draft is what is served." in admin_client.get(LIST).content.decode()
    Watermark.objects.create(kind="replica", app_id="a", publications=["p-one"], state="streaming")
    Watermark.objects.create(kind="replica", app_id="b", publications=["p-two"])
    Watermark.objects.create(kind="replica", app_id="all", state="disconnected")
    Watermark.objects.create(kind="watcher")
    TableMapping.objects.filter(name="one").update(description="Told to nobody.")
    assert said(admin_client) == "Publishing the draft resets no replica."
    TableMapping.objects.filter(name="one").update(filter={"a": 1})
    resets = "Publishing the draft makes these replicas sync anew: a/0 (streaming), all/0 (disconnected)."
    assert said(admin_client) == resets
    Publication.objects.filter(name="p-two").delete()
    refused = "These ask for a publication that would not exist, and would be refused: b/0."
    assert said(admin_client) == f"{resets} {refused}"
    TableMapping.objects.filter(name="one").update(primary_key=["missing"])
    assert said(admin_client).startswith("The draft cannot be published as it is: tables.one.primaryKey")


def test_an_unsound_draft_is_not_published(admin_client: Client) -> None:
    TableMapping.objects.create(name="a", collection="c", primary_key=["id"])
    page = admin_client.post(f"{LIST}publish/", follow=True).content.decode()
    assert "Nothing was published. ZS110 tables.a.columns: a table needs at least one column" in page


def test_publishing_needs_the_right_to_change(client: Client) -> None:
    client.force_login(User.objects.create_user("guest", is_staff=True))
    assert client.get(f"{LIST}publish/").status_code == 403
    assert client.post(f"{LIST}publish/").status_code == 403


def test_every_page_opens_and_state_is_read_only(admin_client: Client) -> None:
    Watermark.objects.create(kind="replica", app_id="a")
    RowError.objects.create(table="a", document_id="1", reason="r")
    ApiKey.objects.create(name="k", hash="h", prefix="zs_")
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label != "changesource":
            continue
        page = admin_client.get(reverse(f"admin:changesource_{model._meta.model_name}_changelist"))
        assert page.status_code == 200
        if model not in (TableMapping, Publication, ApiKey):
            add = admin_client.get(reverse(f"admin:changesource_{model._meta.model_name}_add"))
            assert add.status_code == 403, model_admin
    url = reverse("admin:changesource_watermark_change", args=(Watermark.objects.get().pk,))
    assert admin_client.get(url).status_code == 200
    assert admin_client.post(url, {}).status_code == 403


async def test_the_admin_has_its_style_without_collectstatic(async_client: AsyncClient) -> None:
    url = "/static/admin/css/base.css"
    answer = await async_client.get(url)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert len(answer.content) == int(answer.headers["Content-Length"]) > 1000
    again = await async_client.get(url, headers={"If-Modified-Since": answer.headers["Last-Modified"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await async_client.head(url)).content == b""


@pytest.mark.parametrize("model", ["changesource/tablemapping", "changesource/rowerror", "auth/user", "auth/group"])
def test_a_search_for_very_many_words_finds_nothing(admin_client: Client, model: str) -> None:
    """SQLite would refuse it, and PostgreSQL take its time."""
    page = admin_client.get(f"/admin/{model}/", {"q": "a " * 2000}).content.decode()
    assert "at most 200 characters" in page
    assert admin_client.get(f"/admin/{model}/", {"q": "a " * 100}).status_code == 200
