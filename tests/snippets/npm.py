"""npm for pages: what they install must be what ``devtools`` pins, and is there already."""

from __future__ import annotations

import json
import sys
from pathlib import Path

DEVTOOLS = Path(__file__).resolve().parents[2] / "devtools"


def main(args: list[str]) -> None:
    """``npm install NAME@VERSION ...``; ``init`` makes a package.json as npm does. Fails at what is not pinned."""
    words = [word for word in args[1:] if not word.startswith("-")]
    if args[:1] == ["init"]:
        Path("package.json").write_text(json.dumps({"name": "page", "version": "1.0.0"}))
        return
    assert args[:1] in (["install"], ["i"], ["add"]), f"nothing is known of `npm {' '.join(args)}`"
    pinned: dict[str, str] = {}
    for path in DEVTOOLS.glob("*/package.json"):
        pinned |= json.loads(path.read_text())["dependencies"]
    for word in words:
        name, _, version = word[1:].partition("@")
        name = word[0] + name
        assert name in pinned, f"devtools pins no {name}"
        assert not version or f"{pinned[name]}.".startswith(f"{version.lstrip('^~')}."), (
            f"{name} is {pinned[name]} here"
        )
        print(f"{name}@{pinned[name]} is installed")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AssertionError as error:
        sys.exit(f"npm: {error}")
