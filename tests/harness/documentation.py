"""The documentation, as the tests read it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
JSON_FORMS = DOCS / "json-forms.md"
METRICS_HEAD = "| Metric | Type | Labels | What it says |"

_FENCE = re.compile(r"^```(\S+)(?: file=(\S+))?\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The page's blocks of a language: the file that each is, if any, and its text."""
    return [(file, text) for kind, file, text in _FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path, *begins: str) -> str:
    """The page's one block of ``sh`` whose first lines begin so."""

    def fits(lines: list[str]) -> bool:
        return len(lines) >= len(begins) and all(map(str.startswith, lines, begins))

    (found,) = [text for _, text in blocks(page, "sh") if fits(text.splitlines())]
    return found


def table(page: Path, head: str) -> list[list[str]]:
    """The cells of the rows of the table with this head; of the first, where there are several."""
    lines = page.read_text().splitlines()
    return _rows(lines[lines.index(head) + 2 :])


def tables(page: Path, head: str) -> list[list[str]]:
    """The same of all tables with this head."""
    lines = page.read_text().splitlines()
    return [row for at, line in enumerate(lines) if line == head for row in _rows(lines[at + 2 :])]


def _rows(lines: list[str]) -> list[list[str]]:
    """The cells of each line, up to the table's end."""
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
