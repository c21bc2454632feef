"""POST_IMAGES: what is switched on, and what the feed reads in each setting."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from bson.binary import Binary
from pymongo import MongoClient
from pymongo.database import Database

from changesource.exceptions import PostImagesMissing
from changesource.mapping.needs import EVERYTHING
from changesource.sources.mongodb.source import MongoSource
from changesource.sources.mongodb.survey import PostImages
from changesource.stream.events import Event
from devtools.secantusdb import SecantusDB
from tests.conftest import MongoServer
from tests.harness.app import fill
from tests.harness.failpoints import failing
from tests.harness.whole import BARRIERS, Whole, without_history

pytestmark = pytest.mark.django_db(transaction=True)
SETTINGS: tuple[PostImages, ...] = ("auto", "required", "off")
each_setting = pytest.mark.parametrize("setting", SETTINGS)
MAPPED = ["items", "notes", "rooms", "users"]


class Wholes:
    """Makes a ``Whole`` of each setting."""

    def __init__(self, uri: str, database: Database[Any]) -> None:
        self._uri = uri
        self._database = database
        self.made: list[Whole] = []

    def __call__(self, setting: PostImages) -> Whole:
        mapping = without_history(self._database.name)
        self.made.append(Whole(self._uri, self._database, mapping=mapping, post_images=setting, keepalive=0.3))
        return self.made[-1]


@pytest.fixture
async def whole(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[Wholes]:
    fill(mongo, 20, others=10)
    wholes = Wholes(mongodb.uri, mongo)
    yield wholes
    for made in wholes.made:
        await made.close()


def imaged(database: Database[Any]) -> list[str]:
    """Return the collections of which MongoDB says that it keeps images."""
    found = {c["name"]: c["options"].get("changeStreamPreAndPostImages", {}) for c in database.list_collections()}
    return sorted(name for name, images in found.items() if images.get("enabled"))


async def events(source: MongoSource, after: int, until: int) -> Sequence[Event]:
    """Return what a feed gives up to a barrier."""
    feed, found = await source.feed(dict.fromkeys(MAPPED, EVERYTHING), after), []
    try:
        while not found or found[-1].cluster_time < until:
            found.extend(await feed.poll(200) or ())
    finally:
        await feed.close()
    return found


@each_setting
async def test_what_is_switched_on(whole: Wholes, mongo: Database[Any], setting: PostImages) -> None:
    """On the mapped collections that exist, and on no other; it may be done again and again."""
    mongo["unmapped"].insert_one({})
    source = whole(setting).source
    for _ in range(2):
        await source.prepare([*MAPPED, "missing"])
        assert imaged(mongo) == ([] if setting == "off" else MAPPED)
    assert source.full_document == ("updateLookup" if setting == "off" else "whenAvailable")
    assert "missing" not in mongo.list_collection_names()


@each_setting
async def test_a_user_who_may_not_switch_them_on(secantusdb: Callable[..., SecantusDB], setting: PostImages) -> None:
    """``auto`` falls back with a warning, ``required`` refuses in words, ``off`` does not try."""
    server = await asyncio.to_thread(secantusdb)
    with MongoClient[dict[str, Any]](server.uri) as client:
        fill(client["own"], 5, others=5)
        source = MongoSource(server.uri, "own", BARRIERS, post_images=setting)
        with failing(client, ["collMod"], "alwaysOn", code=13):
            if setting == "required":
                with pytest.raises(PostImagesMissing, match=r"ZS315 .*items.*collMod.*POST_IMAGES=auto"):
                    await source.prepare(MAPPED)
            else:
                await source.prepare(MAPPED)
        assert source.full_document == "updateLookup"
        assert imaged(client["own"]) == []
        await source.prepare(MAPPED)
        assert imaged(client["own"]) == ([] if setting == "off" else MAPPED)
        await source.close()


@each_setting
async def test_an_image_that_mongodb_has_not(whole: Wholes, mongo: Database[Any], setting: PostImages) -> None:
    """A null document is looked up; where the document is gone, it stays null, which deletes the row."""
    source = whole(setting).source
    await source.prepare(MAPPED)
    # As where the images have expired, or were not kept at the time.
    for name in MAPPED if setting != "off" else ():
        mongo.command({"collMod": name, "changeStreamPreAndPostImages": {"enabled": False}})
    began = await source.barrier("test")
    mongo["items"].update_one({"_id": "item-1"}, {"$set": {"name": "one"}})
    mongo["items"].update_one({"_id": "item-2"}, {"$set": {"name": "two"}})
    mongo["items"].delete_one({"_id": "item-2"})
    note = Binary.from_uuid(uuid.UUID(int=3))
    mongo["notes"].replace_one({"_id": note}, {"body": "replaced"})
    mongo["notes"].update_one({"_id": note}, {"$set": {"body": "updated"}})
    mongo["rooms"].update_one({"_id": 3}, {"$set": {"title": "three"}})
    found = await events(source, began, await source.barrier("test"))
    told = [(e.kind, e.collection, e.document) for e in found if e.kind != "barrier"]
    assert [kind for kind, _, _ in told] == ["update", "update", "delete", "replace", "update", "update"]
    names = [document.get("name", document.get("body", document.get("title"))) if document else None
             for _, _, document in told]  # fmt: skip
    assert names[:3] == ["one", None, None]
    assert names[3] in ("replaced", "updated")
    assert names[4:] == ["updated", "three"]


@each_setting
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_update_and_delete_before_the_event_is_read(
    whole: Wholes, mongo: Database[Any], setting: PostImages, watched: bool
) -> None:
    """While streaming and while away: the row is gone, nobody is reset."""
    it = whole(setting)
    await it.source.prepare(MAPPED)
    replica = it.replica()
    await replica.sync()

    def write(name: str) -> None:
        for number in range(10):
            mongo["items"].insert_one({"_id": f"{name}-{number}", "name": "x"})
            mongo["items"].update_one({"_id": f"{name}-{number}"}, {"$set": {"count": number}})
            mongo["items"].delete_one({"_id": f"{name}-{number}"})
        mongo["items"].update_one({"_id": "item-3"}, {"$set": {"name": name}})

    await asyncio.to_thread(write, "away")
    if watched:
        async with it.watched(), replica.connection() as connection:
            await it.settle(connection)
            await asyncio.to_thread(write, "watched")
            await it.settle(connection)
    else:
        async with replica.connection() as connection:
            await it.settle(connection)
            await asyncio.to_thread(write, "connected")
            await it.settle(connection)
    assert not [key for (key,) in replica.model.rows("item") if "-" in key and not key.startswith("item-")]


@pytest.mark.parametrize("setting", ["auto", "required"])
async def test_a_collection_that_is_made_again_gets_them_again(
    whole: Wholes, mongo: Database[Any], setting: PostImages
) -> None:
    """Within a heartbeat or so, by the watcher; what happened meanwhile is looked up."""
    it = whole(setting)
    replica = it.replica()
    await replica.sync()
    async with it.watched(), replica.connection() as connection:
        await it.settle(connection)
        assert imaged(mongo) == MAPPED
        mongo["items"].drop()
        mongo["items"].insert_one({"_id": "again", "name": "x"})
        mongo["items"].update_one({"_id": "again"}, {"$set": {"name": "y"}})
        assert "items" not in imaged(mongo)
        await it.settle(connection)
        await connection.until(lambda: imaged(mongo) == MAPPED)
        mongo["items"].update_one({"_id": "again"}, {"$set": {"name": "z"}})
        await it.settle(connection)
