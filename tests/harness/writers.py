"""Random but repeatable writes to a scripted source that holds the chat application."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from changesource.sources.scripted import ScriptedSource, Write

COLLECTIONS = ("messages", "rooms", "other")
IDS = 30


class Writer:
    """Writes by a seed. ``writes`` counts them."""

    def __init__(self, source: ScriptedSource, seed: int) -> None:
        self.source = source
        self.writes = 0
        self._random = random.Random(seed)

    def fill(self, documents: int) -> None:
        """Insert this many documents into each collection, with ids that ``step`` does not use."""
        for number in range(1000, 1000 + documents):
            for collection in COLLECTIONS:
                self.source.insert(collection, self._document(collection, number))

    def step(self) -> None:
        """Do one write, or one transaction."""
        present = {name: set(documents) for name, documents in self.source.state.items()}
        if self._random.random() < 0.7:
            write = self._write(present)
            self.source.transaction([write])
            self.writes += 1
        else:
            writes = [self._write(present) for _ in range(self._random.randint(2, 12))]
            self.source.transaction(writes, spread=self._random.random() < 0.3)
            self.writes += len(writes)

    async def run(self, steps: int, pause: float = 0.001) -> None:
        """Do ``steps``, pausing at random for up to ``pause`` seconds, so that others see streams end."""
        for _ in range(steps):
            self.step()
            await asyncio.sleep(self._random.choice((0, 0, pause * self._random.random())))

    def _write(self, present: dict[str, set[object]]) -> Write:
        """Return a write that is right after those that ``present`` knows of, and note it there."""
        collection = self._random.choice(COLLECTIONS)
        document = self._document(collection, self._random.randrange(IDS))
        there = present.setdefault(collection, set())
        if document["_id"] not in there:
            there.add(document["_id"])
            return Write("insert", collection, document)
        match self._random.randrange(4):
            case 0:
                there.discard(document["_id"])
                return Write("delete", collection, {"_id": document["_id"]})
            case 1:
                return Write("replace", collection, document)
            case _:
                return Write("update", collection, document)

    def _document(self, collection: str, number: int) -> dict[str, Any]:
        chosen = self._random
        if collection == "messages":
            tags = chosen.sample(["a", "b", "\u2028", "😀"], 2)
            return {
                "_id": f"m{number}",
                "body": f"text {chosen.random()}",
                "stats": {"likes": chosen.random()},
                "tags": tags,
            }
        kind = chosen.choice(["chat", "channel", "none"])
        return {
            "_id": number,
            "kind": kind,
            "title": chosen.choice([None, f"t{chosen.random()}"]),
            "open": chosen.random() < 0.5,
        }
