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
    ZerosourceError,
)
from changesource.sources.mongodb.errors import translate, translated
from changesource.sources.mongodb.privileges import Need

logger = logging.getLogger(__name__)
PostImages = Literal["auto", "required", "off"]
OLDEST_WIRE_VERSION = 17  # MongoDB 6.0
SPLITTING_WIRE_VERSION = 21  # MongoDB 7.0 has $changeStreamSplitLargeEvent
NAMESPACE_NOT_FOUND = 26
OR_AUTO = "Or set POST_IMAGES=auto."


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
    database: AsyncDatabase[dict[str, Any]],
    wanted: Collection[str],
    history: Collection[str],
    post_images: PostImages,
    warned: set[str],
) -> bool:
    """See that MongoDB keeps images of the ``wanted`` collections, as the setting says; of ``history`` in any case.

    Return True if all that exist have them. ``PostImagesMissing`` where they are required and cannot be had;
    ``CollectionRefused`` for a collection that cannot be watched. ``warned`` keeps what was said already.
    """
    with translated(Need(("listCollections",), database.name)):
        async with await database.list_collections() as cursor:
            found = await cursor.to_list()
    check_collections(found, wanted)
    complete = True
    for name in sorted(c["name"] for c in found if c["name"] in wanted and not has_images(c)):
        required = post_images == "required" or name in history
        if post_images == "off":
            complete = False
            if required:
                raise images_off(name)
            continue
        try:
            await database.command(switch_on(name))
            logger.info("pre- and post-images switched on", extra={"collection": name})
        except PyMongoError as error:
            reason = refusal(error, switching(database.name, name), required=required)
            if reason is None:
                continue
            complete = False
            if required:
                raise images_missing(name, reason, spare=name not in history) from error
            if name not in warned:
                warned.add(name)
                logger.warning("no post-images", extra={"collection": name, "reason": str(reason)})
    return complete and post_images != "off"


def switch_on(collection: str) -> dict[str, Any]:
    """Return the command that has MongoDB keep images of a collection."""
    return {"collMod": collection, "changeStreamPreAndPostImages": {"enabled": True}}


def switching(database: str, collection: str) -> Need:
    """Return the privilege that ``switch_on`` wants."""
    return Need(("collMod",), database, collection)


def images_missing(collection: str, reason: ZerosourceError, *, spare: bool) -> PostImagesMissing:
    """Return the error for images that could not be switched on; ``spare`` where only POST_IMAGES requires them."""
    remedy = f"{reason.remedy} {OR_AUTO}" if spare else reason.remedy
    return PostImagesMissing(f"MongoDB keeps no pre- and post-images of {collection}: {reason.message}", remedy=remedy)


def images_off(collection: str) -> PostImagesMissing:
    """Return the error for a collection that needs images where POST_IMAGES forbids to switch them on."""
    return PostImagesMissing(
        f"A table of {collection} needs pre-images, which it does not keep, and POST_IMAGES is off.",
        remedy=f"Set POST_IMAGES=auto, or run db.runCommand({{collMod: '{collection}', changeStreamPreAndPostImages: "
        "{enabled: true}}).",
    )


def refusal(error: PyMongoError, need: Need, *, required: bool) -> ZerosourceError | None:
    """Return why images could not be switched on, None for a collection that was dropped meanwhile.

    A write that fails for now (a full disk, writes that are blocked) is no reason not to watch, unless ``required``;
    then, and where the connection failed, ``SourceUnavailable`` is raised.
    """
    if isinstance(error, OperationFailure) and error.code == NAMESPACE_NOT_FOUND:
        return None
    found = translate(error, need)
    if isinstance(error, ConnectionFailure) or (required and isinstance(found, SourceUnavailable)):
        raise found from error
    return found
