"""Nothing is sent to MongoDB beyond what the documentation lists, which says what privilege each command needs."""

from __future__ import annotations

import copy
from typing import Any

from pymongo.uri_parser import parse_uri

from changesource.sources.mongodb.server import describe
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS
from tests.harness.documentation import table
from tests.harness.members import Member, running
from tests.harness.privileges import PAGE, Guarded, documented_roles, in_database
from tests.harness.reader import Reader
from tests.harness.whole import BARRIERS

SENT_HEAD = "| Command | On | Needs | What for | Without it |"
# The driver begins to log in within its first hello.
UNSENT = {("saslStart", "")}
NOWHERE = ("hello", "ismaster", "endSessions", "saslContinue", "buildInfo")
WIDER: dict[str, Any] = {
    **MAPPINGS["tables"],
    "seat": {
        "collection": "seats",
        "columns": {"place": {"type": "string", "path": "place"}, "holder": {"type": "string", "path": "holder"}},
        "primaryKey": ["place"],
        "idType": "objectId",
    },
}


def documented() -> set[tuple[str, str]]:
    """The commands of the documentation's table, each with what it is sent to."""
    found: set[tuple[str, str]] = set()
    for commands, place, *_ in table(PAGE, SENT_HEAD):
        found |= {(name, place.replace("`", "")) for name in commands.replace("`", "").split(", ")}
    return found


def described(command: dict[str, Any]) -> tuple[str, str]:
    """A command that was sent, as the documentation names it."""
    name = next(iter(command))
    if name in NOWHERE:
        return name, ""
    if name == "killCursors":
        return name, "what it opened"
    target = command["collection"] if name == "getMore" else command[name]
    if name == "aggregate":
        special = command["pipeline"][0].keys() & {"$changeStream", "$collStats"}
        name = " with ".join((name, *special))
    mapped = {one["collection"] for one in WIDER.values()}
    target = "local.oplog.rs" if (command["$db"], target) == ("local", "oplog.rs") else target
    places = {1: "the database", "$cmd.aggregate": "the database", BARRIERS: BARRIERS}
    return name, "mapped collections" if target in mapped else places.get(target, str(target))


async def test_nothing_else_is_sent(deployment: DeploymentFactory, guarded: Guarded) -> None:
    """Commands, a server with its watcher, an initial sync, a stream, a refill: all go through what takes note."""
    own = guarded.filled()
    own["seats"].create_index("place", unique=True)
    own["seats"].insert_one({"place": "A1", "holder": "x"})
    uri = guarded.user(own.name, in_database(documented_roles()[0], own.name))
    ((host, port),) = parse_uri(uri)["nodelist"]
    assert host == "127.0.0.1", "the proxy stands before a server of this machine"
    sent: list[dict[str, Any]] = []
    member = Member(port, seen=lambda command: sent.append(copy.copy(command)))
    with running(member):
        through = f"{uri.replace(f':{port}', f':{member.port}')}&directConnection=true"
        place = deployment(MONGODB_URI=through, MONGODB_DATABASE=own.name)
        place.configure(mappings={"tables": WIDER})
        server = place.server()
        place.manage("check", "--tag", "changesource")
        place.manage("infermapping", "items")
        place.manage("publishmappings", "--dry-run")
        place.manage("previewmapping", "item")
        place.manage("previewmapping", "item", "--id", "item-1")
        reader = Reader(server.stream_url)
        await reader.sync()
        own["items"].update_one({"_id": "item-1"}, {"$set": {"name": "changed"}})
        await reader.follow(lambda: reader.model.rows("item")[("item-1",)]["name"] == "changed")
        own["new"].insert_many([{"_id": f"new-{n}", "name": "x"} for n in range(2500)])
        own["new"].rename("items", dropTarget=True)
        await reader.follow(lambda: ("new-2499",) in reader.model.rows("item"))
        assert server.answers("/readyz")
        server.stop()
        describe(through, 5.0)
        # Whoever may read the oplog.
        describe(f"{guarded.uri.replace(f':{port}', f':{member.port}')}&directConnection=true", 5.0)
    found = {described(command) for command in sent}
    assert found == documented() - UNSENT
    assert {command["$db"] for command in sent if described(command)[1]} == {own.name, "local"}
