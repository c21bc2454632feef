"""The start page and what it rests on: bounded history, a constant number of queries, permissions, MongoDB away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Max, Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pymongo.database import Database

from changesource import conf
from changesource.exceptions import NotReplicaSet, SourceUnavailable
from changesource.models import Lease, ReplicaMinute, RowError, Watermark
from changesource.protocol.watermark import Watermark as Mark
from changesource.services import overview as service
from changesource.sources.mongodb.server import describe
from changesource.sources.mongodb.source import MongoSource
from changesource.store import minutes, watermarks
from devtools.secantusdb import SecantusDB
from tests.conftest import MongoServer
from tests.harness.app import fill
from tests.harness.privileges import Guarded, documented_roles, in_database
from tests.harness.whole import Whole, without_history

pytestmark = pytest.mark.django_db

FRAGMENT = "/admin/overview/"
PATIENCE = 10.0  # seconds: two, and some for a busy machine; by itself the driver would wait for 30


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has the overview ask what these settings name, and forget what was answered before."""

    def forget() -> None:
        service._server.cache_clear()
        service._layer.cache_clear()

    def use(**settings: Any) -> None:
        forget()
        monkeypatch.setattr(service, "settings", lambda: replace(conf.settings(), **settings))

    use(mongodb_uri="mongodb://127.0.0.1:1/")
    yield use
    forget()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def replica(name: str, moment: datetime, **values: Any) -> Watermark:
    """A replica that streams, and has sent something in each of the last three minutes."""
    mark = str(Mark(int(moment.timestamp()) << 32 | 1, 7))
    row = Watermark.objects.create(
        kind="replica", app_id=name, publications=["p"], state="streaming", sent=mark, acked=mark, lag_ms=0,
        connected_at=moment, updated_at=moment, **values,
    )  # fmt: skip
    for ago in range(3):
        minutes.add(row, minutes.of(moment) - ago, 60, 1000 * ago)
    return row


def test_history_is_an_hour_and_no_more() -> None:
    now = timezone.now()
    row, other = (Watermark.objects.create(kind="replica", app_id=name) for name in "ab")
    current = minutes.of(now)
    for minute in range(current - 149, current + 1):
        minutes.add(row, minute, minute, None)
    assert ReplicaMinute.objects.count() == 60
    hour = minutes.last_hour(now)
    assert [minute for minute, _, _ in hour] == list(range(current - 59, current + 1))
    assert all(minute == rows for minute, rows, _ in hour)
    # What was written an hour ago and not overwritten is not shown.
    later = now + timedelta(minutes=45)
    assert len(minutes.last_hour(later)) == 15
    assert minutes.last_hour_of([row.pk, other.pk], later) == {row.pk: minutes.last_hour(later), other.pk: []}
    row.delete()
    assert not ReplicaMinute.objects.exists()


def test_a_minute_adds_rows_and_keeps_the_highest_lag() -> None:
    now = timezone.now()
    row, other = (Watermark.objects.create(kind="replica", app_id=name) for name in "ab")
    for rows, lag_ms in ((1, None), (10, 3000), (100, 1000), (1000, None)):
        minutes.add(row, minutes.of(now), rows, lag_ms)
    minutes.add(other, minutes.of(now), 5, 4000)
    assert minutes.last_hour_of([row.pk], now) == {row.pk: [minutes.Minute(minutes.of(now), 1111, 3000)]}
    assert minutes.last_hour(now) == [minutes.Minute(minutes.of(now), 1116, 4000)]


def test_progress_is_noted_with_its_history() -> None:
    for rows in (5, 7):
        watermarks.note_progress("a", 0, watermarks.Progress("streaming", lag=2, rows=rows, rows_per_second=1.5))
    row = Watermark.objects.get()
    assert (row.rows_per_second, row.lag_ms) == (1.5, 2000)
    found = ReplicaMinute.objects.all()
    assert (sum(one.rows for one in found), {one.lag_ms for one in found}) == (12, {2000})


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("url", ["/admin/", FRAGMENT])
def test_the_number_of_queries_is_the_same_for_any_number_of_replicas(admin_client: Client, url: str) -> None:
    now = timezone.now()
    admin_client.get(url)  # the first page of a session writes when it ends
    counts = []
    for wanted in (2, 50, service.SHOWN_REPLICAS + 20):
        for number in range(Watermark.objects.count(), wanted):
            replica(f"app{number:03}", now)
            RowError.objects.create(table=f"t{number % 7}", document_id=str(number), reason="r")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = admin_client.get(url).content.decode()
        counts.append(len(queries))
        assert page.count("<article") == min(wanted, service.SHOWN_REPLICAS)
    assert counts == [counts[0]] * 3
    assert "20 more" in page


