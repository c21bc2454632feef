"""What publishing asks of MongoDB, by the driver's synchronous side (the admin and commands are not coroutines)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import PyMongoError

from changesource.exceptions import KeyNotUnique
from changesource.mapping.questions import Answers, Questions
from changesource.mapping.spec import IdType
from changesource.sources.mongodb.errors import translated
from changesource.sources.mongodb.privileges import Need
from changesource.sources.mongodb.survey import (
    PostImages,
    check_collections,
    check_server,
    has_images,
    images_missing,
    images_off,
    refusal,
    switch_on,
    switching,
)

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


def inspect(
    uri: str,
    database: str,
    wanted: Mapping[str, Questions],
    post_images: PostImages,
    *,
    switch: bool,
    patience: float | None = None,
) -> dict[str, Answers]:
    """Look at collections before their tables are served.

    Of those that need it pre-images are switched on, with ``switch``. With ``patience`` no single answer is waited for
    longer than so many seconds. Raises ``SourceRefused`` of a kind for a MongoDB
    or a collection that cannot be watched, or lacks an index; and ``SourceUnavailable``.
    """
    with (
        translated(),
        MongoClient[dict[str, Any]](uri, **_limits(patience), appname="zerosource") as client,
    ):
        check_server(client.admin.command("hello"))
        names = sorted(wanted)
        with translated(Need(("listCollections",), database)):
            found = {c["name"]: c for c in client[database].list_collections(filter={"name": {"$in": names}})}
        check_collections(found.values(), wanted)
        answers = {}
        for name, asked in sorted(wanted.items()):
            collection = client[database][name]
            _check_keys(collection, asked)
            if asked.history and name in found and not has_images(found[name]):
                _switch_images_on(collection, post_images, switch=switch)
            types = {path: _field_type(collection, path) for path in sorted(asked.typed_fields)}
            found_types = _id_types(collection)
            one = next(iter(found_types)) if len(found_types) == 1 else ""
            answers[name] = Answers(one, types, mixed=len(found_types) > 1)
        return answers


def _limits(patience: float | None) -> dict[str, Any]:
    if patience is None:
        return {"serverSelectionTimeoutMS": TIMEOUT_MS}
    return {"connectTimeoutMS": int(patience * 1000), "timeoutMS": int(patience * 1000)}


def _check_keys(collection: MongoCollection[dict[str, Any]], asked: Questions) -> None:
    """Refuse a table whose key MongoDB does not keep unique."""
    if not asked.unique_fields:
        return
    with translated(Need(("listIndexes",), collection.database.name, collection.name)):
        indexes = list(collection.list_indexes())
    unique = [set(i["key"]) for i in indexes if i.get("unique") and "partialFilterExpression" not in i]
    for table, fields in sorted(asked.unique_fields.items()):
        if not any(index <= set(fields) for index in unique):
            keys = ", ".join(f"'{path}': 1" for path in fields)
            raise KeyNotUnique(
                f"The key of table {table} shows {', '.join(fields)} of {collection.name}, which has no unique index "
                "of these fields, or some of them.",
                remedy=f"Create it: db.{collection.name}.createIndex({{{keys}}}, {{unique: true}}); or add a column "
                "that shows _id to the key.",
            )


def _switch_images_on(collection: MongoCollection[dict[str, Any]], post_images: PostImages, *, switch: bool) -> None:
    if post_images == "off":
        raise images_off(collection.name)
    if not switch:
        return
    try:
        collection.database.command(switch_on(collection.name))
    except PyMongoError as error:
        reason = refusal(error, switching(collection.database.name, collection.name), required=True)
        if reason is not None:
            raise images_missing(collection.name, reason, spare=False) from error


def _field_type(collection: MongoCollection[dict[str, Any]], path: str) -> IdType:
    """Return the type of the first value that can be a key; the mapping takes that type alone then."""
    pipeline: list[dict[str, Any]] = [
        {"$match": {path: {"$type": list(ID_TYPES)}}},
        {"$limit": 1},
        {"$project": {"type": {"$type": f"${path}"}}},
    ]
    with translated(_reading(collection)):
        return next((ID_TYPES.get(document["type"], "") for document in collection.aggregate(pipeline)), "")


def _id_types(collection: MongoCollection[dict[str, Any]]) -> set[IdType]:
    """Return the types of ``_id``, "" for those that cannot be keys.

    MongoDB sorts by type first, so the first and the last ``_id`` tell of all.
    """
    found: set[IdType] = set()
    for direction in (1, -1):
        pipeline: list[dict[str, Any]] = [
            {"$sort": {"_id": direction}},
            {"$limit": 1},
            {"$project": {"type": {"$type": "$_id"}}},
        ]
        with translated(_reading(collection)):
            found.update(ID_TYPES.get(document["type"], "") for document in collection.aggregate(pipeline))
    return found


def _reading(collection: MongoCollection[dict[str, Any]]) -> Need:
    return Need(("find",), collection.database.name, collection.name)
