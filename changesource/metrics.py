"""What this process counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter

ROW_ERRORS = Counter(
    "zerosource_row_errors",
    "Documents that did not fit a table, each time that was met: a row left out, or a value made null.",
    ["table", "effect"],
)
