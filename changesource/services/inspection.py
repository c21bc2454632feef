"""What publishing asks MongoDB, where one is configured."""

from __future__ import annotations

from changesource.conf import settings
from changesource.services.configuration import Inspect
from changesource.sources.mongodb.inspect import inspect


def inspector(*, switch: bool = True, patience: float | None = None) -> Inspect | None:
    """Return what looks at collections before they are served; None where no MongoDB is configured.

    With ``switch`` it has MongoDB keep the pre-images that their tables need. With ``patience``, in seconds, it gives
    up on a MongoDB that does not answer.
    """
    chosen = settings()
    uri = chosen.mongodb_uri
    if uri is None:
        return None
    return lambda wanted: inspect(
        uri, chosen.mongodb_database, wanted, chosen.post_images, switch=switch, patience=patience
    )
