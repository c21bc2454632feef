"""How far the filling of a replica's tables is, for the log and for operators."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from time import monotonic


@dataclass
class CopyProgress:
    """Counts what is copied.

    ``rows`` were sent, ``documents`` were read of the ``expected`` ones (0 while that is not known), ``waits`` says
    that it has no turn to read just now.
    """

    rows: int = 0
    waits: bool = False
    _expected: dict[str, int] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=monotonic)

    def expect(self, collection: str, documents: int) -> None:
        """Note about how many documents a collection has."""
        self._expected[collection] = documents

    def begin(self, collection: str) -> None:
        """The collection's copy begins, maybe anew."""
        self._read[collection] = 0

    def read(self, collection: str, documents: int) -> None:
        """So many more documents were read."""
        self._read[collection] += documents

    def documents_of(self, collection: str) -> int:
        """Return how many documents of the collection were read."""
        return self._read.get(collection, 0)

    def end(self, collection: str) -> None:
        """All of the collection was read: what had been expected was an estimate."""
        self._expected[collection] = self._read[collection]

    @property
    def documents(self) -> int:
        """How many documents were read."""
        return sum(self._read.values())

    @property
    def expected(self) -> int:
        """About how many documents there are, those that were read among them."""
        names = self._expected.keys() | self._read.keys()
        return sum(max(self._expected.get(name, 0), self._read.get(name, 0)) for name in names)

    @property
    def rate(self) -> float:
        """Documents a second, since it began."""
        return self.documents / max(monotonic() - self._began, 0.001)

    @property
    def seconds_left(self) -> int | None:
        """About how long it will take still, in seconds, at that rate; None before anything was read."""
        return round((self.expected - self.documents) / self.rate) if self.documents else None

    def as_dict(self) -> dict[str, object]:
        """For the log."""
        return {
            "rows": self.rows,
            "documents": self.documents,
            "expected": self.expected,
            "documents_per_second": round(self.rate),
            "seconds_left": self.seconds_left,
        }


class Pace:
    """How fast something rises, over the last ``span`` seconds."""

    def __init__(self, span: float) -> None:
        """Nothing is known yet."""
        self._span = span
        self._seen: deque[tuple[float, int]] = deque()

    def per_second(self, count: int) -> float:
        """Return it, where the count has reached ``count`` by now, to a tenth; 0 at the first call."""
        seen, now = self._seen, monotonic()
        seen.append((now, count))
        while len(seen) > 2 and now - seen[1][0] >= self._span:
            seen.popleft()
        began, before = seen[0]
        return round((count - before) / (now - began), 1) if now > began else 0.0
