"""The MongoDB user: the documented role suffices, and what lacks is named.

The embedded MongoDB tells databases apart, not collections, and does not know some actions. What only a real one denies
is tested where ``TEST_MONGODB_URI`` names one, by a user who may make others.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo.database import Database

from changesource.exceptions import PostImagesMissing, PrivilegeMissing, SourceRefused
from changesource.mapping.needs import EVERYTHING
from changesource.mapping.questions import Questions
from changesource.sources.mongodb.inspect import inspect
from changesource.sources.mongodb.looking import looking
from changesource.sources.mongodb.source import MongoSource
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import WITHOUT_HISTORY, fill
from tests.harness.deployment import ends_with
from tests.harness.documentation import README
from tests.harness.failpoints import fail_next, failing
from tests.harness.privileges import PAGE, Guarded, Privileges, documented_roles, granted_by, in_database, without
from tests.harness.whole import BARRIERS, Whole, without_history

pytestmark = pytest.mark.django_db(transaction=True)
IS_REAL = bool(os.environ.get("TEST_MONGODB_URI"))
FULL, SMALLEST = documented_roles()
WAITS, RETRIES = "replica waits for MongoDB", "watcher retries"
Operation = Callable[[str, MongoSource], Awaitable[object]]


@pytest.fixture
def own(guarded: Guarded) -> Database[dict[str, Any]]:
    return guarded.filled()


def of(database: Database[Any], privileges: Privileges) -> Privileges:
    return in_database(privileges, database.name)


# The documented roles.


def test_the_readme_has_the_same_role() -> None:
    assert documented_roles(README) == [FULL]
    assert {action for one in SMALLEST for action in one["actions"]} < {a for one in FULL for a in one["actions"]}


@pytest.mark.parametrize("role", ["full", "smallest"])
async def test_a_documented_role_suffices(
    guarded: Guarded, own: Database[Any], role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """To publish, sync, stream and be watched, and where a collection is put in another's place."""
    full = role == "full"
    uri = guarded.user(own.name, of(own, FULL if full else SMALLEST))
    questions = Questions(typed_fields=frozenset({"name"}), history=full)
    answers = await asyncio.to_thread(
        inspect, uri, own.name, {"rooms": questions}, "auto" if full else "off", switch=True
    )
    assert answers["rooms"].id_type == "number"
    whole = Whole(
        uri,
        own,
        mapping=None if full else without_history(own.name),
        post_images="required" if full else "off",
        keepalive=0.3,
    )
    replica = whole.replica()
    await whole.source.prepare(whole.mapping.needs, whole.mapping.with_history)
    await replica.sync()
    async with whole.watched(), replica.connection() as connection:
        await whole.settle(connection)
        own["new"].insert_many([{"_id": f"new-{n}", "name": "x"} for n in range(5)])
        own["new"].rename("items", dropTarget=True)
        await whole.settle(connection)
        assert len(replica.model.rows("item")) == 5
    await whole.close()
    assert "ZS3" not in " ".join(str(vars(record)) for record in caplog.records)


# What lacks is named, with the command that grants it.


async def test_the_documented_message(guarded: Guarded, own: Database[Any]) -> None:
    """docs/privileges.md shows it, but for MongoDB's own words, which are in the middle."""
    (shown,) = re.findall(r"^```text\n(ZS311 .*?)^```", PAGE.read_text(), re.M | re.S)
    begin, theirs, end = re.split(r"(not authorized .*?\})", " ".join(shown.split()), maxsplit=1)
    uri = guarded.user(own.name, without(of(own, FULL), "update"))
    async with source_of(uri, own) as source:
        error = await refused(watching, uri, source, f"update and insert on {ON_BARRIERS}")
    said = str(error).replace(own.name, "app").replace(BARRIERS, "_zerosource")
    assert said.startswith(begin)
    assert said.endswith(end)
    assert "..." in theirs


async def watching(_: str, source: MongoSource) -> None:
    await source.barrier("test")


async def preparing(_: str, source: MongoSource) -> None:
    await source.prepare(["items"])


async def copying(_: str, source: MongoSource) -> None:
    async for _ in source.copy("items", EVERYTHING).batches(1):
        pass


async def finding(_: str, source: MongoSource) -> None:
    await source.find("items", ["item-1"], EVERYTHING)


async def estimating(_: str, source: MongoSource) -> None:
    await source.estimate("items")


def publishing(collection: str = "items", **questions: Any) -> Operation:
    async def publish(uri: str, source: MongoSource) -> None:
        asked = {collection: Questions(**questions)}
        await asyncio.to_thread(inspect, uri, source.database.name, asked, "auto", switch=True)

    return publish


