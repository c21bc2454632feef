"""Alerts, their tests and the dashboard speak of metrics and labels that there are; the documentation of all alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.documentation import METRICS_HEAD, ROOT, table

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
ALERT_TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yaml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "zerosource.json").read_text())
ALERTS_HEAD = "| Alert | Severity | Means | What to do |"
OF_THE_CLIENT = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
# What Prometheus itself adds to every series.
OF_PROMETHEUS = {"job", "instance"}
LABELLED = re.compile(r"\b(zerosource_\w+)\{([^}]*)\}")


def documented() -> dict[str, set[str]]:
    """The names of all series, and their labels."""
    found: dict[str, set[str]] = {}
    for cell, kind, labels, _ in table(ROOT / "docs" / "metrics.md", METRICS_HEAD):
        name, own = cell.strip("`"), set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", labels)))
        suffixes = {"_bucket": {"le"}, "_sum": set(), "_count": set()} if kind == "histogram" else {"": set()}
        found |= {name + suffix: own | more for suffix, more in suffixes.items()}
    return found


KNOWN = documented()


def panels() -> list[dict[str, Any]]:
    """All panels that are no headings."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (annotation["expr"] for annotation in DASHBOARD["annotations"]["list"])


ASKED = [ALERTS.read_text(), ALERT_TESTS.read_text(), *expressions()]


@pytest.mark.parametrize("text", ASKED, ids=lambda text: text[:60])
def test_what_is_asked_for_exists(text: str) -> None:
    names = set(re.findall(r"\b(?:zerosource|process)_\w+", text))
    assert names - KNOWN.keys() - OF_THE_CLIENT == set()
    for name, labels in LABELLED.findall(text):
        assert set(re.findall(r"(\w+)=", labels)) - KNOWN[name] - OF_PROMETHEUS == set(), name
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", text):
        assert set(group.split(", ")) - set().union(*KNOWN.values()) - OF_PROMETHEUS == set()


def test_the_dashboard_shows_every_metric() -> None:
    shown = set(re.findall(r"\bzerosource_\w+", " ".join(expressions())))
    assert KNOWN.keys() - shown == set()


def test_panels_have_their_place() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len(panels()) > 15
    assert all(panel["description"] and panel["targets"] for panel in panels())


def test_every_alert_is_documented_and_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)\n(?:.*\n)*?\s+labels: \{severity: (\w+)\}", ALERTS.read_text())
    assert len(alerts) == ALERTS.read_text().count("- alert:") > 10
    rows = table(ROOT / "docs" / "monitoring.md", ALERTS_HEAD)
    assert alerts == [(name.strip("`"), severity) for name, severity, _, _ in rows]
    tested = re.findall(r"alertname: (\w+)\s+exp_alerts:\n\s+- exp_labels", ALERT_TESTS.read_text())
    quiet = re.findall(r"alertname: (\w+), exp_alerts: \[\]", ALERT_TESTS.read_text())
    assert set(tested) == set(quiet) == {name for name, _ in alerts}
