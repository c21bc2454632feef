"""What MongoDB and its collections must be, and what is switched on in them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from changesource.exceptions import (
    CollectionRefused,
    NotReplicaSet,
    PostImagesMissing,
    ServerTooOld,
    ShardedCluster,
    SourceUnavailable,
)
from changesource.sources.mongodb.errors import translate, translated

logger = logging.getLogger(__name__)
PostImages = Literal["auto", "required", "off"]
OLDEST_WIRE_VERSION = 17  # MongoDB 6.0
SPLITTING_WIRE_VERSION = 21  # MongoDB 7.0 has $changeStreamSplitLargeEvent
NAMESPACE_NOT_FOUND = 26


def check_server(hello: Mapping[str, Any]) -> None:
    """Refuse a server without change streams, by its answer to ``hello``."""
    if hello.get("msg") == "isdbgrid":
        raise ShardedCluster()
    if "setName" not in hello:
        raise NotReplicaSet()
    if hello.get("maxWireVersion", 0) < OLDEST_WIRE_VERSION:
        raise ServerTooOld()


def check_collections(found: Iterable[Mapping[str, Any]], wanted: Collection[str]) -> None:
    """Refuse collections of which MongoDB has no change events, by the answer to ``listCollections``."""
    for collection in found:
        name, kind = collection["name"], collection.get("type", "collection")
        options = collection.get("options", {})
        if name not in wanted:
            continue
        if kind == "view":
            raise CollectionRefused(f"{name} is a view, which has no change events.")
        if kind == "timeseries" or "timeseries" in options:
            raise CollectionRefused(f"{name} is a time-series collection, which has no change events.")
        if options.get("capped"):
            raise CollectionRefused(f"{name} is a capped collection, whose documents go without change events.")


def has_images(collection: Mapping[str, Any]) -> bool:
    """Return True if MongoDB keeps pre- and post-images of the collection."""
    images = collection.get("options", {}).get("changeStreamPreAndPostImages", {})
    return bool(images.get("enabled"))


async def switch_images_on(
    database: AsyncDatabase[dict[str, Any]], wanted: Collection[str], post_images: PostImages, warned: set[str]
) -> bool:
    """See that MongoDB keeps post-images of the ``wanted`` collections, as the setting says.

    Return True if all that exist have them. ``PostImagesMissing`` where they are required and cannot be had;
    ``CollectionRefused`` for a collection that cannot be watched. ``warned`` keeps what was said already.
    """
    with translated():
        async with await database.list_collections() as cursor:
            found = await cursor.to_list()
    check_collections(found, wanted)
    if post_images == "off":
        return False
    complete = True
    for name in sorted(c["name"] for c in found if c["name"] in wanted and not has_images(c)):
        try:
            await database.command({"collMod": name, "changeStreamPreAndPostImages": {"enabled": True}})
            logger.info("post-images switched on", extra={"collection": name})
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code == NAMESPACE_NOT_FOUND:
                continue  # dropped meanwhile
            found_out = translate(error)
            # A write that fails for now (a full disk, writes that are blocked) is no reason not to watch.
            if isinstance(error, ConnectionFailure) or (
                post_images == "required" and isinstance(found_out, SourceUnavailable)
            ):
                raise found_out from error
            complete = False
            reason = found_out.message
            if post_images == "required":
                raise PostImagesMissing(f"MongoDB keeps no post-images of {name}: {reason}") from error
            if name not in warned:
                warned.add(name)
                logger.warning("no post-images", extra={"collection": name, "reason": reason})
    return complete
