"""docs/logs.md lists every event that the code logs, with its level and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.harness.documentation import ROOT, table

HEAD = "| Event | Level | Fields | What it says |"
LEVELS = {name: name.upper() for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "ERROR"}
# What a call stands for, and what the function that logs refusals adds itself.
CALLS = {"self._names()": {"app_id", "shard"}}
OF_REFUSALS = {"client", "code", "why", "unlogged"}


class Logged(NamedTuple):
    """A call that logs; ``fields`` are those that can be told from it, ``all_told`` says that there are no others."""

    event: str
    level: str
    fields: frozenset[str]
    all_told: bool
    place: str
    logger: str


def _fields(extra: ast.expr) -> tuple[set[str], bool]:
    if isinstance(extra, ast.Dict) and all(isinstance(key, ast.Constant) for key in extra.keys):
        return {str(key.value) for key in extra.keys if isinstance(key, ast.Constant)}, True
    if isinstance(extra, ast.BinOp):
        (left, all_left), (right, all_right) = _fields(extra.left), _fields(extra.right)
        return left | right, all_left and all_right
    known = CALLS.get(ast.unparse(extra))
    return known or set(), known is not None


def _logged(call: ast.Call, place: str, logger: str) -> Logged | None:
    function = call.func
    if isinstance(function, ast.Name) and function.id == "refused":
        return Logged(_event(call, place), "WARNING", frozenset(OF_REFUSALS), False, place, "changesource.refusals")
    if not isinstance(function, ast.Attribute) or ast.unparse(function.value) != "logger":
        return None
    assert function.attr in LEVELS, f"{place}: {function.attr}"
    extra = next((word.value for word in call.keywords if word.arg == "extra"), ast.Dict([], []))
    fields, all_told = _fields(extra)
    assert len(call.args) == 1, f"{place}: the event holds what changes"
    return Logged(_event(call, place), LEVELS[function.attr], frozenset(fields), all_told, place, logger)


def _event(call: ast.Call, place: str) -> str:
    event = call.args[0]
    assert isinstance(event, ast.Constant), f"{place}: the event is no plain text"
    assert isinstance(event.value, str)
    return event.value


def logged() -> Iterator[Logged]:
    """All calls in the code that log, but for the one in ``refused``, whose callers count."""
    for file in sorted((ROOT / "changesource").rglob("*.py")):
        logger = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            place = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and ast.unparse(node) != "logger.warning(event, extra=extra)":
                found = _logged(node, place, logger)
                if found is not None:
                    yield found


def test_every_event_is_documented() -> None:
    rows = table(ROOT / "docs" / "logs.md", HEAD)
    documented = {event.strip("`"): (level, set(re.findall(r"`(\w+)`", fields))) for event, level, fields, _ in rows}
    calls = list(logged())
    assert documented.keys() == {call.event for call in calls}
    assert len(documented) == len(rows) > 50
    for call in calls:
        level, fields = documented[call.event]
        assert level == call.level, call
        assert call.fields <= fields, call
    for event, (_, fields) in documented.items():
        of_event = [call for call in calls if call.event == event]
        if all(call.all_told for call in of_event):
            assert fields == frozenset().union(*(call.fields for call in of_event)), event
