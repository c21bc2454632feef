"""docs/commands.md says of every command what it takes, with an example that it takes."""

from __future__ import annotations

import re
import shlex
from argparse import Action, ArgumentParser
from functools import cache
from pathlib import Path

import pytest
from django.core.management import BaseCommand, load_command_class

from changesource.management import commands
from tests.harness.documentation import DOCS, tables

HEAD = "| Command | Options | What it does | Example |"
ROWS = {cells[0].strip("`").split()[0]: cells for cells in tables(DOCS / "commands.md", HEAD)}
FOLDER = Path(str(commands.__file__)).parent


@cache
def parser(name: str) -> ArgumentParser:
    """What reads the command's line."""
    found: ArgumentParser = load_command_class("changesource", name).create_parser("manage.py", name)
    return found


def own(name: str) -> list[Action]:
    """What the command takes beside what all do."""
    general = {action.dest for action in BaseCommand().create_parser("manage.py", "any")._actions}
    return [action for action in parser(name)._actions if action.dest not in general]


def written(action: Action) -> str:
    """A positional argument as the page writes it."""
    shown = str(action.metavar or action.dest).upper()
    return {"+": f"{shown} ...", "*": f"[{shown} ...]", "?": f"[{shown}]"}.get(str(action.nargs), shown)


def test_every_command_is_there_once() -> None:
    files = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert len(files) > 20
    assert sorted(files) == sorted(ROWS)
    assert len(tables(DOCS / "commands.md", HEAD)) == len(ROWS)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_its_arguments_and_options_are_those_it_takes(name: str) -> None:
    usage, options, says, _ = ROWS[name]
    flags = {flag for action in own(name) for flag in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", options))
    if name == "check":  # Django's; the page names what is of use here
        assert named <= flags
        return
    assert named == flags
    assert (options == "none") == (not flags)
    for action in own(name):
        if action.option_strings and action.nargs != 0:
            assert re.search(rf"`{action.option_strings[-1]} [A-Z_]+`", options), action.option_strings
    positional = [written(action) for action in own(name) if not action.option_strings]
    assert usage == f"`{' '.join([name, *positional])}`"
    assert says


@pytest.mark.parametrize("name", sorted(ROWS))
def test_its_example_is_taken(name: str) -> None:
    example = shlex.split(ROWS[name][3].strip("`"))
    assert example[0] == name
    parser(name).parse_args(example[1:])
