"""An application whose rows follow from more than ``_id``, for tests on the scripted source, and what it must show.

Accounts with embedded members (a table of their own), and seats that are told by their place, which moves from one
document to another. ``expected`` is the oracle: plain Python, of which the mapper has no part.
"""

from __future__ import annotations

import random
from typing import Any

from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import ColumnSpec, Specification, TableSpec
from changesource.sources.scripted import ScriptedSource, State, Write
from tests.harness.model import Key, ModelReplica, Row

ACCOUNT = TableSpec(
    name="account",
    collection="accounts",
    columns=(
        ColumnSpec("id", "number", "_id"),
        ColumnSpec("size", "number", expression={"$size": "$members"}),
    ),
    primary_key=("id",),
    id_type="number",
)
MEMBER = TableSpec(
    name="member",
    collection="accounts",
    columns=(
        ColumnSpec("accountId", "number", "_id"),
        ColumnSpec("userId", "string", "members.user"),
        ColumnSpec("role", "string", expression={"$toUpper": "$members.role"}),
    ),
    primary_key=("accountId", "userId"),
    filter={"closed": {"$ne": True}},
    pipeline=({"$unwind": "$members"},),
    id_type="number",
)
SEAT = TableSpec(
    name="seat",
    collection="seats",
    columns=(
        ColumnSpec("place", "string", "place", key_type="string"),
        ColumnSpec("holder", "number", "_id"),
        ColumnSpec("note", "number", "note"),
    ),
    primary_key=("place",),
)
TABLES = ("account", "member", "seat")
USERS = "abcdef"
PLACES = 12


def compiled() -> CompiledMapping:
    """Return the mapping of the three tables."""
    return CompiledMapping.compile(Specification((ACCOUNT, MEMBER, SEAT)), "club")


def expected(state: State) -> dict[str, dict[Key, Row]]:
    """Return the rows that the tables must have when the collections hold ``state``."""
    accounts, seats = state.get("accounts", {}), state.get("seats", {})
    members: dict[Key, Row] = {}
    for _id, account in accounts.items():
        for member in [] if account.get("closed") else account["members"]:
            row = {"accountId": _id, "userId": member["user"], "role": member["role"].upper()}
            members.setdefault((_id, member["user"]), row)
    return {
        "account": {(_id,): {"id": _id, "size": len(account["members"])} for _id, account in accounts.items()},
        "member": members,
        "seat": {
            (seat["place"],): {"place": seat["place"], "holder": _id, "note": seat["note"]}
            for _id, seat in seats.items()
        },
    }


def shown(replica: ModelReplica) -> dict[str, dict[Key, Row]]:
    """Return the rows that a replica has."""
    return {table: replica.rows(table) for table in TABLES}


class Writer:
    """Writes by a seed: every transaction leaves each place to one seat at most."""

    def __init__(self, source: ScriptedSource, seed: int) -> None:
        self.source = source
        self._random = random.Random(seed)

    def fill(self, documents: int) -> None:
        """Insert this many accounts, and half of the seats."""
        for number in range(documents):
            self.source.insert("accounts", {"_id": number, "members": self._members()})
        for number in range(PLACES // 2):
            self.source.insert("seats", {"_id": number, "place": f"p{number}", "note": 0})

    def step(self) -> None:
        """Do one transaction."""
        writes = self._seats() if self._random.random() < 0.5 else [self._account()]
        self.source.transaction(writes, spread=self._random.random() < 0.3)

    def _members(self) -> list[dict[str, Any]]:
        chosen = self._random
        return [{"user": chosen.choice(USERS), "role": chosen.choice("xyz")} for _ in range(chosen.randrange(5))]

    def _account(self) -> Write:
        chosen, present = self._random, self.source.state.get("accounts", {})
        number = chosen.randrange(10)
        if number not in present:
            return Write("insert", "accounts", {"_id": number, "members": self._members()})
        match chosen.randrange(6):
            case 0:
                return Write("delete", "accounts", {"_id": number})
            case 1:
                return Write("update", "accounts", {"_id": number, "closed": chosen.random() < 0.5})
            case 2:
                return Write("replace", "accounts", {"_id": number, "members": self._members()})
            case 3:
                members = [*present[number]["members"], *self._members()[:1]]
                return Write("update", "accounts", {"_id": number, "members": members})
            case _:
                members = [dict(member) for member in present[number]["members"]]
                for member in members[:1]:
                    member["role"] = chosen.choice("xyz")
                return Write("update", "accounts", {"_id": number, "members": members})

    def _seats(self) -> list[Write]:
        chosen, present = self._random, dict(self.source.state.get("seats", {}))
        taken = {seat["place"] for seat in present.values()}
        free = [f"p{number}" for number in range(PLACES) if f"p{number}" not in taken]
        one = chosen.choice(list(present)) if present else None
        kind = chosen.randrange(6)
        if one is None or (kind == 0 and free):
            number = next(n for n in range(PLACES + 1) if n not in present)
            return [Write("insert", "seats", {"_id": number, "place": chosen.choice(free), "note": 0})]
        place = present[one]["place"]
        others = [number for number in present if number != one]
        if kind == 1:
            return [Write("delete", "seats", {"_id": one})]
        if kind == 2 and free:
            return [Write("update", "seats", {"_id": one, "place": chosen.choice(free)})]
        if kind == 3 and others:
            other = chosen.choice(others)
            return [  # a swap, by way of a place that nobody has
                Write("update", "seats", {"_id": one, "place": "tmp"}),
                Write("update", "seats", {"_id": other, "place": place}),
                Write("update", "seats", {"_id": one, "place": present[other]["place"]}),
            ]
        if kind == 4 and others:
            other = chosen.choice(others)
            return [  # handed over
                Write("delete", "seats", {"_id": one}),
                Write("update", "seats", {"_id": other, "place": place}),
            ]
        return [Write("update", "seats", {"_id": one, "note": chosen.randrange(100)})]
