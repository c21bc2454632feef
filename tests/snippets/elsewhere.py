"""Blocks that an own test runs: it must be there, and name what it runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.harness.documentation import ROOT
from tests.snippets.pages import Block
from tests.snippets.shell import commands, first_words


def check_runs(block: Block) -> None:
    """Fails where the test that is named is not there, or names neither the block's page nor its commands."""
    name, _, function = block.run_by.partition("::")
    path = ROOT / name
    assert path.is_file(), f"there is no {name}"
    tree = ast.parse(path.read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function.startswith("test_"), f"say which test of {name} it is: ::test_..."
    assert function in functions, f"{name} has no {function}"
    text = "\n".join(one.read_text() for one in (path, *_imported(tree)))
    page = Path(block.page).name
    if page in text and page != "README.md":
        return  # it takes the block from the page
    assert block.language == "sh", f"{name} does not name {page}"
    for command in commands(block.text, block.line + 1):
        words = first_words(command.text)
        # Tests give the words of a command one by one.
        pattern = r"['\"\s,(]+".join(re.escape(word) for word in words.split())
        assert re.search(pattern, text), f"{name}, and what it imports of tests/harness, does not name {words!r}"


def _imported(tree: ast.Module) -> list[Path]:
    """The files of the harness that a test imports."""
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    paths = [ROOT / f"{module.replace('.', '/')}.py" for module in modules if module.startswith("tests.")]
    return [path for path in paths if path.is_file()]
