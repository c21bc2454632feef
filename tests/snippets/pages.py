"""The pages of the documentation, and the fenced blocks in them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.documentation import ROOT

GENERATED = {"docs/licences.md", "docs/benchmarks/latest.md"}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`]*)$")
HEADING = re.compile(r"^#+ +(?P<title>.+)$")
DIRECTIVE = re.compile(r"^ *<!-- (?P<what>not run|run by):? (?P<rest>.+?) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, what its fence says of it, and its text, without the fence's indentation.

    ``words`` follow the language, ``options`` are those with a ``=``; ``section`` is the number of its heading in the
    page. ``left_out`` is the reason for which it is not run; ``run_by`` the test that runs it instead.
    """

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    options: dict[str, str]
    text: str
    section: int
    left_out: str = ""
    run_by: str = ""

    @property
    def place(self) -> str:
        """Where its text begins, as editors take it."""
        return f"{self.page}:{self.line + 1}"

    @property
    def kind(self) -> str:
        """What says how it is run: its language, and the first word after it, or ``file``."""
        second = next(iter(self.words), "file" if "file" in self.options else "") if self.language != "sh" else ""
        return f"{self.language} {second}".strip()


@dataclass
class Page:
    """A page, its text outside of blocks by line, and its blocks in order."""

    name: str
    blocks: list[Block] = field(default_factory=list)
    prose: dict[int, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Block]:
        """The blocks that are written into the page's folder."""
        return [block for block in self.blocks if "file" in block.options]


def pages() -> Iterator[Path]:
    """All pages whose blocks are run."""
    for pattern in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "deploy/**/*.md"):
        for path in sorted(ROOT.glob(pattern)):
            if str(path.relative_to(ROOT)) not in GENERATED:
                yield path


def read(path: Path) -> Page:
    """Read a page of the repository. Fails at a block that has no end."""
    return parse(str(path.relative_to(ROOT)), path.read_text())


def parse(name: str, text: str) -> Page:
    """Read a page's text."""
    page = Page(name)
    lines = enumerate(text.splitlines(), 1)
    section, directive = 0, {"not run": "", "run by": ""}
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            page.prose[number] = line
            section += HEADING.match(line) is not None
            if said := DIRECTIVE.match(line):
                directive[said["what"]] = said["rest"]
            elif line.strip():
                directive = {"not run": "", "run by": ""}
            continue
        inside = []
        for _, inner in lines:
            if inner.strip() == opening["fence"]:
                break
            inside.append(inner)
        else:
            raise AssertionError(f"{name}:{number}: the block has no end")
        language, *words = [*opening["info"].split(), ""][: len(opening["info"].split()) or 1]
        page.blocks.append(
            Block(
                name,
                number,
                language,
                tuple(word for word in words if "=" not in word),
                dict(word.split("=", 1) for word in words if "=" in word),
                textwrap.dedent("".join(f"{inner}\n" for inner in inside)),
                section,
                directive["not run"],
                directive["run by"],
            )
        )
        directive = {"not run": "", "run by": ""}
    return page
