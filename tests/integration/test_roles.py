"""What a viewer, an operator and an admin may do: each page and action, by GET and by POST."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from typing import Any, NamedTuple

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db.migrations.state import StateApps
from django.test import Client
from django.urls import reverse

from changesource.models import ApiKey, MappingRevision, Publication, RowError, TableMapping, Watermark
from changesource.services.roles import make_roles
from tests.harness.desk import ADMIN, chosen, confirmed, file, logged_in, mapped, person, revisions, scene, state

pytestmark = pytest.mark.django_db

KEY_PAGE = f"{ADMIN}/apikey/"


class Deed(NamedTuple):
    """Something that somebody does by the admin, and the pages that are for those alone who may."""

    name: str
    do: Callable[[Client], object]
    pages: Callable[[], list[str]] = list


def table(name: str = "message") -> TableMapping:
    return TableMapping.objects.get(name=name)


def edited(client: Client) -> object:
    """Save a table's form with another collection, as it stands else."""
    url = reverse("admin:changesource_tablemapping_change", args=(table().pk,))
    page = client.get(url)
    form = page.context["adminform"].form
    if not form.fields:
        return client.post(url, {"name": "message", "collection": "elsewhere"})
    data = {name: form[name].value() for name in form.fields}
    formset = page.context["inline_admin_formsets"][0].formset
    data |= {
        f"{formset.prefix}-{name}": field.value() for name, field in ((f.name, f) for f in formset.management_form)
    }
    data[f"{formset.prefix}-TOTAL_FORMS"] = len(formset.initial_forms)
    for one in formset.initial_forms:
        data |= {one.add_prefix(name): one[name].value() for name in one.fields}
        data[one.add_prefix("id")] = one.instance.pk
    data = {name: value for name, value in data.items() if value is not None and value is not False}
    return client.post(url, {**data, "collection": "elsewhere"})


def change_page(model: type[Any]) -> str:
    row = model._default_manager.first()
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=(row.pk,))


def delete_page(model: type[Any]) -> str:
    return change_page(model).replace("/change/", "/delete/")


OPERATING = [
    Deed("edit", edited),
    Deed(
        "delete a publication",
        lambda client: client.post(delete_page(Publication), {"post": "yes"}),
        lambda: [delete_page(Publication), delete_page(TableMapping), f"{ADMIN}/publication/add/"],
    ),
    Deed("add a publication", lambda client: client.post(f"{ADMIN}/publication/add/", {"name": "more"})),
    Deed("disable", lambda client: chosen(client, "tablemapping", "disable", table())),
    Deed("delete tables", lambda client: chosen(client, "tablemapping", "delete_selected", table()) and client.post(
        f"{ADMIN}/tablemapping/", {"action": "delete_selected", "_selected_action": [table().pk], "post": "yes"})),
    Deed("publish", lambda client: client.post(f"{ADMIN}/tablemapping/publish/", {"note": "why"}),
         lambda: [f"{ADMIN}/tablemapping/publish/"]),
    Deed(
        "import",
        lambda client: confirmed(client, f"{ADMIN}/tablemapping/import/", {"mappings": file({"new": mapped("new")})}),
        lambda: [f"{ADMIN}/tablemapping/import/", f"{ADMIN}/tablemapping/load/"],
    ),
    Deed(
        "restore",
        lambda client: confirmed(client, f"{ADMIN}/mappingrevision/{revisions()[0]}/restore/", {}),
        lambda: [f"{ADMIN}/mappingrevision/{revisions()[0]}/restore/"],
    ),
    Deed("resync", lambda client: chosen(client, "watermark", "ask_to_resync", Watermark.objects.get())),
    Deed("forget", lambda client: chosen(client, "watermark", "forget", Watermark.objects.get())),
    Deed("retry", lambda client: chosen(client, "rowerror", "retry", RowError.objects.get())),
]  # fmt: skip
ADMINISTERING = [
    Deed("make a key", lambda client: client.post(f"{KEY_PAGE}add/", {"name": "new"}), lambda: [f"{KEY_PAGE}add/"]),
    Deed("revoke a key", lambda client: chosen(client, "apikey", "revoke", ApiKey.objects.get())),
    Deed(
        "make a user",
        lambda client: client.post(
            "/admin/auth/user/add/",
            {"username": "new", "usable_password": "true", "password1": "k7#hhWq2", "password2": "k7#hhWq2"},
        ),
        lambda: ["/admin/auth/user/", "/admin/auth/user/add/", change_page(User), change_page(Group)],
    ),
    Deed("delete a group", lambda client: client.post(delete_page(Group), {"post": "yes"})),
]


def by_name(deed: Deed) -> str:
    return deed.name


def attempted(client: Client, deed: Deed) -> bool:
    """Whether the deed changed anything."""
    before = state()
    deed.do(client)
    return state() != before


@pytest.fixture(autouse=True)
def _scene() -> None:
    scene()
    User.objects.create_user("colleague")


