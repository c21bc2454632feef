"""Users of MongoDB with the privileges that the documentation names, made on a server that enforces them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pymongo import MongoClient
from pymongo.database import Database

from tests.harness.app import fill
from tests.harness.documentation import ROOT

PAGE = ROOT / "docs" / "privileges.md"
ROLE = "zerosource"
DATABASE = "app"  # as it is called in the documentation
Privileges = list[dict[str, Any]]


def from_shell(text: str) -> Any:
    """Return what ``mongosh`` reads in a literal whose keys are not quoted."""
    return json.loads(re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', text))


def documented_roles(page: Path = PAGE) -> list[Privileges]:
    """Return the privileges of each role that a page of the documentation makes."""
    found = re.findall(r"^db\.createRole\((.*?)\)\n", page.read_text(), re.M | re.S)
    return [from_shell(role)["privileges"] for role in found]


def in_database(privileges: Privileges, name: str) -> Privileges:
    """Return the same privileges in another database than the documentation's."""
    text = json.dumps(privileges).replace(f'"db": "{DATABASE}"', f'"db": {json.dumps(name)}')
    found: Privileges = json.loads(text)
    return found


def without(privileges: Privileges, *actions: str) -> Privileges:
    """Return the privileges without some actions."""
    left = [{**one, "actions": [name for name in one["actions"] if name not in actions]} for one in privileges]
    return [one for one in left if one["actions"]]


def granted_by(message: str) -> tuple[str, dict[str, Any]]:
    """Return (database, command) of the command that an error's message names."""
    found = re.search(r'db\.getSiblingDB\("(.+?)"\)\.grantPrivilegesToRole\("(.+?)", (\[.+?\]}\])\)', message)
    assert found is not None, message
    return found[1], {"grantPrivilegesToRole": found[2], "privileges": from_shell(found[3])}


class Guarded:
    """A MongoDB that enforces privileges; ``client`` may do anything there, at ``uri``."""

    def __init__(self, uri: str, client: MongoClient[dict[str, Any]]) -> None:
        self.uri = uri
        self.client = client
        self._made: list[str] = []

    def filled(self) -> Database[dict[str, Any]]:
        """Return a new database with the application in it; the names of its items are unique."""
        database = self.client[f"test_{uuid.uuid4().hex[:12]}"]
        fill(database, 20, others=5)
        database["items"].create_index("name", unique=True)
        return database

    def user(self, database: str, privileges: Privileges) -> str:
        """Make the role, and a user of a database who has it alone; return the user's URI."""
        password = uuid.uuid4().hex
        own = self.client[database]
        self._made.append(database)
        own.command({"createRole": ROLE, "roles": [], "privileges": list(privileges)})
        own.command({"createUser": ROLE, "pwd": password, "roles": [ROLE]})
        parts = urlsplit(self.uri)
        place = parts.netloc.rpartition("@")[2]
        options = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() != "authsource"]
        query = urlencode([*options, ("authSource", database)])
        return urlunsplit((parts.scheme, f"{ROLE}:{password}@{place}", "/", query, ""))

    def command(self, database: str, command: dict[str, Any]) -> None:
        """Run a command with all privileges."""
        self.client[database].command(command)

    def revoke(self, database: str, collection: str, actions: Sequence[str]) -> None:
        """Take actions away from the role."""
        privilege = {"resource": {"db": database, "collection": collection}, "actions": list(actions)}
        self.command(database, {"revokePrivilegesFromRole": ROLE, "privileges": [privilege]})

    def forget(self) -> None:
        """Drop the users and roles that were made, and their databases."""
        for database in self._made:
            self.client[database].command({"dropAllUsersFromDatabase": 1})
            self.client[database].command({"dropAllRolesFromDatabase": 1})
            self.client.drop_database(database)
