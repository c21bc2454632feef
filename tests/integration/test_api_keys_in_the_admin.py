"""The admin makes keys, shows each once and revokes them; only hashes are kept."""

from __future__ import annotations

import hashlib
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client

from changesource.models import ApiKey
from changesource.store import api_keys

pytestmark = pytest.mark.django_db

LIST = "/admin/changesource/apikey/"


def good() -> set[str]:
    """The names of the keys that are not revoked."""
    return {key.name for key in api_keys.kept().keys.values() if not key.revoked}


def test_a_key_is_shown_once_and_kept_as_a_hash(admin_client: Client) -> None:
    page = admin_client.post(f"{LIST}add/", {"name": "zero", "hash": "chosen", "prefix": "chosen"}, follow=True)
    [key] = set(re.findall(r"zs_[\w-]{43}", page.content.decode()))
    row = ApiKey.objects.get()
    assert (row.name, row.hash, row.prefix) == ("zero", hashlib.sha256(key.encode()).hexdigest(), key[:9])
    assert api_keys.kept().keys == {row.hash: api_keys.KeptKey("zero", row.hash)}
    for url in (LIST, f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/history/"):
        again = admin_client.get(url).content.decode()
        assert "zero" in again
        assert key not in again
        assert row.hash not in again
    assert key not in str(LogEntry.objects.values_list())


def test_a_key_that_is_shown_lies_in_no_cookie_and_no_session(admin_client: Client) -> None:
    page = admin_client.post(f"{LIST}add/", {"name": "zero"})
    [key] = set(re.findall(r"zs_[\w-]{43}", page.content.decode()))
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    assert key not in str([morsel.value for morsel in admin_client.cookies.values()])
    assert "messages" not in admin_client.cookies
    assert key not in str([session.get_decoded() for session in Session.objects.all()])
    assert key not in admin_client.get(LIST).content.decode()


def moment(text: str) -> dict[str, str]:
    """A moment as the form sends it."""
    day, _, time = text.partition(" ")
    return {"expires_0": day, "expires_1": time}


def test_bounds_are_set_and_changed_by_the_form(admin_client: Client) -> None:
    add = f"{LIST}add/"
    for wrong, words in (
        ({"app_ids": "Shop"}, "is no app id"),
        ({"app_ids": "a b-c"}, "is no app id"),
        (moment("2020-01-01 00:00:00"), "That is past."),
        (moment("soon 00:00:00"), "Enter a valid date"),
    ):
        page = admin_client.post(add, {"name": "zero", **wrong}).content.decode()
        assert words in page
        assert "zs_" not in page.replace("zs_zs", "")
    admin_client.post(add, {"name": "zero", "app_ids": "shop_eu shop", **moment("2999-01-31 12:00:00")})
    row = ApiKey.objects.get()
    assert (row.app_ids, f"{row.expires:%F %T}") == ("shop, shop_eu", "2999-01-31 12:00:00")
    [kept] = api_keys.kept().keys.values()
    assert kept == api_keys.KeptKey("zero", row.hash, frozenset({"shop", "shop_eu"}), row.expires)
    change = f"{LIST}{row.pk}/change/"
    admin_client.post(change, {"app_ids": "shop", "hash": "h", "name": "other", "last_used_0": "2020-01-01"})
    again = ApiKey.objects.get()
    assert (again.app_ids, again.expires, again.hash, again.name) == ("shop", None, row.hash, "zero")
    told = LogEntry.objects.order_by("pk").last()
    assert told is not None
    assert told.change_message == "app_ids: shop, shop_eu -> shop; expires: 2999-01-31 12:00:00+00:00 -> none"
    api_keys.revoke("zero")
    admin_client.post(change, {"app_ids": ""})
    assert ApiKey.objects.get().app_ids == "shop"
    assert "shop" in admin_client.get(LIST).content.decode()


def test_a_name_is_taken_once(admin_client: Client) -> None:
    admin_client.post(f"{LIST}add/", {"name": "zero"}, follow=True)
    page = admin_client.post(f"{LIST}add/", {"name": "zero"})
    assert "already exists" in page.content.decode()
    assert "zs_" not in page.content.decode()
    assert ApiKey.objects.count() == 1


def test_keys_are_revoked_by_an_action_and_never_deleted(admin_client: Client, client: Client) -> None:
    rows = [ApiKey(name=name) for name in ("a", "b", "c")]
    for row in rows:
        api_keys.generate(row)
    chosen: dict[str, object] = {"action": "revoke", "_selected_action": [rows[0].pk, rows[1].pk]}
    assert "are refused, for good, and those that are open end" in admin_client.post(LIST, chosen).content.decode()
    assert good() == {"a", "b", "c"}
    chosen["confirmed"] = "yes"
    assert "2 revoked" in admin_client.post(LIST, chosen, follow=True).content.decode()
    assert good() == {"c"}
    first = ApiKey.objects.get(name="a").revoked
    assert "0 revoked" in admin_client.post(LIST, chosen, follow=True).content.decode()
    assert ApiKey.objects.get(name="a").revoked == first
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 2
    # An edit by the form changes nothing, a deletion is refused.
    admin_client.post(f"{LIST}{rows[0].pk}/change/", {"name": "z", "revoked_0": "", "revoked_1": ""})
    assert ApiKey.objects.get(pk=rows[0].pk).name == "a"
    assert ApiKey.objects.get(pk=rows[0].pk).revoked == first
    assert admin_client.post(f"{LIST}{rows[0].pk}/delete/", {"post": "yes"}).status_code == 403
    # Whoever may only look does not revoke.
    guest = User.objects.create_user("guest", is_staff=True)
    guest.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(guest)
    client.post(LIST, {"action": "revoke", "_selected_action": [rows[2].pk], "confirmed": "yes"})
    assert good() == {"c"}
