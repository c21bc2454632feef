"""A revision that was published and is valid no more, as with a release that refuses what an older one took."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pymongo.database import Database
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.browser import ADMIN
from tests.harness.deployment import Deployment
from tests.harness.reader import Reader
from tests.harness.visitor import Visitor

pytestmark = pytest.mark.django_db(transaction=True)
Change = Callable[[str], str]


def with_keys(**keys: object) -> Change:
    """Gives a table of the specification these keys."""

    def change(text: str) -> str:
        specification = json.loads(text)
        specification["tables"]["item"].update(keys)
        return json.dumps(specification)

    return change


def spoil(place: Deployment, change: Change) -> None:
    """Change what is published, and nothing else."""
    path = place.environment["DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database, database:
        ((number, text),) = database.execute("SELECT number, specification FROM changesource_mappingrevision")
        statement = "UPDATE changesource_mappingrevision SET specification = ?, content_hash = ? WHERE number = ?"
        database.execute(statement, [change(text), "another", number])


REFUSED, UNREADABLE = with_keys(filter={"name": {"$unknown": 1}}), with_keys(colour="red")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(REFUSED, "operator $unknown is not", id="refused"),
        pytest.param(UNREADABLE, "colour: is not a known key", id="unreadable"),
    ],
)
async def test_it_is_told_and_a_publishing_mends_it(
    deployment: DeploymentFactory, mongo: Database[Any], change: Change, why: str
) -> None:
    fill(mongo, 5, others=5)
    place = deployment(OPEN_METRICS="on", **ADMIN)
    file = place.directory / "mappings.json"
    file.write_text(json.dumps(MAPPINGS))
    place.manage("importmappings", str(file))
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url)
    await reader.sync()
    assert server.stop() == 0
    spoil(place, change)

    server = await asyncio.to_thread(place.server)
    told = [line for line in server.log_text().splitlines() if "what is published cannot be served" in line]
    assert len(told) == 1
    assert "code=ZS110" in told[0]
    assert why in told[0]
    assert not server.answers("/readyz")
    with pytest.raises(InvalidStatus):
        async with connect(f"{server.stream_url}?appID=reader&shardNum=0"):
            pass
    await asyncio.to_thread(server.wait_until, lambda: "watcher retries" in server.log_text(), "the watcher", 20)

    pages: dict[str, str] = {}
    visitor = Visitor(server, pages.__setitem__)
    visitor.log_in()
    assert len(visitor.walk()) > 20
    assert [where for where in pages if not where.endswith((" 200", " 404", " 503"))] == []
    assert "What is published cannot be served" in pages["/admin/ 200"]
    status = json.loads(visitor.get("/metadata/status")[1])
    assert "mappings-unservable" in {one["code"] for one in status["attention"]}

    path = "/admin/changesource/tablemapping/publish/"
    fields = dict(re.findall(r'name="(csrfmiddlewaretoken|seen)" value="([^"]+)"', visitor.get(path)[1]))
    assert "Published as revision 2" in visitor.get(path, fields)[1]
    reader.stream_url = server.stream_url
    mongo["items"].insert_one({"_id": "new", "name": "new"})
    await reader.follow(lambda: ("new",) in reader.model.rows("item"))
    assert server.answers("/readyz")
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("change", [pytest.param(REFUSED, id="refused"), pytest.param(UNREADABLE, id="unreadable")])
async def test_a_file_mends_what_came_from_it(
    deployment: DeploymentFactory, mongo: Database[Any], change: Change
) -> None:
    fill(mongo, 5, others=5)
    place = deployment(RELOAD_SECONDS="1")
    place.configure(mappings=MAPPINGS)
    server = await asyncio.to_thread(place.server)
    reader = Reader(server.stream_url)
    await reader.sync()
    assert server.stop() == 0
    spoil(place, change)

    server = await asyncio.to_thread(place.server)
    assert "what is published cannot be served" in server.log_text()
    corrected = json.loads(json.dumps(MAPPINGS))
    corrected["tables"]["item"]["description"] = "Another content."
    place.configure(mappings=corrected)
    await asyncio.to_thread(server.wait_until, lambda: server.answers("/readyz"), "the corrected file", 20)
    reader.stream_url = server.stream_url
    mongo["items"].insert_one({"_id": "new", "name": "new"})
    await reader.follow(lambda: ("new",) in reader.model.rows("item"))
