"""Goes on past a document at which a table stopped, once it is mended.

Its events in the oplog may bear it as it was for ever. So it is looked up as it is now, and its events until then are
read with that. This runs ahead of them, as lookups of updates do, and converges with what comes after.
"""

from __future__ import annotations

from changesource.exceptions import TableStopped
from changesource.mapping.needs import Needs
from changesource.sources.base import ChangeSource
from changesource.stream.transform import Correction, Corrections


async def correct(source: ChangeSource, needs: Needs, stopped: TableStopped, corrections: Corrections) -> None:
    """Put the document as it is now among ``corrections``; raises as ``ChangeSource`` does."""
    collection, document_id = stopped.where
    # Before the lookup, so that what is found is not older.
    until = await source.barrier("correction")
    found = await source.find(collection, [document_id], needs[collection])
    corrections[collection, stopped.shown_id] = Correction(found[0] if found else None, until)
