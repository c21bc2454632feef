"""The pages of what the daemons write, and the way to the admin."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils.html import escape

from changesource.models import MappingRevision, Watermark
from changesource.store import watermarks

pytestmark = pytest.mark.django_db

LIST = "/admin/changesource/watermark/"


def replicas() -> list[Watermark]:
    """Three replicas, of which the first is connected."""
    for app, state in (("a", "streaming"), ("b", "disconnected"), ("c", "disconnected")):
        watermarks.note_progress(app, 0, watermarks.Progress(state))
    return list(Watermark.objects.order_by("app_id"))


def test_the_root_leads_to_the_admin(admin_client: Client) -> None:
    assert admin_client.get("/").headers["Location"] == "/admin/"


def test_operators_ask_replicas_to_resync(admin_client: Client) -> None:
    chosen = {"action": "ask_to_resync", "_selected_action": [row.pk for row in replicas()[:2]]}
    page = admin_client.post(LIST, chosen, follow=True)
    assert "2 replicas are told to sync anew" in page.content.decode()
    assert watermarks.resyncs_wanted().keys() == {("a", 0), ("b", 0)}


def test_operators_forget_replicas_that_are_not_connected(admin_client: Client) -> None:
    chosen = {"action": "forget", "_selected_action": [row.pk for row in replicas()[:2]]}
    page = admin_client.post(LIST, chosen, follow=True)
    assert "1 replicas were forgotten" in page.content.decode()
    assert list(Watermark.objects.order_by("app_id").values_list("app_id", flat=True)) == ["a", "c"]


@pytest.mark.parametrize("action", ["ask_to_resync", "forget"])
def test_whoever_may_only_look_changes_no_replica(client: Client, action: str) -> None:
    guest = User.objects.create_user("guest", is_staff=True)
    guest.user_permissions.add(Permission.objects.get(codename="view_watermark"))
    client.force_login(guest)
    assert client.get(LIST).status_code == 200
    chosen = {"action": action, "_selected_action": [row.pk for row in replicas()]}
    assert client.post(LIST, chosen).status_code == 403
    assert Watermark.objects.count() == 3
    assert not watermarks.resyncs_wanted()


@pytest.mark.parametrize(
    ("documents", "left", "words"),
    [
        (0, None, "0 rows of 0 documents, of about 1,000,000 (0%)"),
        (
            250_000,
            3725,
            "250,000 rows of 250,000 documents, of about 1,000,000 (25%), 201 a second, 1:02:05 left",
        ),
        (1_000_000, 0, "1,000,000 rows of 1,000,000 documents<"),
    ],
)
def test_how_far_a_snapshot_is_stands_in_words(
    admin_client: Client, documents: int, left: int | None, words: str
) -> None:
    snapshot = {"rows": documents, "documents": documents, "expected": 1_000_000, "seconds_left": left}
    progress = watermarks.Progress("syncing", snapshot={**snapshot, "documents_per_second": 201})
    watermarks.note_progress("a", 0, progress)
    assert words in admin_client.get(LIST).content.decode()


def test_a_revision_is_shown_as_json(admin_client: Client) -> None:
    row = MappingRevision.objects.create(specification={"tables": {"t": {"enabled": True}}}, fingerprints={})
    page = admin_client.get(f"/admin/changesource/mappingrevision/{row.pk}/change/").content.decode()
    assert escape('"enabled": true') in page
