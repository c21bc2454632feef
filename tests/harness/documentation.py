"""The documentation, as the tests read it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
JSON_FORMS = DOCS / "json-forms.md"
METRICS_HEAD = "| Metric | Type | Labels | What it says |"


def table(page: Path, head: str) -> list[list[str]]:
    """The cells of the rows of the table with this head."""
    lines = page.read_text().splitlines()
    rows = []
    for line in lines[lines.index(head) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
