"""What publishing asks of MongoDB, by the driver's synchronous side (the admin and commands are not coroutines)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection as MongoCollection

from changesource.mapping.spec import IdType
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.survey import check_collections, check_server

ID_TYPES: dict[str, IdType] = {
    "objectId": "objectId",
    "string": "string",
    "int": "number",
    "long": "number",
    "double": "number",
    "decimal": "number",
    "date": "date",
    "binData": "uuid",
}
TIMEOUT_MS = 3000


def id_types(uri: str, database: str, collections: Collection[str]) -> dict[str, IdType]:
    """Return the one BSON type of each collection's ``_id``, "" where it is empty or has several.

    Raises ``SourceRefused`` of a kind for a MongoDB or a collection that cannot be watched, and ``SourceUnavailable``.
    """
    with (
        translated(),
        MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=TIMEOUT_MS, appname="zerosource") as client,
    ):
        check_server(client.admin.command("hello"))
        found = client[database].list_collections(filter={"name": {"$in": sorted(collections)}})
        check_collections(found, collections)
        return {name: _id_type(client[database][name]) for name in sorted(collections)}


def _id_type(collection: MongoCollection[dict[str, Any]]) -> IdType:
    """MongoDB sorts by type first, so the first and the last ``_id`` tell of all."""
    found: set[IdType] = set()
    for direction in (1, -1):
        pipeline: list[dict[str, Any]] = [
            {"$sort": {"_id": direction}},
            {"$limit": 1},
            {"$project": {"type": {"$type": "$_id"}}},
        ]
        for document in collection.aggregate(pipeline):
            found.add(ID_TYPES.get(document["type"], ""))
    return found.pop() if len(found) == 1 else ""
