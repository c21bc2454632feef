"""Looks again at listed row errors where an operator wants to know at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from changesource.conf import Settings
from changesource.exceptions import ConfigurationUnavailable
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.paths import Document
from changesource.services.configuration import current
from changesource.services.mending import known_ids, mended
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import PATIENCE, looking
from changesource.store import row_errors
from changesource.store.row_errors import Listed


class Retried(NamedTuple):
    """What came of a retry: entries of errors that are gone, that go on, and that could not be looked up."""

    mended: int = 0
    wrong: int = 0
    unknown: int = 0

    def __add__(self, other: object) -> Retried:
        """Both together."""
        return Retried(*(a + b for a, b in zip(self, other, strict=True))) if isinstance(other, Retried) else self

    def __str__(self) -> str:
        """In words."""
        words = f"{self.mended} mended and taken off the list, {self.wrong} as wrong as before"
        return f"{words}, {self.unknown} with an _id that cannot be looked up" if self.unknown else words


def retry(chosen: Settings, listed: Sequence[Listed], seconds: float = PATIENCE) -> Retried:
    """Look at up to ``AT_ONCE`` entries now and take those off the list of which nothing is wrong any more.

    Raises ``ConfigurationUnavailable`` where nothing is published, and as ``looking`` does.
    """
    published = current()
    if published is None:
        raise ConfigurationUnavailable("Nothing has been published yet.", remedy="Publish the mappings.")
    mapping = CompiledMapping.compile(published.specification, chosen.mongodb_database, chosen.max_row_bytes)
    known = known_ids(listed, mapping)
    found: dict[str, Sequence[Document]] = {}
    if known:
        with looking(mongodb_uri(chosen), chosen.mongodb_database, seconds) as look:
            for name, ids in known.items():
                found[name] = look.by_id(mapping.tables[name].collection, list(ids.values()))
    gone = mended(listed, mapping, known, found)
    row_errors.clear(gone)
    unknown = sum(e.table in mapping.tables and e.document_id not in known.get(e.table, {}) for e in listed)
    return Retried(len(gone), len(listed) - len(gone) - unknown, unknown)
