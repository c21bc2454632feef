"""What is written in the chaos run: the application of ``tests.harness.app``, and collections that come and go."""

from __future__ import annotations

import random
import threading
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from tests.harness import app
from tests.harness.app import Rows

Document = dict[str, Any]
DRAFTS = "drafts"
MAPPINGS: dict[str, Any] = {
    "tables": {
        **app.MAPPINGS["tables"],
        "draft": {
            "collection": DRAFTS,
            "columns": {"id": {"type": "string", "path": "_id"}, "name": {"type": "string", "path": "name"}},
            "primaryKey": ["id"],
            "idType": "string",
        },
    },
}
# Of so many acts. A rename is rare: for it a replica reads the collection again, in a transaction that can end only
# when no other comes meanwhile; and SecantusDB may hang for ever where collections are renamed while they are listed.
CYCLE = 30
ACTS = {3: "drop", 9: "rename", 14: "drop", 20: "drop", 26: "drop"}
TABLES = list(MAPPINGS["tables"])


def expected(database: Database[Document]) -> dict[str, Rows]:
    """Return the rows of all tables, as MongoDB itself tells them."""
    drafts = database[DRAFTS].find()
    rows = {(found["_id"],): {"id": found["_id"], "name": found["name"]} for found in drafts}
    return {**app.everything(database), "draft": rows}


class DdlWriter:
    """A thread that fills a collection, and drops, recreates or replaces it, until stopped; ``steps`` are its acts."""

    def __init__(self, uri: str, database: str, seed: int, pause: float = 1) -> None:
        """``pause`` is in seconds, between two acts."""
        self._uri, self._database, self._seed, self._pause = uri, database, seed, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ddl", daemon=True)
        self.steps = {"fill": 0, "drop": 0, "rename": 0}

    def __enter__(self) -> DdlWriter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        chance = random.Random(self._seed)
        with MongoClient[Document](self._uri) as client:
            number = 0
            while not self._stop.wait(self._pause):
                number += 1
                try:
                    self._step(client[self._database], chance, number)
                except PyMongoError:
                    continue  # MongoDB is away, or was in the midst of it

    def _step(self, database: Database[Document], chance: random.Random, number: int) -> None:
        act = ACTS.get(number % CYCLE, "fill")
        name = f"{number}"
        if act == "drop":
            database.drop_collection(DRAFTS)
        elif act == "rename":
            aside = database[f"aside_{name}"]
            aside.insert_many([{"_id": f"aside {name} {n}", "name": name} for n in range(20)])
            aside.rename(DRAFTS, dropTarget=True)
        documents = [{"_id": f"{name} {n}", "name": f"draft {chance.random()}"} for n in range(20)]
        database[DRAFTS].insert_many(documents)
        database[DRAFTS].update_many({"_id": {"$regex": "5$"}}, {"$set": {"name": f"again {name}"}})
        database[DRAFTS].delete_many({"_id": {"$regex": "7$"}})
        self.steps[act] += 1