async def previewing(uri: str, source: MongoSource) -> None:
    def look() -> None:
        with looking(uri, source.database.name) as found:
            found.by_id("items", ["item-1"])

    await asyncio.to_thread(look)


KEYS = {"unique_fields": {"item": ("name",)}}
ON_DATABASE, ON_ITEMS, ON_BARRIERS = "the database {}", "{}.items", f"{{}}.{BARRIERS}"
# The command, what does it, and what is said to be lacking.
COMMANDS: list[tuple[str, Operation, str]] = [
    ("aggregate", watching, f"find and changeStream on {ON_DATABASE}"),
    ("getMore", watching, f"find and changeStream on {ON_DATABASE}"),
    ("update", watching, f"update and insert on {ON_BARRIERS}"),
    ("find", copying, f"find on {ON_ITEMS}"),
    ("find", finding, f"find on {ON_ITEMS}"),
    ("count", estimating, f"find on {ON_ITEMS}"),
    ("listCollections", preparing, f"listCollections on {ON_DATABASE}"),
    ("collMod", preparing, f"collMod on {ON_ITEMS}"),
    ("aggregate", publishing(), f"find on {ON_ITEMS}"),
    ("aggregate", publishing(typed_fields=frozenset({"name"})), f"find on {ON_ITEMS}"),
    ("aggregate", previewing, f"find on {ON_ITEMS}"),
    ("listCollections", publishing(), f"listCollections on {ON_DATABASE}"),
    ("listIndexes", publishing(**KEYS), f"listIndexes on {ON_ITEMS}"),
    ("collMod", publishing(history=True), f"collMod on {ON_ITEMS}"),
]
# The action that lacks, what needs it, and what is said.
DENIED: list[tuple[str, Operation, str]] = [
    ("find", watching, f"find and changeStream on {ON_DATABASE}"),
    ("find", copying, f"find on {ON_ITEMS}"),
    ("find", finding, f"find on {ON_ITEMS}"),
    ("find", estimating, f"find on {ON_ITEMS}"),
    ("find", publishing(), f"find on {ON_ITEMS}"),
    ("find", previewing, f"find on {ON_ITEMS}"),
    ("update", watching, f"update and insert on {ON_BARRIERS}"),
    ("listCollections", preparing, f"listCollections on {ON_DATABASE}"),
    ("listCollections", publishing(), f"listCollections on {ON_DATABASE}"),
    ("listIndexes", publishing(**KEYS), f"listIndexes on {ON_ITEMS}"),
    ("collMod", preparing, f"collMod on {ON_ITEMS}"),
    ("collMod", publishing(history=True), f"collMod on {ON_ITEMS}"),
]
# The embedded MongoDB does not ask for these.
if IS_REAL:
    DENIED += [
        ("changeStream", watching, f"find and changeStream on {ON_DATABASE}"),
        ("insert", watching, f"update and insert on {ON_BARRIERS}"),
    ]


def named(case: tuple[str, Operation, str]) -> str:
    return f"{case[0]}-{case[1].__name__}"


@asynccontextmanager
async def source_of(uri: str, database: Database[Any]) -> AsyncIterator[MongoSource]:
    source = MongoSource(uri, database.name, BARRIERS, post_images="required")
    yield source
    await source.close()


async def refused(operation: Operation, uri: str, source: MongoSource, lacking: str) -> SourceRefused:
    """Do what is refused; the error must name what lacks."""
    with pytest.raises((PrivilegeMissing, PostImagesMissing)) as caught:
        await operation(uri, source)
    assert f"The MongoDB user lacks {lacking.format(source.database.name)}: " in caught.value.message
    return caught.value


@pytest.mark.parametrize("case", COMMANDS, ids=named)
async def test_a_command_that_is_denied(
    mongodb: MongoServer, mongo: Database[Any], case: tuple[str, Operation, str]
) -> None:
    """The message names what this command needs, whatever words MongoDB has."""
    command, operation, lacking = case
    fill(mongo, 5, others=5)
    mongo["items"].create_index("name", unique=True)
    async with source_of(mongodb.uri, mongo) as source:
        with failing(mongodb.client, [command], "alwaysOn", code=13):
            error = await refused(operation, mongodb.uri, source, lacking)
        database, grant = granted_by(error.remedy)
        (privilege,) = grant["privileges"]
        assert database == mongo.name
        place = privilege["resource"]["collection"] or "the database"
        assert lacking.format(mongo.name) == (
            f"{' and '.join(privilege['actions'])} on "
            + (f"the database {mongo.name}" if place == "the database" else f"{mongo.name}.{place}")
        )
        await operation(mongodb.uri, source)