def test_what_is_shown(admin_client: Client, asked: Callable[..., None], mongodb: MongoServer) -> None:
    asked(mongodb_uri=mongodb.uri)
    now = timezone.now()
    watermarks.note_watcher(int(now.timestamp()) << 32 | 1)
    Lease.objects.create(name="watcher", holder="host/7/ab")
    row = replica("phone-app", now, rows_per_second=12.5)
    gone = replica("old-app", now - timedelta(hours=3))
    Watermark.objects.filter(pk=gone.pk).update(state="disconnected")
    killed = replica("killed-app", now - timedelta(minutes=5))
    RowError.objects.create(table="message", document_id='"x"', column="text", reason="It is <b>odd</b>.", count=3)
    answer = admin_client.get(FRAGMENT)
    page = answer.content.decode()
    version = mongodb.client.server_info()["version"]
    for words in (
        *(version, "1 member", "Watching", "In memory", "1 connected", "of 3 known", "12 rows per second", row.sent),
        "Not heard of, though they were not closed: killed-app/0",
        "Away for longer than the oplog reaches back: killed-app/0, old-app/0",
        "Nothing is published yet",
        "1 value or row did not fit: message",
        "It is &lt;b&gt;odd&lt;/b&gt;.",
    ):
        assert words in page, words
    assert {minute for minute, _, _ in minutes.last_hour_of([killed.pk], now)[killed.pk]} != set()


def test_a_mongodb_that_does_not_answer_is_waited_for_two_seconds(
    admin_client: Client, asked: Callable[..., None], silent: int
) -> None:
    asked(mongodb_uri=f"mongodb://127.0.0.1:{silent}/?serverSelectionTimeoutMS=30000")
    replica("app", timezone.now())
    for url in ("/admin/", FRAGMENT):
        started = time.monotonic()
        page = admin_client.get(url).content.decode()
        assert time.monotonic() - started < PATIENCE
        assert "MongoDB does not answer" in page
        assert "1 connected" in page


def test_a_channel_layer_that_does_not_answer_is_said(
    admin_client: Client, asked: Callable[..., None], silent: int
) -> None:
    asked(mongodb_uri="mongodb://127.0.0.1:1/", redis_url=f"redis://127.0.0.1:{silent}/0")
    started = time.monotonic()
    page = admin_client.get(FRAGMENT).content.decode()
    assert time.monotonic() - started < PATIENCE
    assert "The channel layer does not answer" in page


def test_a_redis_that_answers(
    admin_client: Client, asked: Callable[..., None], redis: Any, mongodb: MongoServer
) -> None:
    asked(mongodb_uri=mongodb.uri, redis_url=redis.url)
    watermarks.note_watcher(int(timezone.now().timestamp()) << 32 | 1)
    Lease.objects.create(name="watcher", holder="host/7/ab")
    page = admin_client.get(FRAGMENT).content.decode()
    assert "channel layer does not answer" not in page
    assert "leader: host/7/ab" in page


@pytest.mark.usefixtures("asked")
def test_who_may_see_what(client: Client) -> None:
    replica("secret-app", timezone.now())
    RowError.objects.create(table="secret-table", document_id="1", reason="r")
    assert client.get(FRAGMENT).status_code == 302
    guest = User.objects.create_user("guest", is_staff=True)
    client.force_login(guest)
    page = client.get("/admin/")
    assert page.status_code == 200
    assert "Ask somebody who may change users" in page.content.decode()
    assert "secret-app" not in page.content.decode()
    assert client.get(FRAGMENT).status_code == 403
    guest.user_permissions.add(Permission.objects.get(codename="view_watermark"))
    for url in ("/admin/", FRAGMENT):
        page = client.get(url)
        assert "secret-app" in page.content.decode()
        assert "secret-table" not in page.content.decode()
        assert "Row errors" not in page.content.decode().partition("zs-tiles")[2]


def test_the_server_is_described(secantusdb: Callable[..., SecantusDB]) -> None:
    mongodb = secantusdb()
    before = int(time.time())
    server = describe(mongodb.uri, 5.0)
    assert (server.replica_set, server.members) == ("secantus", 1)
    assert server.oplog is not None
    assert before - 60 <= server.oplog.first <= server.oplog.last <= time.time() + 1
    assert 0 <= server.oplog.filled < 0.1
    mongodb.kill()
    started = time.monotonic()
    with pytest.raises(SourceUnavailable):
        describe(mongodb.uri, 0.5)
    assert time.monotonic() - started < PATIENCE
    with pytest.raises(NotReplicaSet):
        describe(secantusdb(options=["--standalone"]).uri, 5.0)


async def test_a_user_who_may_not_read_the_oplog(guarded: Guarded) -> None:
    own = guarded.filled()
    uri = guarded.user(own.name, in_database(documented_roles()[0], own.name))
    server = describe(uri, 5.0)
    assert server.version
    assert server.oplog is None
    source = MongoSource(uri, own.name, "_zerosource")
    try:
        assert await source.oplog() is None
    finally:
        await source.close()


@pytest.mark.django_db(transaction=True)
async def test_a_connection_notes_the_rows_that_it_sends(mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Those of the snapshot, and those of changes, each once."""
    fill(mongo, 10, others=20)
    whole = Whole(mongodb.uri, mongo, mapping=without_history(mongo.name))
    try:
        replica = whole.replica("people")
        await replica.sync()
        noted = ReplicaMinute.objects.aggregate
        assert (await sync_to_async(noted)(rows=Sum("rows")))["rows"] == 40
        async with replica.connection() as connection:
            for number in range(5):
                await asyncio.to_thread(mongo["users"].insert_one, {"profile": {"name": f"fresh {number}"}})
            await whole.settle(connection)
        found = await sync_to_async(noted)(rows=Sum("rows"), lag=Max("lag_ms"))
        assert found["rows"] == 46
        assert 0 <= found["lag"] < 60_000
        row = await Watermark.objects.aget()
        assert (row.state, row.rows_per_second) == ("disconnected", 0)
    finally:
        await whole.close()
