"""What this process counts, for Prometheus."""

from __future__ import annotations

from typing import Literal, get_args

from prometheus_client import Counter, Gauge

ROW_ERRORS = Counter(
    "zerosource_row_errors",
    "Documents that did not fit a table, each time that was met: a row left out, or a value made null.",
    ["table", "effect"],
)
# What is tried again after a wait; the README says what each is.
Retry = Literal[
    "clock",
    "connection",
    "copy",
    "database",
    "layer",
    "lease",
    "mappings",
    "replica",
    "row_errors",
    "watcher",
]
RETRIES = Counter("zerosource_retries", "Tries that failed and were made again after a wait.", ["what"])
for name in get_args(Retry):
    RETRIES.labels(name)  # shown from the beginning, so that the first one is seen as a rise
REFUSALS = Counter("zerosource_refusals", "What came from outside and was refused, or slowed down.", ["code"])
Place = Literal["http", "replica", "live_page"]
CONNECTIONS = Gauge("zerosource_connections", "Connections that are open, by what they are.", ["kind"])
for place in get_args(Place):
    CONNECTIONS.labels(place)
