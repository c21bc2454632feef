"""Mappings that another instance, a server or a file gives, read again and again: real instances, real servers."""

from __future__ import annotations

import asyncio
import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pymongo.database import Database
from websockets.exceptions import ConnectionClosed

from devtools.postgres import Postgres
from devtools.processes import wait_until
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill, last_write
from tests.harness.deployment import Deployment, Server
from tests.harness.reader import Reader
from tests.harness.relay import SILENT, relayed
from tests.harness.scraping import scraped, value_of

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "key-of-the-instance-that-is-followed"
KEPT = "managed mappings cannot be used, keeping the last ones"
WELL = "managed mappings can be used again"


def edited() -> dict[str, Any]:
    """The application's mappings with a column more in ``note``."""
    mappings = deepcopy(MAPPINGS)
    mappings["tables"]["note"]["columns"]["again"] = {"type": "string", "path": "body", "optional": True}
    return mappings


def imported(place: Deployment, mappings: dict[str, Any]) -> None:
    """Publish them there."""
    file = place.directory / "imported.json"
    file.write_text(json.dumps(mappings))
    place.manage("importmappings", str(file))


def status_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(scraped(f"{server.url}/metadata/status"))
    return found


def reloads(server: Server, result: str) -> float:
    return value_of(scraped(f"{server.url}/metrics"), "zerosource_reloads_total", result=result) or 0.0


def lines_of(server: Server, event: str) -> list[str]:
    return [line for line in server.log_text().splitlines() if event in line]


async def follows(replica: Reader) -> None:
    """Read until the server ends the connection; the frames are in the model."""
    async with replica.connection() as socket:
        try:
            async for _ in replica.frames(socket):
                pass
        except ConnectionClosed:
            pass


