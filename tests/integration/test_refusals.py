"""What cannot be watched is refused, in words: when publishing, by the source's check, and at the start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from changesource.exceptions import (
    CollectionRefused,
    NotReplicaSet,
    PrivilegeMissing,
    ServerTooOld,
    ShardedCluster,
    SourceRefused,
)
from changesource.mapping.questions import Questions
from changesource.sources.mongodb.inspect import inspect
from changesource.sources.mongodb.source import MongoSource
from devtools.processes import ProcessError
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, WITHOUT_HISTORY, fill
from tests.harness.deployment import ends_with
from tests.harness.members import Member, running
from tests.harness.whole import BARRIERS

KINDS = {
    "view": {"viewOn": "items", "pipeline": []},
    "capped": {"capped": True, "size": 100_000},
    "time-series": {"timeseries": {"timeField": "at"}},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def source(mongodb: MongoServer, mongo: Database[Any]) -> AsyncIterator[MongoSource]:
    fill(mongo, 5, others=5)
    made = MongoSource(mongodb.uri, mongo.name, BARRIERS)
    yield made
    await made.close()


def mappings(collection: str, id_type: str = "string") -> dict[str, Any]:
    """The application's mappings, with one more table."""
    wider: dict[str, Any] = json.loads(json.dumps(MAPPINGS))
    wider["tables"]["extra"] = {
        "collection": collection,
        "columns": {"id": {"type": "string", "path": "_id"}},
        "primaryKey": ["id"],
        **({"idType": id_type} if id_type else {}),
    }
    return wider


def looked_at(uri: str, database: str, *collections: str) -> dict[str, str]:
    """The types of ``_id`` that publishing finds out."""
    answers = inspect(uri, database, dict.fromkeys(collections, Questions()), "auto", switch=True)
    return {name: answer.id_type for name, answer in answers.items()}


@each_kind
async def test_the_source_refuses_it(source: MongoSource, mongo: Database[Any], kind: str) -> None:
    mongo.create_collection("odd", **KINDS[kind])
    await source.prepare(["items", "rooms", "missing"])
    with pytest.raises(CollectionRefused, match=rf"ZS314 odd is a {kind}.* Map the collection"):
        await source.prepare(["items", "odd"])


@each_kind
def test_publishing_refuses_it(mongodb: MongoServer, mongo: Database[Any], kind: str) -> None:
    fill(mongo, 5, others=5)
    mongo.create_collection("odd", **KINDS[kind])
    found = looked_at(mongodb.uri, mongo.name, "items", "rooms", "missing")
    assert found == {"items": "string", "rooms": "number", "missing": ""}
    with pytest.raises(CollectionRefused, match=f"odd is a {kind}"):
        looked_at(mongodb.uri, mongo.name, "items", "odd")


@pytest.mark.parametrize("id_type", ["", "string"], ids=["undeclared", "declared"])
def test_importing_refuses_it_and_changes_nothing(
    deployment: DeploymentFactory, mongo: Database[Any], id_type: str
) -> None:
    fill(mongo, 5, others=5)
    mongo.create_collection("odd", **KINDS["view"])
    place = deployment()
    path = place.directory / "wrong.json"
    path.write_text(json.dumps(mappings("odd", id_type)))
    with pytest.raises(Exception, match=r"Nothing was changed\. ZS314 odd is a view"):
        place.manage("importmappings", str(path))
    assert json.loads(place.manage("exportmappings"))["tables"] == {}


@each_kind
def test_the_start_refuses_it(deployment: DeploymentFactory, mongo: Database[Any], kind: str) -> None:
    fill(mongo, 5, others=5)
    mongo.create_collection("odd", **KINDS[kind])
    place = deployment()
    place.configure(mappings=mappings("odd"))
    ends_with(place, "ZS314", f"odd is a {kind}", "Map the collection")


