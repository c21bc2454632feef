"""The live page's connection to a real server: who is let in, what is shown and when, and that it holds up nobody."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Permission, User
from django.test import Client
from pymongo.database import Database
from websockets.exceptions import InvalidStatus

from changesource import consumers
from changesource.mapping.formats import read_specification
from changesource.services.configuration import import_specification
from changesource.services.runtime import Runtime
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.deployment import Deployment, Server
from tests.harness.memory import MIB, Memory
from tests.harness.reader import Reader
from tests.harness.runtimes import running
from tests.harness.tally import COLLECTION, MAPPINGS, TABLE, WARM, Tally, insert
from tests.harness.viewers import VIEWERS, Viewer, looking, sessions
from tests.harness.waiting import until

CHANGES, WIDTH = 20_000, 1_000
# Some 20 MB of changes are read, made frames of and sent in the meantime; all of them at once would be far more.
GROWTH = 64 * MIB


async def status(server: Server, session: str = "", origin: str | None = None) -> int:
    """What the handshake is answered: 101 where it is let in."""
    try:
        async with looking(server, session, origin) as viewer:
            await viewer.next()
    except InvalidStatus as refusal:
        return refusal.response.status_code
    return 101


def served(deployment: DeploymentFactory, *options: str, **settings: str) -> tuple[Deployment, Server]:
    place = deployment(**settings)
    place.configure(mappings=MAPPINGS)
    return place, place.server(*options)


async def test_only_staff_who_may_view_are_let_in_and_only_from_our_own_page(deployment: DeploymentFactory) -> None:
    place, server = await asyncio.to_thread(served, deployment)
    keys = await asyncio.to_thread(sessions, place)
    assert await status(server) == 403
    assert await status(server, "made-up-session-key") == 403
    assert {name: await status(server, keys[name]) for name in VIEWERS} == {
        "viewer": 101, "half": 403, "staff": 403, "guest": 403,
    }  # fmt: skip
    elsewhere = (
        "http://elsewhere.example",
        "null",
        f"http://127.0.0.1:{server.port + 1}",
        f"http://localhost:{server.port}",
    )
    for origin in elsewhere:
        assert await status(server, keys["viewer"], origin) == 403, origin
    log = server.log_text()
    assert log.count("code=ZS125") == 5
    assert log.count("code=ZS123") == len(elsewhere)
    assert keys["viewer"] not in log


async def shown(viewer: Viewer, count: int) -> None:
    """Read until so many changes of the row ``a`` are shown."""
    async with asyncio.timeout(20):
        while len(viewer.changes) < count:
            await viewer.next(TABLE, "a")


async def test_a_change_is_shown_within_a_second(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    place, server = await asyncio.to_thread(served, deployment)
    keys = await asyncio.to_thread(sessions, place)
    async with looking(server, keys["viewer"]) as viewer:
        async with asyncio.timeout(20):
            while not viewer.lines:  # a heartbeat: the watcher is at work
                await viewer.next()
        assert viewer.told["heard"]
        took = []
        for number in range(1, 6):
            began = time.monotonic()
            await asyncio.to_thread(mongo[COLLECTION].replace_one, {"_id": "a"}, {"name": f"{number}"}, upsert=True)
            await shown(viewer, number)
            took.append(time.monotonic() - began)
        # The machine may have other things to do now and then.
        assert median(took) < 1, took
        row = {"id": "a", "name": "1"}
        assert viewer.changes[0] == {"type": "insert", "table": TABLE, "key": {"id": "a"}, "value": row}
        line = next(line for line in viewer.lines if "change" in line)
        assert line["frame"].startswith('["data",{"tag":"insert"')
        assert abs(line["time"] - time.time()) < 10
        await asyncio.to_thread(mongo[WARM].insert_one, {"_id": "w", "name": "of another table"})
        await asyncio.to_thread(mongo[COLLECTION].update_one, {"_id": "a"}, {"$set": {"name": "6"}})
        await shown(viewer, 6)
        await asyncio.to_thread(mongo[COLLECTION].delete_one, {"_id": "a"})
        await shown(viewer, 7)
        assert [change["type"] for change in viewer.changes] == ["insert", *["update"] * 5, "delete"]


async def test_a_page_that_never_reads_holds_up_nobody(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """A replica gets every change meanwhile; the page hears how many it was not shown."""
    place, server = await asyncio.to_thread(served, deployment, KEEPALIVE_SECONDS="10")
    keys = await asyncio.to_thread(sessions, place)
    tally = Tally(WIDTH, CHANGES)
    reader = Reader(server.stream_url, "reader", (TABLE,), tally)
    await reader.sync()
    async with looking(server, keys["viewer"]) as viewer, looking(server, keys["viewer"]) as silent:
        await viewer.next()
        # Neither is read from now on; one never asked.
        await viewer.ask()
        following = asyncio.create_task(reader.follow(lambda: tally.changes == CHANGES))
        with Memory(server.pid) as memory:
            with memory.phase("changes"):
                await asyncio.to_thread(insert, mongo, range(CHANGES), WIDTH)
                await following
        assert tally.count == tally.changes == CHANGES
        assert memory.phases[0].growth < GROWTH, str(memory.phases[0])
        for page in (viewer, silent):
            async with asyncio.timeout(20):
                await page.read() if page is viewer else await page.next()
                while len(page.changes) + page.told["missed"] < CHANGES:
                    await page.next()
            assert len(page.changes) + page.told["missed"] == CHANGES
            assert page.told["missed"] > CHANGES / 2
            assert sum(line.get("count", 0) for line in page.lines) == page.told["missed"]


async def test_a_watcher_of_another_process_is_heard_and_one_that_is_missing_is_not(
    deployment: DeploymentFactory,
) -> None:
    place = await asyncio.to_thread(deployment, redis=True)
    place.configure(mappings=MAPPINGS)
    server = await asyncio.to_thread(place.server, "--no-watcher")
    keys = await asyncio.to_thread(sessions, place)
    async with looking(server, keys["viewer"]) as viewer:
        await viewer.next()
        assert not viewer.told["heard"]
        place.watcher()
        async with asyncio.timeout(20):
            while not viewer.told["heard"]:
                await viewer.next()


@pytest.mark.django_db
def test_the_page_and_the_way_to_it_are_shown_to_who_may_look(client: Client) -> None:
    import_specification(read_specification(MAPPINGS), "test")
    for name, (is_staff, permissions) in VIEWERS.items():
        user = User.objects.create_user(name, is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        may = name == "viewer"
        assert ('href="/admin/live/"' in client.get("/admin/").content.decode()) == may, name
        page = client.get("/admin/live/")
        assert page.status_code == (200 if may else 403 if is_staff else 302), name
        assert (f"<option>{TABLE}</option>" in page.content.decode()) == may


@pytest.mark.django_db(transaction=True)
async def test_who_logs_out_is_shown_nothing_more(
    mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is listened for once the page is gone."""
    client = Client()

    @sync_to_async
    def log_in() -> None:
        client.force_login(User.objects.create_superuser("root"))

    await log_in()
    monkeypatch.setattr(consumers, "VIEWER_SECONDS", 0)
    async with running(mongodb.uri, mongo.name) as runtime:
        monkeypatch.setattr(consumers, "runtime", lambda: runtime)
        from zerosource_project.asgi import application  # noqa: PLC0415 - Django must be set up

        cookie = f"sessionid={client.cookies['sessionid'].value}".encode()
        page = WebsocketCommunicator(application, "/admin/live/changes", [(b"cookie", cookie)])
        assert (await page.connect())[0]
        ask = '{"table": "", "key": "", "paused": false}'
        await page.send_to(text_data="not what it reads")
        await page.send_to(text_data=ask)
        await page.receive_from(timeout=5)
        assert listens(runtime)
        await sync_to_async(client.logout)()
        await page.send_to(text_data=ask)
        assert (await page.receive_output(timeout=5))["code"] == consumers.CLOSE_NO_VIEWER
        await until(lambda: not listens(runtime))
        await page.disconnect()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ask", [None, '{"table": "", "key": "", "paused": false}'])
