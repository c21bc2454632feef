"""A field whose value says of which kind a document is: where it differs, so do the fields that documents have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from changesource.mapping.paths import Document

MAX_KINDS = 12
DOCUMENTS_A_KIND = 3  # on average, and no fewer of the two most frequent kinds
NEARLY = 0.95


@dataclass(frozen=True)
class Discriminator:
    """A string field, with how many documents have each of its values, the most frequent first."""

    path: str
    values: Mapping[str, int]


def discriminator(documents: Sequence[Document]) -> Discriminator | None:
    """The field of which the values best tell which fields a document has; None where none does.

    It is a string in all documents, has few values, and by each value some other field is there nearly always or
    nearly never, and not all the same way.
    """
    present = Counter(name for document in documents for name in document)
    best: tuple[int, int, Discriminator] | None = None
    for name in present:
        values = _values(documents, name)
        if not values:
            continue
        told = _told(documents, name, values, present)
        if told and (best is None or (told, -len(values)) > best[:2]):
            best = told, -len(values), Discriminator(name, dict(values.most_common()))
    return best[2] if best else None


def _values(documents: Sequence[Document], name: str) -> Counter[str]:
    """How many documents have which value; empty where the field cannot tell kinds apart."""
    values: Counter[str] = Counter()
    for document in documents:
        value = document.get(name)
        if not isinstance(value, str):
            return Counter()
        values[value] += 1
        if len(values) > MAX_KINDS:
            return Counter()
    usual = [count for _, count in values.most_common(2)]
    many = len(documents) >= DOCUMENTS_A_KIND * len(values)
    return values if len(usual) > 1 and min(usual) >= DOCUMENTS_A_KIND and many else Counter()


def _told(documents: Sequence[Document], name: str, kinds: Counter[str], present: Counter[str]) -> int:
    """How many other fields are there by ``name``'s value alone."""
    having = {field: Counter[str]() for field, count in present.items() if field != name and count < len(documents)}
    for document in documents:
        for field in document:
            if field in having:
                having[field][str(document[name])] += 1
    return sum(_follows(counts, kinds) for counts in having.values())


def _follows(counts: Counter[str], kinds: Counter[str]) -> bool:
    shares = [counts[kind] / count for kind, count in kinds.items()]
    always, never = (share >= NEARLY for share in shares), (share <= 1 - NEARLY for share in shares)
    pairs = list(zip(always, never, strict=True))
    return all(a or n for a, n in pairs) and any(a for a, _ in pairs) and any(n for _, n in pairs)