def test_the_checks_tell_each_that_is_refused(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """``manage.py check`` names them all; a draft that is sound, or a MongoDB that is away, lets it pass."""
    fill(mongo, 5, others=5)
    place = deployment()
    path = place.directory / "mappings.json"
    path.write_text(json.dumps(mappings("odd", "string")))
    place.manage("importmappings", str(path))
    mongo["odd"].insert_one({"_id": "1"})
    assert "no issues" in place.manage("check", "--tag", "changesource")
    for name, kind in (("odd", "capped"), ("rooms", "view")):
        mongo.drop_collection(name)
        mongo.create_collection(name, **KINDS[kind])
    with pytest.raises(ProcessError) as caught:
        place.manage("check")
    for words in ("changesource.ZS314) odd is a capped collection", "changesource.ZS314) rooms is a view", "HINT: Map"):
        assert words in str(caught.value)
    place.environment["MONGODB_URI"] = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"
    place.manage("check")


def test_the_checks_refuse_a_server_that_will_not_do(deployment: DeploymentFactory, other: tuple[str, str]) -> None:
    kind, uri = other
    code, what, _ = OTHER_SERVERS[kind][2]
    place = deployment(MONGODB_URI=uri, MONGODB_DATABASE="own")
    with pytest.raises(ProcessError, match=rf"changesource\.{code}\).*{what}"):
        place.manage("check", "--tag", "changesource")


def test_the_start_refuses_a_standalone_server(
    deployment: DeploymentFactory, secantusdb: Callable[..., SecantusDB]
) -> None:
    server = secantusdb(options=["--standalone"])
    place = deployment(MONGODB_URI=server.uri, MONGODB_DATABASE="own")
    place.configure(mappings=MAPPINGS)
    ends_with(place, "ZS312", "standalone", "--replSet", "rs.initiate()")


async def test_the_source_refuses_a_standalone_server(secantusdb: Callable[..., SecantusDB]) -> None:
    server = await asyncio.to_thread(lambda: secantusdb(options=["--standalone"]))
    source = MongoSource(server.uri, "own", BARRIERS)
    with pytest.raises(NotReplicaSet):
        await source.prepare(["items"])
    await source.close()


# What a server says of itself, and how it is refused.
OTHER_SERVERS: dict[str, tuple[dict[str, Any], type[SourceRefused], tuple[str, ...]]] = {
    "MongoDB 5.0": ({"maxWireVersion": 13}, ServerTooOld, ("ZS313", "older than 6.0", "Upgrade")),
    "mongos": ({"msg": "isdbgrid"}, ShardedCluster, ("ZS316", "sharded cluster", "Point MONGODB_URI at")),
}


@pytest.fixture(params=OTHER_SERVERS)
def other(request: pytest.FixtureRequest, secantusdb: Callable[..., SecantusDB]) -> Iterator[tuple[str, str]]:
    """The kind and the URI of a server that says it is another one."""
    said = OTHER_SERVERS[request.param][0]
    member = Member(secantusdb().port, lambda hello: {**hello, **said})
    with running(member):
        # Direct, since what a mongos says of itself makes the driver look for others like it.
        yield request.param, f"mongodb://127.0.0.1:{member.port}/?directConnection=true&retryWrites=false"


async def test_a_server_that_will_not_do_is_refused_by_the_source_and_when_publishing(other: tuple[str, str]) -> None:
    kind, uri = other
    _, refusal, words = OTHER_SERVERS[kind]
    source = MongoSource(uri, "own", BARRIERS)
    with pytest.raises(refusal, match=".*".join(words)):
        await source.prepare(["items"])
    await source.close()
    with pytest.raises(refusal):
        await asyncio.to_thread(looked_at, uri, "own", "items")


def test_the_start_refuses_a_server_that_will_not_do(deployment: DeploymentFactory, other: tuple[str, str]) -> None:
    kind, uri = other
    place = deployment(MONGODB_URI=uri, MONGODB_DATABASE="own")
    place.configure(mappings=MAPPINGS)
    ends_with(place, *OTHER_SERVERS[kind][2])


@pytest.fixture
def reader_uri(secantusdb: Callable[..., SecantusDB]) -> str:
    """The URI of a server with a user who may only read; its password is in it."""
    server = secantusdb()
    with MongoClient(server.uri) as client:
        fill(client["own"], 5, others=5)
        client.admin.command("createUser", "viewer", pwd="let-me-see", roles=[{"role": "read", "db": "own"}])
    server.stop()
    server.options = ("--auth",)
    server.start()
    return server.uri.replace("mongodb://", "mongodb://viewer:let-me-see@") + "&authSource=admin"


async def test_a_user_who_may_not_write_is_told_what_to_grant(reader_uri: str) -> None:
    source = MongoSource(reader_uri, "own", BARRIERS)
    await source.prepare(["items"])
    with pytest.raises(PrivilegeMissing, match=r"ZS311 .* update and insert on own\._zerosource.*grantPrivileges"):
        await source.barrier("start")
    await source.close()


def test_the_start_refuses_a_user_who_may_not_write(deployment: DeploymentFactory, reader_uri: str) -> None:
    place = deployment(MONGODB_URI=reader_uri, MONGODB_DATABASE="own", POST_IMAGES="off")
    place.configure(mappings=WITHOUT_HISTORY)
    log = ends_with(place, "ZS311", "lacks update and insert on own._zerosource", "grantPrivilegesToRole")
    assert "let-me-see" not in log


def test_the_start_refuses_a_wrong_password(deployment: DeploymentFactory, reader_uri: str) -> None:
    place = deployment(MONGODB_URI=reader_uri.replace("let-me-see", "guessed"), MONGODB_DATABASE="own")
    place.configure(mappings=MAPPINGS)
    assert "guessed" not in ends_with(place, "ZS311", "does not let the user in", "Correct the user")


def test_the_start_refuses_to_go_without_a_user(deployment: DeploymentFactory, reader_uri: str) -> None:
    place = deployment(MONGODB_URI=reader_uri.replace("viewer:let-me-see@", ""), MONGODB_DATABASE="own")
    place.configure(mappings=MAPPINGS)
    ends_with(place, "ZS311", "does not let the user in", "Correct the user")
