"""What a running server tells Prometheus, read as Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

OURS = "zerosource_"
Labels = dict[str, str]


def scraped(url: str) -> str:
    """The text at ``url``."""
    with urlopen(Request(url), timeout=10) as answer:  # noqa: S310
        text: str = answer.read().decode()
    return text


def metrics_of(text: str) -> dict[str, str]:
    """The type of each metric of zerosource's own, whether it has series or not."""
    return dict(re.findall(rf"^# TYPE ({OURS}\w+) (\w+)$", text, re.M))


def series_of(text: str) -> list[tuple[str, Labels, float]]:
    """All series, as (name, labels, value)."""
    families = text_string_to_metric_families(text)
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def value_of(text: str, name: str, **labels: str) -> float | None:
    """The sum of a metric's series that have these labels; None where there is none."""
    found = [value for one, has, value in series_of(text) if one == name and labels.items() <= has.items()]
    return sum(found) if found else None


def labels_of(text: str) -> dict[str, set[str]]:
    """The label names of each of zerosource's metrics that has series; those of a histogram without ``le``."""
    found: dict[str, set[str]] = {}
    for name, labels, _ in series_of(text):
        if name.startswith(OURS):
            found.setdefault(_without_suffix(name), set()).update(_names(labels))
    return found


def _without_suffix(name: str) -> str:
    return re.sub(r"(?<=_transaction_rows)_(bucket|count|sum)$", "", name)


def _names(labels: Labels) -> Iterable[str]:
    return labels.keys() - {"le"}