@pytest.mark.parametrize("case", DENIED, ids=named)
async def test_a_user_who_lacks_an_action(
    guarded: Guarded, own: Database[Any], case: tuple[str, Operation, str]
) -> None:
    """The command in the message is run as it stands; then all is well, on the same connections."""
    action, operation, lacking = case
    uri = guarded.user(own.name, without(of(own, FULL), action))
    async with source_of(uri, own) as source:
        error = await refused(operation, uri, source, lacking)
        guarded.command(*granted_by(error.remedy))
        await operation(uri, source)


async def test_without_collmod_documents_are_looked_up(
    guarded: Guarded, own: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """By POST_IMAGES=auto, with a warning that names the privilege."""
    uri = guarded.user(own.name, without(of(own, FULL), "collMod"))
    whole = Whole(uri, own, mapping=without_history(own.name), post_images="auto")
    await whole.source.prepare(whole.mapping.needs)
    reasons = [str(vars(record)["reason"]) for record in caplog.records if record.message == "no post-images"]
    assert len(reasons) == 4
    assert all("The MongoDB user lacks collMod on " in reason for reason in reasons)
    replica = whole.replica()
    await replica.sync()
    async with replica.connection() as connection:
        await whole.settle(connection)
    await whole.close()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("find", ("ZS311", "lacks find on ")),
        ("update", ("ZS311", "lacks update and insert on ")),
        ("listCollections", ("ZS311", "lacks listCollections on ")),
        ("collMod", ("ZS315", "lacks collMod on ", "Or set POST_IMAGES=auto.")),
    ],
)
def test_the_start_names_what_lacks(
    deployment: DeploymentFactory, guarded: Guarded, own: Database[Any], action: str, words: tuple[str, ...]
) -> None:
    uri = guarded.user(own.name, without(of(own, FULL), action))
    place = deployment(MONGODB_URI=uri, MONGODB_DATABASE=own.name, POST_IMAGES="required")
    place.configure(mappings=WITHOUT_HISTORY)
    log = ends_with(place, *words, "grantPrivilegesToRole")
    password = re.search(r"//\w+:(\w+)@", uri)
    assert password is not None
    assert password[1] not in log


# A privilege that is taken away later.


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_a_privilege_that_is_taken_away(
    guarded: Guarded, own: Database[Any], watched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream waits, and goes on once the command of the message was run; the connection stays."""
    message = RETRIES if watched else WAITS

    def told() -> list[str]:
        return [str(vars(record)["error"]) for record in caplog.records if record.message == message]

    whole = Whole(guarded.user(own.name, of(own, FULL)), own, keepalive=10.0)
    replica = whole.replica()
    await replica.sync()
    watcher = whole.watched()
    if watched:
        await watcher.__aenter__()
    async with replica.connection() as connection:
        await whole.settle(connection)
        sent = connection.session.tallies.sent
        if watched:
            await whole.settle(connection)
            await connection.until(lambda: connection.session.tallies.sent > sent)
        guarded.revoke(own.name, "", ["find", "changeStream"])
        fail_next(guarded.client, "getMore", code=43)
        lacks = f"lacks find and changeStream on the database {own.name}"
        await connection.until(lambda: any(lacks in error for error in told()))
        own["items"].insert_one({"_id": "meanwhile", "name": "x"})
        guarded.command(*granted_by(next(error for error in told() if lacks in error)))
        await whole.settle(connection)
        assert ("meanwhile",) in replica.model.rows("item")
    if watched:
        await watcher.__aexit__(None, None, None)
    await whole.close()


async def test_the_right_to_write_barriers_is_taken_away(
    guarded: Guarded, own: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Changes still arrive."""
    whole = Whole(guarded.user(own.name, of(own, FULL)), own, keepalive=0.2)
    replica = whole.replica()
    await replica.sync()

    def told() -> list[str]:
        found = [record for record in caplog.records if record.message == "heartbeat not written"]
        return [str(vars(record)["error"]) for record in found]

    async with whole.watched(), replica.connection() as connection:
        await whole.settle(connection)
        guarded.revoke(own.name, BARRIERS, ["update", "insert"])
        await connection.until(lambda: bool(told()))
        assert f"lacks update and insert on {own.name}.{BARRIERS}" in told()[0]
        await whole.settle(connection)
        guarded.command(*granted_by(told()[0]))
        await whole.settle(connection)
    await whole.close()
