"""Short looks at MongoDB for people who wait for the answer: all questions of one look share one deadline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bson import json_util
from pymongo import MongoClient, timeout
from pymongo.database import Database
from pymongo.errors import PyMongoError

from changesource.exceptions import SourceUnavailable
from changesource.sources.mongodb.decoding import CODEC_OPTIONS, read_documents
from changesource.sources.mongodb.errors import translate, translated
from changesource.sources.mongodb.privileges import Need
from changesource.sources.mongodb.server import Oplog, read_oplog
from changesource.sources.mongodb.survey import switch_on, switching

PATIENCE = 2.0
"""Seconds that somebody who looks at a page waits for MongoDB, in all."""

Document = Mapping[str, object]


class Look:
    """What can be asked of one database. Each method raises ``SourceUnavailable`` beyond the look's deadline."""

    def __init__(self, database: Database[dict[str, Any]], seconds: float) -> None:
        """Made by ``looking`` alone."""
        self._database = database
        self._seconds = seconds

    def collections(self) -> dict[str, Mapping[str, Any]]:
        """All collections and views by name, each as ``listCollections`` tells it, without MongoDB's own."""
        with translated(Need(("listCollections",), self._database.name)):
            found = self._database.list_collections()
            return {one["name"]: one for one in found if not one["name"].startswith("system.")}

    def sample(self, collection: str, size: int, match: Mapping[str, object] | None = None) -> list[Document]:
        """Up to ``size`` documents at random, each once.

        Where MongoDB takes too long to find all that ``match`` lets pass, they are the first ones that it finds.
        """
        # MongoDB may draw a document twice.
        drawn = {json_util.dumps(document.get("_id")): document for document in self._sample(collection, size, match)}
        return list(drawn.values())

    def _sample(self, collection: str, size: int, match: Mapping[str, object] | None) -> list[Document]:
        if not match:
            return self._read(collection, [{"$sample": {"size": size}}])
        passed = {"$match": dict(match)}
        try:
            with timeout(self._seconds / 2):
                return self._read(collection, [passed, {"$sample": {"size": size}}])
        except SourceUnavailable:
            return self._read(collection, [passed, {"$limit": size}])

    def by_id(self, collection: str, document_ids: Sequence[object]) -> list[Document]:
        """The documents with these ids, those that are there."""
        if not document_ids:
            return []
        return self._read(collection, [{"$match": {"_id": {"$in": list(document_ids)}}}, {"$limit": len(document_ids)}])

    def _read(self, collection: str, pipeline: list[dict[str, Any]]) -> list[Document]:
        with translated(self._reading(collection)):
            batches: Any = self._database[collection].aggregate_raw_batches(pipeline)
            return [document for reply in batches for document in read_documents(reply, CODEC_OPTIONS)]

    def count(self, collection: str) -> int:
        """About how many documents there are, by MongoDB's own books."""
        with translated(self._reading(collection)):
            return self._database[collection].estimated_document_count()

    def index_keys(self, collection: str) -> list[tuple[str, ...]]:
        """The fields of each index that holds every document, in its order."""
        with translated(Need(("listIndexes",), self._database.name, collection)):
            found = list(self._database[collection].list_indexes())
        partial = ("partialFilterExpression", "sparse", "hidden")
        return [tuple(index["key"]) for index in found if not any(index.get(option) for option in partial)]

    def oplog(self) -> Oplog | None:
        """How far the oplog reaches back; None where it may not be read."""
        client = self._database.client
        with translated():
            return read_oplog(client.get_database("local"), client.admin.command("hello"))

    def switch_images_on(self, collection: str) -> None:
        """Have MongoDB keep pre- and post-images of a collection."""
        try:
            self._database.command(switch_on(collection))
        except PyMongoError as error:
            raise translate(error, switching(self._database.name, collection)) from error

    def _reading(self, collection: str) -> Need:
        return Need(("find",), self._database.name, collection)


@contextmanager
def looking(uri: str, database: str, seconds: float = PATIENCE) -> Iterator[Look]:
    """Look at ``database`` for so many seconds in all, the connection included.

    Raises ``SourceUnavailable`` where MongoDB does not answer in time, ``SourceRefused`` of a kind where it refuses.
    """
    limits: dict[str, Any] = {"connectTimeoutMS": int(seconds * 1000), "appname": "zerosource"}
    with translated(), timeout(seconds), MongoClient[dict[str, Any]](uri, **limits) as client:
        yield Look(client[database], seconds)
