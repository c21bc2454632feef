"""What publishing asks of MongoDB, by the driver's synchronous side (the admin and commands are not coroutines)."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient

from changesource.mapping.spec import IdType
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.survey import check_collections

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


def id_type(uri: str, database: str, collection: str) -> IdType:
    """Return the one BSON type of the collection's ``_id``, "" where it is empty or has several.

    MongoDB sorts by type first, so the first and the last ``_id`` tell of all. Raises ``SourceUnavailable``, and
    ``CollectionRefused`` for one that cannot be watched.
    """
    found: set[IdType] = set()
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=TIMEOUT_MS, appname="zerosource")
    with translated(), client:
        check_collections(client[database].list_collections(filter={"name": collection}), [collection])
        for direction in (1, -1):
            pipeline: list[dict[str, Any]] = [
                {"$sort": {"_id": direction}},
                {"$limit": 1},
                {"$project": {"type": {"$type": "$_id"}}},
            ]
            for document in client[database][collection].aggregate(pipeline):
                found.add(ID_TYPES.get(document["type"], ""))
    return found.pop() if len(found) == 1 else ""
