"""What would grow for good is bounded: the oldest goes first, and what is served or new stays."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.utils import timezone

from changesource.conf import settings
from changesource.mapping.compiled import RowFault
from changesource.models import ManagedContent, MappingRevision, RowError, Watermark
from changesource.services.bookkeeping import FaultLog
from changesource.store import history, mappings, row_errors, watermarks
from changesource.store.history import Pruned

pytestmark = pytest.mark.django_db(transaction=True)


def faults(table: str, *names: object) -> Counter[RowFault]:
    return Counter(RowFault(table, f'"{name}"', "likes", "no number", left_out=True) for name in names)


def listed(table: str) -> list[str]:
    return list(RowError.objects.filter(table=table).order_by("pk").values_list("document_id", flat=True))


def test_the_row_errors_of_a_table_that_were_seen_longest_ago_go(caplog: pytest.LogCaptureFixture) -> None:
    row_errors.record(faults("chat", "x"), 3)
    for name in "abc":
        row_errors.record(faults("message", name), 3)
    row_errors.record(faults("message", "a"), 3)
    assert "too many" not in caplog.text
    row_errors.record(faults("message", "d", "e"), 3)
    assert listed("message") == ['"a"', '"d"', '"e"']
    assert listed("chat") == ['"x"'], "another table's"
    assert "row errors are too many" in caplog.text
    row_errors.record(faults("message", *range(10)), 3)
    assert len(listed("message")) == 3


async def test_the_list_that_is_written_has_the_bound_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def record(*values: object) -> None:
        given.append(values[1])

    monkeypatch.setattr(row_errors, "record", record)
    log = FaultLog()
    for fault in faults("message", "a"):
        log.report(fault)
    assert await log.flush()
    assert given == [settings().max_row_errors]


def test_revisions_contents_actions_and_sessions_end() -> None:
    now = timezone.now()
    for n in range(5):
        MappingRevision.objects.create(specification={}, fingerprints={}, content_hash=f"{n}")
        moment = now + timedelta(seconds=n)
        ManagedContent.objects.create(content_hash=f"{n}", loaded_from="here", loaded_at=moment)
    user = User.objects.create(username="ada")
    kind = ContentType.objects.get_for_model(MappingRevision)
    for n in range(5):
        LogEntry.objects.create(user=user, content_type=kind, object_id=str(n), action_flag=2, change_message="")
    Session.objects.create(session_key="ended", session_data="", expire_date=now - timedelta(seconds=1))
    Session.objects.create(session_key="goes on", session_data="", expire_date=now + timedelta(hours=1))
    assert history.prune(10, 10) == Pruned(0, 0, 0, 1)
    assert history.prune(2, 3) == Pruned(3, 3, 2, 0)
    revisions = MappingRevision.objects.order_by("number").values_list("content_hash", flat=True)
    assert list(revisions) == ["3", "4"]
    assert [mappings.latest_content(), mappings.is_known_content("3"), mappings.is_known_content("2")] == [
        "4",
        True,
        False,
    ]
    assert sorted(LogEntry.objects.values_list("object_id", flat=True)) == ["2", "3", "4"]
    assert list(Session.objects.values_list("session_key", flat=True)) == ["goes on"]
    served = mappings.latest_identity()
    assert history.prune(0, 0) == Pruned(1, 1, 2, 0)
    assert served is not None
    assert mappings.latest_identity() == served


def test_what_is_much_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "AT_ONCE", 2)
    for n in range(5):
        MappingRevision.objects.create(specification={}, fingerprints={}, content_hash=f"{n}")
    assert [history.prune(1, 1).revisions for _ in range(3)] == [2, 2, 0]
    assert mappings.latest_identity() is not None


def test_new_replicas_are_admitted_up_to_the_bound() -> None:
    watermarks.note_watcher(1)
    assert [watermarks.admit(app_id, 0, 2) for app_id in ("a", "b", "a", "c", "b")] == [True, True, True, False, True]
    assert not watermarks.admit("a", 1, 2), "another shard is another replica"
    rows = Watermark.objects.filter(kind="replica")
    assert sorted(rows.values_list("app_id", "shard_num", "state")) == [("a", 0, "connected"), ("b", 0, "connected")]
    rows.filter(app_id="a").delete()
    assert watermarks.admit("c", 0, 2)


def test_one_app_id_has_a_tenth_of_the_replicas_at_most() -> None:
    assert [watermarks.admit("a", shard, 30) for shard in range(5)] == [True, True, True, False, False]
    assert watermarks.admit("a", 2, 30), "those that are known go on"
    assert watermarks.admit("b", 0, 30)
