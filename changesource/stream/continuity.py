"""Decides what a replica does with a batch that came over the channel layer, which may lose, repeat or reorder."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from changesource.stream.batches import Batch


class Verdict(Enum):
    """What to do with a batch."""

    SKIP = "skip"  # it holds nothing new
    SEND = "send"  # it follows what was sent, or overlaps it
    PULL = "pull"  # something before it is missing, or it cannot be used: read from MongoDB


def judge(position: int, batch: Batch, fingerprints: Mapping[str, str]) -> Verdict:
    """Judge ``batch`` for a replica that has all up to ``position`` and serves tables by ``fingerprints``."""
    if batch.end <= position:
        return Verdict.SKIP
    if batch.follows > position or batch.pull:
        return Verdict.PULL
    return Verdict.SEND if agrees(batch, fingerprints) else Verdict.PULL


def agrees(batch: Batch, fingerprints: Mapping[str, str]) -> bool:
    """Return True if who made ``batch`` watches all these tables, by these mappings."""
    return all(batch.fingerprints.get(table) == mine for table, mine in fingerprints.items())
