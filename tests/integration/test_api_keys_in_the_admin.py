"""The admin makes keys, shows each once and revokes them; only hashes are kept."""

from __future__ import annotations

import hashlib
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
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
