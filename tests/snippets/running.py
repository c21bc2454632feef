"""Runs the blocks of one page, in order, as its reader would."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import yaml
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from websockets.exceptions import WebSocketException

from changesource.exceptions import ZerosourceError
from devtools.processes import ProcessError, wait_until
from tests.harness.documentation import ROOT
from tests.snippets import formats, nginx, outputs
from tests.snippets.elsewhere import check_runs
from tests.snippets.pages import Block, Page
from tests.snippets.placeholders import Reader, fill
from tests.snippets.recipes import KINDS as RECIPES
from tests.snippets.recipes import Recipes
from tests.snippets.shell import SLOW_TIMEOUT, TIMEOUT, Ran, Shell, commands, serves

FAULTS = (
    AssertionError,
    ProcessError,
    TimeoutError,
    ZerosourceError,
    PyMongoError,
    LookupError,
    OSError,
    ValueError,  # of JSON, and others
    WebSocketException,
    yaml.YAMLError,
    kubernetes_validate.ValidationError,
    subprocess.SubprocessError,
)


class Run:
    """One page. ``counts`` says how many snippets of each kind were run, ``faults`` what was wrong, with the place."""

    def __init__(self, page: Page, reader: Reader, shell: Shell) -> None:
        self.page = page
        self.reader = reader
        self.shell = shell
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._recipes: dict[int, Recipes] = {}
        self._last: Ran | None = None
        self._database = ""

    def run(self) -> None:
        """Run all of it; what fails is noted, and the rest is run all the same."""
        for block in self.page.files:
            (self.reader.folder / block.options["file"]).write_text(fill(block.text, self.reader))
        for block in self.page.blocks:
            for place, action in self._actions(block):
                try:
                    action()
                    self.counts[block.kind] += 1
                except FAULTS as error:
                    self.faults.append(f"{place}: {block.kind}: {type(error).__name__}: {error}")
        self._end()

    def _end(self) -> None:
        for section, recipes in self._recipes.items():
            try:
                recipes.finish()
            except FAULTS as error:
                (first, *_) = [block for block in self.page.blocks if block.section == section]
                self.faults.append(f"{first.place}: {type(error).__name__}: {error}")
        if any(block.kind in ("ts file", "tsx file") for block in self.page.files):
            try:
                formats.compile_typescript(self.reader.folder)
            except FAULTS as error:
                self.faults.append(f"{self.page.name}: {error}")
        self.faults += [f"{self.page.name}: {fault}" for fault in self.shell.close()]

    def _actions(self, block: Block) -> list[tuple[str, Callable[[], None]]]:
        """What a block has to be done for it: one action for each command, else one; none where it is left out."""
        if block.left_out:
            return []
        if block.run_by:
            return [(block.place, lambda: check_runs(block))]
        if block.language != "sh":
            return [(block.place, lambda: self._run(block))]
        try:
            found = list(commands(block.text, block.line + 1))
        except AssertionError as error:
            self.faults.append(f"{block.page}: {error}")
            return []
        return [
            (f"{block.page}:{one.line}", lambda text=one.text: self._command(text, "slow" in block.words))
            for one in found
        ]

    def _run(self, block: Block) -> None:
        """Run what is no shell."""
        if block.kind in RECIPES:
            self._recipes_of(block).run(block)
            return
        ways: dict[str, Callable[[], object]] = {
            "text output": lambda: self._output(block),
            "json output": lambda: self._output(block),
            "text log": lambda: outputs.check_logged(block.text),
            "json log": lambda: outputs.check_logged(block.text),
            "js mongosh": lambda: self._mongosh(block),
            "nginx": lambda: self._nginx(block),
            "yaml": lambda: formats.check_yaml(block.text, self._new("yaml")),
            "promql": lambda: formats.check_promql(block.text, self._new("promql")),
            "ini": lambda: formats.check_unit(block.text),
            "http": lambda: self._ask(fill(block.text, self.reader)),
            "json file": lambda: json.loads(block.text),
        }
        assert has_a_way(block), how_to(block)
        # Other files are written already, and run or compiled by what comes after them.
        ways.get(block.kind, str)()

    def _mongosh(self, block: Block) -> None:
        text = fill(block.text, self.reader)
        if "apart" in block.words:
            text = re.sub(r"\bapp\b", "apart", text)
        self._last = Ran(formats.mongosh(text, self._mongodb_of(block), self.reader.folder))

    def _nginx(self, block: Block) -> None:
        self._serve()
        nginx.run(block.text.replace("BASE64", fill("BASE64", self.reader)), self.reader, self._new("nginx"))

    def _command(self, text: str, slow: bool) -> None:
        filled = fill(text, self.reader)
        if f"127.0.0.1:{self.reader.port}" in filled and not serves(filled):
            self._serve()
        self._last = self.shell.run(filled, SLOW_TIMEOUT if slow else TIMEOUT)

    def _serve(self) -> None:
        """Have a server run, where the page's own does not."""
        if not self.shell.has_server():
            self.shell.run(f"python manage.py serve --host 127.0.0.1 --port {self.reader.port}")

    def _ask(self, text: str) -> None:
        """``GET /path`` lines, with the key."""
        self._serve()
        for line in text.split("\n\n", maxsplit=1)[0].splitlines():
            method, path = line.split()[:2]
            url = f"http://127.0.0.1:{self.reader.port}{path}"
            self._last = self.shell.run(f"curl --silent --fail-with-body -X {method} -u any:{self.reader.key} '{url}'")

    def _output(self, block: Block) -> None:
        text = fill(block.text, self.reader)
        assert self._last is not None, "no command stands before this output"
        last = self._last
        if block.language == "json":
            shape = "shape" in block.words
            found = outputs.different(json.loads(text), json.loads(last.said()), shape=shape)
            assert not found, f"{found} in {last.said()[:1500]}"
            return
        if last.process:
            wait_until(lambda: not outputs.lacking(text, last.said()), f"{text!r} in the log", 30, detail=last.said)
        lacking = outputs.lacking(text, last.said())
        assert not lacking, f"there is no line {lacking!r} (after those before it) in:\n{last.said()[:3000]}"

    def _recipes_of(self, block: Block) -> Recipes:
        if block.section not in self._recipes:
            blocks = [one for one in self.page.blocks if one.section == block.section]
            database = f"recipe_{self.reader.folder.name.replace('-', '_')}_{block.section}"
            self._recipes[block.section] = Recipes(self.reader.mongodb(database), database, blocks)
        return self._recipes[block.section]

    def _mongodb_of(self, block: Block) -> str:
        """The recipe's database, where the section has a mapping, else ``app``."""
        if any(one.kind == "json mapping" for one in self.page.blocks if one.section == block.section):
            return self._recipes_of(block).uri
        return self.reader.mongodb()

    def _new(self, what: str) -> Path:
        """A new folder."""
        folder = self.shell.state / f"{what}-{sum(self.counts.values())}-{len(self.faults)}"
        folder.mkdir()
        return folder


KNOWN = RECIPES | {
    *(
        "sh",
        "text output",
        "json output",
        "text log",
        "json log",
        "js mongosh",
        "nginx",
        "yaml",
        "promql",
        "ini",
        "http",
    ),
    *("json file", "ts file", "tsx file", "js file"),
}


def how_to(block: Block) -> str:
    """Say of a block that nothing runs what to do."""
    return (
        f"{block.place}: nothing runs ```{block.kind or ' (no language)'}. Say what it is after the fence, as "
        f"{(ROOT / 'tests/snippets/README.md').relative_to(ROOT)} has it: one of {', '.join(sorted(KNOWN))}; or, in a "
        "comment before it, by which test it is run, or why it is not."
    )


def has_a_way(block: Block) -> bool:
    """Whether a block is run, here or elsewhere, or left out with its reason."""
    return bool(block.left_out or block.run_by) or block.kind in KNOWN


def drop_users(uri: str) -> None:
    """Forget the users and roles of the databases in which pages make them."""
    with MongoClient[dict[str, object]](uri) as client:
        for name in ("app", "apart", "admin"):
            client[name].command({"dropAllUsersFromDatabase": 1})
            client[name].command({"dropAllRolesFromDatabase": 1})
