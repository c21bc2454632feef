"""The pages of what the daemons write, and the way to the admin."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.test import Client
from django.utils import timezone
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


def confirmed(client: Client, url: str, action: str, *rows: Model) -> str:
    """Choose an action of a list for these rows, confirm it where it asks, and return the page that follows."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    page = client.post(url, chosen, follow=True)
    if 'name="confirmed"' not in page.content.decode():
        return page.content.decode()
    return client.post(url, {**chosen, "confirmed": "yes"}, follow=True).content.decode()


def history(message: str) -> list[tuple[str, int]]:
    """What and how (an action's flag) the admin's history tells with these words, by name."""
    return sorted(LogEntry.objects.filter(change_message=message).values_list("object_repr", "action_flag"))


def test_operators_ask_replicas_to_resync(admin_client: Client) -> None:
    rows = replicas()
    chosen = {"action": "ask_to_resync", "_selected_action": [row.pk for row in rows[:2]]}
    asked = admin_client.post(LIST, chosen).content.decode()
    assert "reads everything again" in asked
    assert not watermarks.resyncs_wanted()
    assert "2 replicas are told to sync anew" in confirmed(admin_client, LIST, "ask_to_resync", *rows[:2])
    assert watermarks.resyncs_wanted().keys() == {("a", 0), ("b", 0)}
    assert history("Told to sync anew.") == [("a/0", CHANGE), ("b/0", CHANGE)]


def test_operators_forget_replicas_that_are_not_connected(admin_client: Client) -> None:
    rows = replicas()
    watermarks.note_progress("died", 0, watermarks.Progress("streaming"))
    long_ago = timezone.now() - timedelta(hours=1)
    Watermark.objects.filter(app_id="died").update(updated_at=long_ago)
    watermarks.note_watcher(1)
    chosen = [*rows[:2], *Watermark.objects.filter(app_id__in=("died", ""))]
    page = confirmed(admin_client, LIST, "forget", *chosen)
    assert "2 replicas were forgotten, 1 not: connected" in page
    assert list(Watermark.objects.order_by("app_id").values_list("app_id", flat=True)) == ["", "a", "c"]
    assert history("Forgotten.") == [("b/0", DELETION), ("died/0", DELETION)]


@pytest.mark.parametrize("action", ["ask_to_resync", "forget"])
def test_whoever_may_only_look_changes_no_replica(client: Client, action: str) -> None:
    guest = User.objects.create_user("guest", is_staff=True)
    guest.user_permissions.add(Permission.objects.get(codename="view_watermark"))
    client.force_login(guest)
    assert action not in client.get(LIST).content.decode()
    confirmed(client, LIST, action, *replicas())
    client.post(LIST, {"action": action, "_selected_action": [row.pk for row in replicas()], "confirmed": "yes"})
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
