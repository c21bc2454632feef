"""Holds what the text names in inline code against what there is: commands, settings, codes, metrics, paths."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml
from django.core.management import get_commands, load_command_class
from django.urls import Resolver404, resolve
from prometheus_client import generate_latest

from changesource import exceptions
from devtools import node
from tests.harness.containers import FIRST_ADMIN, VARIABLES
from tests.harness.documentation import ROOT
from tests.harness.scraping import metrics_of
from tests.snippets.pages import Page
from tests.snippets.placeholders import NOT_SETTINGS, OF_OTHERS
from tests.unit.test_logged_events import logged

CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(?P<text>.+?)(?<!`)\1(?!`)")
NAME = re.compile(r"(?<![\w.])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?:_?\*)?(?![\w])")
METRIC = re.compile(r"\bzerosource_[a-z_]+\b")
ALERT = re.compile(r"\bZerosource[A-Z]\w+")
ERROR = re.compile(r"\bZS\d{3}\b")
FILE = re.compile(r"^[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|json|ya?ml|txt|sh|mjs|svg|toml))$|^(?:[\w.-]+/)+[\w.-]+$")
PATH_OF_URL = re.compile(r"^/[a-z][\w/-]*$")
WORDS = re.compile(r"^[a-z][a-z,-]*(?: [a-z][a-z,-]*)+(?:; .*)?$")
# A word that begins like our commands, so that a misspelt one is seen.
LIKE_COMMAND = re.compile(
    r"^(?:create|list|change|revoke|import|export|publish|reload|takeover|infer|preview|compare|restore|resync|forget"
    r"|retry|enable|disable|run)[a-z]{4,}$"
)
# What looks like a path, and is none of this repository's: media types, options of others, and what comes to be.
OTHER_PATHS = re.compile(r"^(?:application|text)/|^data/|^\.zero/|^/(?:data|proc|etc|var|tmp|dev)(?:/|$)")
# Paths that a page tells of as not there.
MISSING_PATHS = {"/metadata/status"}
# What .gitignore leaves out, and git's own.
MADE = {".git", ".venv", ".zero", ".env", "data", "__pycache__", "node_modules"}
MADE |= {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
# Programs of others, whose words are no events of the log.
PROGRAMS = {"kubectl", "promtool", "docker", "ulimit", "openssl", "mongod", "mongosh", "npm", "npx", "pip", "systemctl"}


def check_page(page: Page) -> Iterator[str]:
    """What is wrong in the text of a page, each with its place."""
    for line, text in page.prose.items():
        for match in CODE.finditer(text):
            if match["text"] in OF_OTHERS.get(page.name, ()):
                continue
            try:
                check_code(match["text"].strip())
            except AssertionError as error:
                yield f"{page.name}:{line}: `{match['text']}`: {error}"


def check_code(text: str) -> None:
    """Fails where a piece of inline code names something of ours that is not there."""
    for code in ERROR.findall(text):
        assert code in error_codes(), f"there is no error {code}"
    check_metrics(text)
    check_names(text)
    first = text.split(maxsplit=1)[0]
    if LIKE_COMMAND.match(first) or "manage.py " in text or first in our_commands():
        check_command(text)
    elif text.startswith("make "):
        check_target(text)
    elif PATH_OF_URL.match(text):
        assert is_route(text), "there is no such page"
    elif FILE.match(text):
        assert is_file(text), "there is no such file"
    elif WORDS.match(text) and first not in PROGRAMS:
        assert text in events() or f'"{text}"' in sources(), "there is no such event of the log, and no such command"


def check_metrics(text: str) -> None:
    """Fails at a metric of ours, or an alert, that is not there."""
    metrics = metrics_of(generate_latest().decode())
    for name in METRIC.findall(text):
        plain = re.sub(r"_(bucket|count|sum)$", "", name)
        assert name in metrics or plain in metrics or name.endswith("_"), f"there is no metric {name}"
    for name in ALERT.findall(text):
        assert name in alerts(), f"there is no alert {name}"


def check_names(text: str) -> None:
    """Fails at a name of capitals that is no setting of ours and no variable of zero-cache."""
    for name in NAME.findall(text):
        known = VARIABLES | FIRST_ADMIN | NOT_SETTINGS.keys() | {"ZEROSOURCE_PROCESS_TREE"}
        if name.startswith("ZERO_"):
            known = known | zero_variables()
        if name.startswith("OTEL_"):
            known = known | telemetry_variables()
        begin = name.rstrip("*")
        found = name in known or (name.endswith("*") and any(one.startswith(begin) for one in known))
        assert found, f"there is no setting {name}, nor is it in tests/snippets/placeholders.py"


def check_command(text: str) -> None:
    """Fails where a line runs a command of manage.py that is not there, or gives it an option that it has not."""
    words = shlex.split(text.partition(" #")[0])
    if "manage.py" in [word.rpartition("/")[2] for word in words]:
        words = words[[word.rpartition("/")[2] for word in words].index("manage.py") + 1 :]
    elif any(word.endswith(("python", "daphne")) for word in words[:1]):
        return
    if not words:
        return
    name = words[0]
    if name.isupper():
        return  # it stands for any
    assert name in get_commands(), f"there is no command {name}"
    command = get_commands()[name]
    parser = (load_command_class(command, name) if isinstance(command, str) else command).create_parser(
        "manage.py", name
    )
    known = {option for action in parser._actions for option in action.option_strings}
    for word in words[1:]:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{name} has no option {word}"


def check_target(text: str) -> None:
    """Fails where the Makefile has no such target, or does not look at a variable."""
    makefile = (ROOT / "Makefile").read_text()
    for word in text.split()[1:]:
        variable, is_set, _ = word.partition("=")
        if is_set:
            assert f"$({variable})" in makefile or f"${{{variable}" in makefile or f"{variable} ?=" in makefile, (
                f"the Makefile knows no {variable}"
            )
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.M), f"the Makefile has no target {word}"


def is_route(path: str) -> bool:
    """Whether a page or a WebSocket is there, or pages under it."""
    if OTHER_PATHS.match(path) or path in MISSING_PATHS:
        return True
    for one in (path, f"{path.rstrip('/')}/"):
        try:
            resolve(one)
        except Resolver404:
            continue
        return True
    return path in ("/healthz", "/readyz", "/admin/live/changes", "/metadata")


def is_file(name: str) -> bool:
    """Whether the repository has a file or folder that is called so, or whose path ends so."""
    plain = name.rstrip("/")
    if OTHER_PATHS.match(name):
        return True
    return any(f"/{one}".endswith(f"/{plain}") or f"/{plain}/" in f"/{one}" for one in files())


@cache
def files() -> tuple[str, ...]:
    """All files of the repository, without what is made in it. Without git, which a machine may lack."""
    found: list[str] = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in MADE]
        found += [str((Path(folder) / name).relative_to(ROOT)) for name in names if name not in MADE]
    return tuple(found)


@cache
def zero_variables() -> frozenset[str]:
    """What zero-cache looks at, by its own configuration."""
    node.install()
    command = [node.node_binary(), node.SCRIPTS / "settings.mjs"]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, check=True, timeout=60)
    return frozenset(done.stdout.split())


@cache
def telemetry_variables() -> frozenset[str]:
    """What OpenTelemetry looks at; none where it is not installed."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return frozenset()
    modules = ("opentelemetry.environment_variables", "opentelemetry.sdk.environment_variables")
    return frozenset(name for module in modules for name in vars(import_module(module)))


@cache
def sources() -> str:
    """All of our code: a text in it may be a span, a state or a result, of which pages tell too."""
    return "".join(path.read_text() for path in sorted((ROOT / "changesource").rglob("*.py")))


@cache
def our_commands() -> frozenset[str]:
    """The commands of this app."""
    return frozenset(name for name, app in get_commands().items() if app == "changesource") - {"check"}


@cache
def events() -> frozenset[str]:
    """The events that the code logs."""
    return frozenset(call.event for call in logged())


@cache
def error_codes() -> frozenset[str]:
    """The codes of all errors."""
    found = (getattr(one, "code", "") for one in vars(exceptions).values())
    return frozenset(code for code in found if isinstance(code, str))


@cache
def alerts() -> frozenset[str]:
    """The alert rules that are shipped."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
    return frozenset(rule["alert"] for group in rules["groups"] for rule in group["rules"])