@pytest.mark.parametrize("deed", [*OPERATING, *ADMINISTERING], ids=by_name)
def test_a_viewer_changes_nothing(deed: Deed) -> None:
    client = logged_in("viewer")
    assert not attempted(client, deed)
    for page in deed.pages():
        assert [client.get(page).status_code, client.post(page, {"confirmed": "yes"}).status_code] == [403, 403], page


@pytest.mark.parametrize("deed", OPERATING, ids=by_name)
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_operators_edit_and_publish(role: str, deed: Deed) -> None:
    assert attempted(logged_in(role), deed)


@pytest.mark.parametrize("deed", ADMINISTERING, ids=by_name)
def test_keys_users_and_groups_are_for_admins(deed: Deed) -> None:
    operator = logged_in("operator")
    assert not attempted(operator, deed)
    for page in deed.pages():
        assert [operator.get(page).status_code, operator.post(page, {}).status_code] == [403, 403], page
    assert attempted(logged_in("admin"), deed)


def test_a_viewer_sees_all_that_is_ours_and_finds_no_button() -> None:
    client = logged_in("viewer")
    for model in admin.site._registry:
        if model._meta.app_label == "changesource":
            page = client.get(reverse(f"admin:changesource_{model._meta.model_name}_changelist"))
            assert page.status_code == 200, model
            assert not page.context["has_add_permission"], model
            row = model._default_manager.first()
            if row is not None:
                assert 'name="_save"' not in client.get(change_page(model)).content.decode(), model
    RowError.objects.all().delete()
    empty = client.get(f"{ADMIN}/rowerror/").content.decode()
    assert "Nothing here yet" in empty
    assert "/rowerror/add/" not in empty
    tables = client.get(f"{ADMIN}/tablemapping/").content.decode()
    assert "Export mappings" in tables
    assert "Import mappings" not in tables
    assert ">Publish<" not in tables
    assert client.get(f"{ADMIN}/mappingrevision/compare/").status_code == 200
    assert "Restore" not in client.get(change_page(MappingRevision)).content.decode()


def test_a_viewer_reads_filters_and_pipelines_as_they_are_written() -> None:
    TableMapping.objects.update(filter={"deleted": {"$ne": True}}, pipeline=[{"$unwind": "$members"}])
    page = unescape(logged_in("viewer").get(change_page(TableMapping)).content.decode())
    assert '{"deleted": {"$ne": true}}' in page
    assert '[{"$unwind": "$members"}]' in page


@pytest.mark.parametrize("page", ["tablemapping/export/", "tablemapping/schema/json/", "mappingrevision/compare/"])
def test_staff_without_a_role_reads_nothing(client: Client, page: str) -> None:
    client.force_login(User.objects.create_user("guest", is_staff=True))
    assert client.get(f"{ADMIN}/{page}").status_code == 403


def test_roles_are_made_again_and_kept_as_they_are_documented() -> None:
    rights = {group.name: set(group.permissions.all()) for group in Group.objects.all()}
    assert {"viewer", "operator", "admin"} == set(rights)
    assert rights["viewer"] < rights["operator"] < rights["admin"]
    Group.objects.get(name="viewer").delete()
    Group.objects.get(name="operator").permissions.clear()
    extra = Group.objects.create(name="ours")
    call_command("migrate", verbosity=0)
    assert {group.name: set(group.permissions.all()) for group in Group.objects.all()} == {**rights, "ours": set()}
    assert extra.pk


def test_roles_that_are_right_are_not_written(django_assert_max_num_queries: Any) -> None:
    """Each command of an operator comes by here while the server writes to the same file."""
    with django_assert_max_num_queries(7) as asked:
        make_roles()
    assert [one["sql"] for one in asked if not one["sql"].startswith("SELECT")] == []


def test_an_editor_who_may_not_publish_is_not_offered_it() -> None:
    client = logged_in("operator")
    page = change_page(TableMapping)
    assert "Save and publish" in client.get(page).content.decode()
    editors = Group.objects.create(name="editors")
    operator = Group.objects.get(name="operator")
    editors.permissions.set(operator.permissions.exclude(codename="add_mappingrevision"))
    User.objects.get(username="operator").groups.set([editors])
    assert "Save draft" in client.get(page).content.decode()
    assert "Save and publish" not in client.get(page).content.decode()
    assert "Review and publish" not in client.get(f"{ADMIN}/tablemapping/").content.decode()
    for path in ("publish", "import", "load"):
        assert client.post(f"{ADMIN}/tablemapping/{path}/", {"confirmed": "yes"}).status_code == 403, path


def test_without_users_there_are_no_roles() -> None:
    """Where this app was migrated alone, as by ``migrate changesource``."""
    before = state()
    make_roles(apps=StateApps([], {}))
    assert state() == before


def test_the_role_does_not_make_somebody_staff(client: Client) -> None:
    user = person("admin")
    user.is_staff = False
    user.save()
    client.force_login(user)
    assert client.get("/admin/", follow=True).redirect_chain
