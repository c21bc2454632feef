"""Fills an empty deployment with the sample app."""

from __future__ import annotations

import json
from typing import Any

from pymongo import MongoClient

from changesource import sample_data
from changesource.conf import Settings
from changesource.mapping.formats import read_specification
from changesource.services.configuration import current, import_specification
from changesource.services.inspection import inspector
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.errors import translated


def load(chosen: Settings, *, embedded: bool) -> bool:
    """Insert the sample's documents into empty collections, and publish its mappings where nothing is published.

    With ``embedded`` off the MongoDB is somebody's own: it is left alone unless the database is empty. Return True if
    mappings were published. Raises ``SourceUnavailable``.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_uri(chosen))
    with translated(), client:
        database = client[chosen.mongodb_database]
        if not embedded and set(database.list_collection_names()) - {chosen.barrier_collection}:
            return False
        sample_data.load(database)
    if current() is not None:
        return False
    specification = read_specification(json.loads(sample_data.MAPPINGS_FILE.read_text(encoding="utf-8")))
    import_specification(specification, "sample data", inspect=inspector())
    return True