async def test_an_instance_follows_another(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """What is published there is served here; what cannot be used changes nothing, and is told once of each kind."""
    fill(mongo, 5, others=5)
    followed = deployment(CHANGE_SOURCE_API_KEYS=KEY)
    imported(followed, MAPPINGS)
    first = followed.server("--no-watcher")
    with relayed(first.url) as relay:
        place = deployment(
            TABLE_MAPPINGS_URL=f"http://any:{KEY}@{relay.place}/metadata/tables?publication=people",
            RELOAD_SECONDS="1",
            OPEN_METRICS="on",
        )
        server = await asyncio.to_thread(place.server)
        replica = Reader(server.stream_url)
        await replica.sync()
        assert set(replica.model.tables) >= {"note", "user"}
        assert "item" not in replica.model.tables
        await asyncio.to_thread(wait_until, lambda: relay.statuses[304] >= 2, "conditional requests", 20)
        # At the start, and once more by the process that watches; what follows is conditional.
        assert relay.statuses[200] == 2
        following = asyncio.create_task(follows(replica))
        await asyncio.to_thread(imported, followed, edited())
        await asyncio.wait_for(following, 15)
        assert replica.model.reset is not None
        assert replica.model.reset["errorDetails"]["code"] == "ZS203"
        assert relay.statuses[200] == 3
        newer = Reader(server.stream_url)
        await newer.sync()
        await asyncio.to_thread(last_write, mongo, "note")
        rows = newer.model.rows("note")
        assert rows
        assert all(row["again"] == row["body"] for row in rows.values())
        # Going back to what was published before is a change as well.
        following = asyncio.create_task(follows(newer))
        await asyncio.to_thread(imported, followed, MAPPINGS)
        await asyncio.wait_for(following, 15)
        assert newer.model.reset is not None
        assert newer.model.reset["errorDetails"]["code"] == "ZS203"
        await asyncio.to_thread(faults_change_nothing, server, relay)
    assert KEY not in server.log_text()
    assert set(relay.statuses) == {200, 304}


def faults_change_nothing(server: Server, relay: Any) -> None:
    """Have the followed instance refuse, give rubbish, and go away; each is met several times."""
    before = status_of(server)["mappings"]["revision"]
    assert status_of(server)["mappings"]["source"]["code"] is None
    faults = {
        "answers with the status 500": ((500, b"{}"), "ZS102"),
        "is not JSON": ((200, b"rubbish"), "ZS110"),
        "there is no column": ((200, json.dumps(unsound()).encode()), "ZS110"),
        "cannot be read: RemoteDisconnected": ((0, b""), "ZS102"),
    }
    for number, (words, (answer, code)) in enumerate(faults.items(), 1):
        relay.answer(answer)
        wait_until(lambda: relay.held >= 2, f"twice {words}", 20)
        wait_until(lambda number=number: len(lines_of(server, KEPT)) == number, words, 10)  # type: ignore[misc]
        (line,) = [line for line in lines_of(server, KEPT) if words in line]
        assert f"code={code}" in line
        found = status_of(server)
        assert found["mappings"]["revision"] == before
        assert (found["mappings"]["source"]["result"], found["mappings"]["source"]["code"]) == ("failed", code)
        assert {"code": "mappings-failed", "severity": "warning", "names": []} in found["attention"]
    assert reloads(server, "failed") >= 8
    assert not lines_of(server, WELL)
    relay.answer(None)
    wait_until(lambda: lines_of(server, WELL), "the recovery", 10)
    wait_until(lambda: status_of(server)["mappings"]["source"]["result"] == "unchanged", "all is well", 10)
    assert "mappings-failed" not in [one["code"] for one in status_of(server)["attention"]]
    assert status_of(server)["mappings"]["revision"] == before
    # Told anew once it had been well.
    relay.answer((500, b"{}"))
    wait_until(lambda: len(lines_of(server, KEPT)) == 5, "the same fault, later", 10)
    relay.answer(None)
    assert len(lines_of(server, KEPT)) == 5


def unsound() -> dict[str, Any]:
    """Mappings that do not compile."""
    mappings = deepcopy(MAPPINGS)
    mappings["tables"]["note"]["primaryKey"] = ["nothing"]
    return mappings


@pytest.mark.slow
def test_a_download_that_hangs_holds_up_no_end(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    fill(mongo, 5, others=5)
    followed = deployment(OPEN_METRICS="on")
    imported(followed, MAPPINGS)
    with relayed(followed.server("--no-watcher").url) as relay:
        url = f"http://{relay.place}/metadata/tables"
        server = deployment(TABLE_MAPPINGS_URL=url, RELOAD_SECONDS="1").server()
        relay.answer((SILENT, b""))
        wait_until(lambda: relay.held, "the download", 20)
        assert server.answers("/readyz")
        started = time.monotonic()
        assert server.stop(25) == 0
        assert time.monotonic() - started < 8  # a download may take 30 s
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize(
    "shared", [pytest.param(True, id="redis", marks=pytest.mark.slow), pytest.param(False, id="in-memory")]
)
def test_of_several_processes_each_content_makes_one_revision(
    deployment: DeploymentFactory, mongo: Database[Any], shared: bool
) -> None:
    """With Redis the leader reads the file again, without it both do. An older content is held back."""
    fill(mongo, 5, others=5)
    place = deployment("postgres", redis=shared, RELOAD_SECONDS="1", OPEN_METRICS="on")
    place.configure(mappings=MAPPINGS)
    servers = [place.server(), place.server()]
    first = status_of(servers[0])["mappings"]["revision"]
    place.configure(mappings=edited())
    for server in servers:
        wait_until(lambda server=server: status_of(server)["mappings"]["revision"] > first, "the edit", 20)  # type: ignore[misc]
    second = status_of(servers[0])["mappings"]["revision"]
    # Each, or the leader alone.
    reading = servers if not shared else [one for one in servers if lines_of(one, " leading ")]
    for server in reading:
        wait_until(lambda server=server: reloads(server, "unchanged") >= 3, "readings", 20)  # type: ignore[misc]
    assert len(reading) == (1 if shared else 2)
    assert sum(reloads(server, "loaded") for server in servers) == 1
    assert all(reloads(server, "unchanged") == 0 for server in servers if server not in reading)
    place.configure(mappings=MAPPINGS)
    wait_until(lambda: status_of(servers[0])["mappings"]["source"]["result"] == "older", "the older content", 20)
    assert "mappings-older" in [one["code"] for one in status_of(servers[1])["attention"]]
    assert status_of(servers[0])["mappings"]["revision"] == second
    place.manage("reloadmappings")
    third = second + 1
    wait_until(lambda: status_of(servers[1])["mappings"]["revision"] == third, "what an operator wants", 10)
    wait_until(lambda: status_of(servers[1])["mappings"]["source"]["result"] == "unchanged", "all is well", 10)
    for server in servers:
        assert not lines_of(server, KEPT)
        assert "Traceback" not in server.log_text()
        assert len(lines_of(server, "older ones that were replaced")) <= 1


def test_the_database_goes_away_meanwhile(deployment: DeploymentFactory, mongo: Database[Any], tmp_path: Path) -> None:
    fill(mongo, 5, others=5)
    own = Postgres(tmp_path / "postgres")
    own.start()
    try:
        place = deployment(
            migrate=False, DATABASE_URL=own.create_database("zerosource"), RELOAD_SECONDS="1", OPEN_METRICS="on"
        )
        place.configure(mappings=MAPPINGS)
        server = place.server()
        wait_until(lambda: reloads(server, "unchanged"), "the first reading", 20)
        own.stop()
        wait_until(lambda: lines_of(server, KEPT), "the fault", 20)
        with pytest.raises(HTTPError) as refused:
            status_of(server)
        assert refused.value.code == 503
        assert refused.value.read().startswith(b"ZS103 ")
        place.configure(mappings=edited())
        own.start()
        wait_until(lambda: lines_of(server, WELL), "the recovery", 30)
        assert reloads(server, "loaded") == 1
        assert status_of(server)["mappings"]["source"]["result"] in ("loaded", "unchanged")
        assert {line.partition("code=")[2][:5] for line in lines_of(server, KEPT)} == {"ZS103"}
        assert "Traceback" not in server.log_text()
    finally:
        own.stop()
