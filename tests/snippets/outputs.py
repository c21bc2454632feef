"""Holds what a page shows of an output against what came."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.harness.documentation import ROOT, table
from tests.unit.test_logged_events import HEAD, logged

TEXT_LINE = re.compile(
    r"^(?:\S+Z )?(?P<level>[A-Z]+) (?P<logger>[\w.]+): (?P<event>.+?)(?P<fields>(?: \w+=(?:\"[^\"]*\"|\S*))*)$"
)


def lacking(expected: str, said: str) -> str:
    """Return the first line of ``expected`` that does not come in ``said``, after those before it; "" for none."""
    lines = iter([" ".join(line.split()) for line in said.splitlines()])
    for line in expected.splitlines():
        wanted = " ".join(line.split())
        if wanted in ("", "..."):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("...")))
        if not any(pattern.fullmatch(one) for one in lines):
            return line
    return ""


def different(expected: Any, found: Any, *, shape: bool, place: str = "it") -> str:
    """Return where ``found`` is not as ``expected``; "" where it is. With ``shape`` only kinds of values must be so."""
    if isinstance(expected, str) and "..." in expected:
        pattern = ".*".join(re.escape(part) for part in expected.split("..."))
        fits = re.fullmatch(pattern, str(found), re.S) is not None
    elif isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return _first(lambda key: different(expected[key], found[key], shape=shape, place=f"{place}.{key}"), expected)
    elif isinstance(expected, list) and isinstance(found, list) and _as_many(expected, found, shape):
        places = range(len(expected))
        return _first(lambda n: different(expected[n], found[n], shape=shape, place=f"{place}[{n}]"), places)
    else:
        is_whole = isinstance(expected, dict | list)
        fits = _kind(expected) == _kind(found) and (expected == found or (shape and not is_whole))
    return "" if fits else f"{place} is {json.dumps(found)[:500]}"


def _as_many(expected: list[Any], found: list[Any], shape: bool) -> bool:
    return len(expected) == len(found) or (shape and len(expected) < len(found))


def _first(of: Callable[[Any], str], keys: Any) -> str:
    return next((said for said in map(of, keys) if said), "")


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def check_logged(text: str) -> None:
    """Fails where a line of the log, as text or JSON, is none that the code may log."""
    calls = list(logged())
    for line in text.splitlines():
        event, level, logger, fields = _read(line)
        known = [call for call in calls if call.event == event]
        assert known, f"there is no event {event!r}"
        assert level in {call.level for call in known}, f"{event!r} is of the level {known[0].level}"
        loggers = {call.logger for call in known}
        assert logger in loggers, f"{event!r} is logged by {', '.join(sorted(loggers))}"
        ours = fields_of_events()[event]
        assert fields <= ours, f"{event!r} has no {sorted(fields - ours)}"


@cache
def fields_of_events() -> dict[str, set[str]]:
    """The fields of each event, by docs/logs.md."""
    rows = table(ROOT / "docs" / "logs.md", HEAD)
    return {event.strip("`"): set(re.findall(r"`(\w+)`", fields)) for event, _, fields, _ in rows}


def _read(line: str) -> tuple[str, str, str, set[str]]:
    if line.startswith("{"):
        found = json.loads(line)
        head = {"time", "level", "logger", "event"}
        assert head <= found.keys(), f"a line has {sorted(head - found.keys())} too"
        return found["event"], found["level"], found["logger"], set(found) - head
    match = TEXT_LINE.match(line)
    assert match is not None, f"no line of the log: {line}"
    return match["event"], match["level"], match["logger"], set(re.findall(r" (\w+)=", match["fields"]))