async def test_a_page_that_asks_for_nothing_ends_with_its_session(
    mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch, ask: str | None
) -> None:
    """Else it would take one of MAX_LIVE_PAGES for good."""
    client = Client()
    root = await sync_to_async(User.objects.create_superuser)("root")
    await sync_to_async(client.force_login)(root)
    monkeypatch.setattr(consumers, "VIEWER_SECONDS", 0.2)
    async with running(mongodb.uri, mongo.name) as runtime:
        monkeypatch.setattr(consumers, "runtime", lambda: runtime)
        from zerosource_project.asgi import application  # noqa: PLC0415 - Django must be set up

        cookie = f"sessionid={client.cookies['sessionid'].value}".encode()
        page = WebsocketCommunicator(application, "/admin/live/changes", [(b"cookie", cookie)])
        assert (await page.connect())[0]
        if ask:
            await page.send_to(text_data=ask)
            await page.receive_from(timeout=5)
        await asyncio.sleep(0.5)
        assert await page.receive_nothing()
        await sync_to_async(client.logout)()
        assert (await page.receive_output(timeout=5))["code"] == consumers.CLOSE_NO_VIEWER
        await until(lambda: not listens(runtime))
        await page.disconnect()


def listens(runtime: Runtime) -> bool:
    """Whether the process takes batches from the channel layer."""
    return runtime.subscriber._task is not None
