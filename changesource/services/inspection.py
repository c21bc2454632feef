"""What publishing asks MongoDB, where one is configured."""

from __future__ import annotations

from changesource.conf import settings
from changesource.services.configuration import Inspect
from changesource.sources.mongodb.inspect import id_types


def inspector() -> Inspect | None:
    """Return what looks at collections before they are served; None where no MongoDB is configured."""
    chosen = settings()
    uri = chosen.mongodb_uri
    return None if uri is None else lambda collections: id_types(uri, chosen.mongodb_database, collections)
