"""What bounds the serving of replicas, as the settings have it."""

from __future__ import annotations

from dataclasses import dataclass, field

from changesource.services.shared_rows import SharedRows
from changesource.services.turns import Turns
from changesource.stream.grouping import Bounds


@dataclass(frozen=True)
class Limits:
    """``bounds`` are those of a Zero transaction; ``keepalive`` and ``catch_up`` are in seconds.

    Snapshots read with as many cursors as there are ``turns``, and replay what changed meanwhile every ``catch_up``,
    so that they see it before the oplog forgets it. Their rows go in ``backfill`` frames, or each in one of its own;
    those that several make of the same are ``shared_rows``.
    """

    bounds: Bounds
    keepalive: float
    turns: Turns
    catch_up: float
    backfill: bool = True
    shared_rows: SharedRows = field(default_factory=SharedRows)
