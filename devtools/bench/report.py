"""What was measured, as JSON, as a table, and as a chart."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from devtools import node
from devtools.processes import PROC

PACKAGES = ("pymongo", "orjson", "daphne", "Django", "secantusdb")
MOST = 8  # times as good as its bar: what is better still is drawn so
Report = dict[str, dict[str, Any]]


def machine() -> dict[str, Any]:
    """Return where it was measured and with what, in the form of a figure."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in (PROC / "cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    node_version = subprocess.run([node.node_binary(), "--version"], capture_output=True, text=True, check=False)
    zero = json.loads((node.SCRIPTS / "package.json").read_text())["dependencies"]["@rocicorp/zero"]
    versions = {name: version(name) for name in PACKAGES}
    return {
        "value": f"{model}, {cores} cores, Python {platform.python_version()}",
        "bar": None,
        "ok": True,
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {**versions, "node": node_version.stdout.strip(), "zero-cache": zero},
    }


def write(report: Report, directory: Path) -> None:
    """Write latest.json, latest.md and latest.png."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "latest.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (directory / "latest.md").write_text(markdown(report), encoding="utf-8")
    draw(report, directory / "latest.png")


def markdown(report: Report) -> str:
    """Return the table, with what else was found below it."""
    about = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        "# Latest benchmarks",
        "",
        f"{about['value']}; {versions}; {about['date']}, load {about['load_before']:.1f} before.",
        "Written by `make bench`; [README.md](README.md) says what each figure is.",
        "",
        "| Figure | Median | Lowest to highest | Bar | Kept |",
        "| --- | --- | --- | --- | --- |",
    ]
    figures = {name: found for name, found in report.items() if name != "machine"}
    lines += [_row(name, found) for name, found in figures.items()]
    lines += ["", "## Beside them", "", "Medians; processor time is of whole process trees, in seconds.", ""]
    lines += ["| Figure | What | Found |", "| --- | --- | --- |"]
    for name, found in figures.items():
        lines += [f"| `{name}` | {what} | {_shown(value)} |" for what, value in found.get("details", {}).items()]
    return "\n".join(lines) + "\n"


def _row(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"| `{name}` | not measured: {found['error']} | | | no |"
    if found["bar"] is None:
        bar, kept = "", ""
    else:
        bar = f"{'at least' if found['better'] == 'higher' else 'at most'} {found['bar']:g}"
        kept = f"void: {found['void']}" if "void" in found else "yes" if found["ok"] else "**no**"
    spread = f"{found['low']:,} to {found['high']:,} ({found['rounds']} rounds)"
    return f"| `{name}` | {found['value']:,} {found['unit']} | {spread} | {bar} | {kept} |"


def _shown(value: object) -> str:
    match value:
        case {"median": median, "low": low, "high": high}:
            return f"{median:,} ({low:,} to {high:,})"
        case dict():
            return "; ".join(f"{key} {_shown(item)}" for key, item in value.items())
        case int() | float():
            return f"{value:,}"
        case _:
            return str(value)


def draw(report: Report, path: Path) -> None:
    """Draw each figure by its bar (right of the line is better), and what scaling found."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, which measuring should not wait for

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    # An exponent is no multiple of its bar; it is drawn below.
    barred = {name: found for name, found in report.items() if (found.get("bar") or 0) > 0 and found.get("value")}
    scaled = {name: found for name, found in report.items() if name.startswith("scaling_") and "details" in found}
    grid, axes = pyplot.subplots(2, 3, figsize=(13, 8), height_ratios=[3, 2], layout="constrained")
    for axis in axes[0]:
        axis.remove()
    bars = grid.add_subplot(axes[0][0].get_gridspec()[0, :])
    names = list(reversed(barred))
    colors = ["#2a7" if barred[name]["ok"] else "#c43" for name in names]
    drawn = bars.barh(names, [_by_bar(barred[name]) for name in names], color=colors)
    bars.bar_label(drawn, [f"{barred[name]['value']:,} {barred[name]['unit']}" for name in names], padding=4)
    bars.axvline(1, color="black", linewidth=1)
    bars.set_xscale("log", base=2)
    bars.set_xlim(1 / MOST, 3 * MOST)
    bars.xaxis.set_major_formatter("{x:g}")
    bars.set_xlabel(f"times as good as the bar, {MOST} at most")
    bars.set_title(report["machine"]["value"])
    for name, axis in zip(("documents", "tables", "replicas"), axes[1], strict=True):
        series = scaled.get(f"scaling_{name}", {}).get("details", {}).get("rows_per_second", {})
        sizes = [int(size) for size in series]
        medians = [one["median"] for one in series.values()]
        low = [one["median"] - one["low"] for one in series.values()]
        high = [one["high"] - one["median"] for one in series.values()]
        axis.errorbar(sizes, medians, yerr=[low, high], marker="o", capsize=3)
        axis.set(xscale="log", xlabel=name, ylabel="rows/s")
        axis.set_ylim(bottom=0)
    grid.savefig(path, dpi=110)
    pyplot.close(grid)


def _by_bar(found: dict[str, Any]) -> float:
    value, bar = float(found["value"]), float(found["bar"])
    if found["better"] == "higher":
        return min(value / bar, MOST)
    return bar / max(value, bar / MOST)
