"""What publishing learns from MongoDB."""

from __future__ import annotations

from collections.abc import Callable

from changesource.conf import settings
from changesource.mapping.spec import IdType
from changesource.sources.mongodb.inspect import id_type


def id_type_reader() -> Callable[[str], IdType] | None:
    """Return what tells publishing the type of a collection's ``_id``; None where no MongoDB is configured."""
    chosen = settings()
    uri = chosen.mongodb_uri
    return None if uri is None else lambda collection: id_type(uri, chosen.mongodb_database, collection)
