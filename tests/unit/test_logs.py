"""Log lines: an event and its fields, as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys

from changesource.logs import JsonFormatter, TextFormatter


def _record(**fields: object) -> logging.LogRecord:
    return logging.getLogger("changesource.x").makeRecord(
        "changesource.x", logging.INFO, "f", 1, "snapshot done", (), None, extra=fields
    )


def test_text_has_the_fields_in_their_order_on_one_line() -> None:
    line = TextFormatter().format(_record(table="message", rows=3, why='a "b"\nc'))
    assert line.endswith(r'INFO changesource.x: snapshot done table=message rows=3 why="a \"b\"\nc"')


def test_json_has_the_fields_after_the_event() -> None:
    line = json.loads(JsonFormatter().format(_record(rows=3, table="message", level="no", where={1})))
    assert list(line) == ["time", "level", "logger", "event", "rows", "table", "where"]
    assert (line["event"], line["rows"], line["level"]) == ("snapshot done", 3, "INFO")


def test_a_traceback_is_kept() -> None:
    record = _record()
    try:
        raise ValueError("broken")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: broken" in TextFormatter().format(record)
    assert "ValueError: broken" in json.loads(JsonFormatter().format(record))["traceback"]
