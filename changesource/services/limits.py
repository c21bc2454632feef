"""What bounds the serving of replicas, as the settings have it."""

from __future__ import annotations

from dataclasses import dataclass

from changesource.services.turns import Turns
from changesource.stream.grouping import Bounds


@dataclass(frozen=True)
class Limits:
    """``bounds`` are those of a Zero transaction; ``keepalive`` and ``catch_up`` are in seconds.

    Snapshots read with as many cursors as there are ``turns``, and replay what changed meanwhile every ``catch_up``,
    so that they see it before the oplog forgets it. Their rows go in ``backfill`` frames, or each in one of its own.
    """

    bounds: Bounds
    keepalive: float
    turns: Turns
    catch_up: float
    backfill: bool = True
