"""What a server tells of its oplog, and what another may tell that is compatible in other things."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Timestamp

from changesource.sources.mongodb.server import Oplog, _oplog

HELLO = {"lastWrite": {"opTime": {"ts": Timestamp(9000, 1)}}}


def storage(**stats: Any) -> list[dict[str, Any]]:
    """The answer to ``$collStats``."""
    return [{"storageStats": stats}]


@pytest.mark.parametrize(
    ("stats", "filled"),
    [
        (storage(size=1, maxSize=4, count=1), 0.25),
        (storage(size=1, maxSize=4, count=1, max=-1), 0.25),
        (storage(size=1, maxSize=4, count=1, max=2), 0.5),
        (storage(size=5, maxSize=4, count=1), 1.0),
    ],
)
def test_how_far_it_reaches_back_and_how_full_it_is(stats: list[dict[str, Any]], filled: float) -> None:
    found = _oplog({"ts": Timestamp(1800, 1)}, stats, HELLO)
    assert found == Oplog(1800, 9000, filled)
    assert (found.seconds, found.hours) == (7200, 2)
    assert _oplog(None, stats, HELLO) == Oplog(9000, 9000, filled)


@pytest.mark.parametrize(
    ("stats", "hello"),
    [
        ([], HELLO),
        ([{}], HELLO),
        (storage(size=1), HELLO),
        (storage(size=1, maxSize=0, count=1), HELLO),
        (storage(size="1", maxSize=2, count=1), HELLO),
        (storage(size=1, maxSize=2, count=1), {}),
        (storage(size=1, maxSize=2, count=1), {"lastWrite": {"opTime": {"ts": 1}}}),
    ],
)
def test_what_is_told_otherwise_is_not_known(stats: list[dict[str, Any]], hello: dict[str, Any]) -> None:
    assert _oplog({"ts": Timestamp(1800, 1)}, stats, hello) is None
