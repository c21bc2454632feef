"""What is pinned: with hashes, asked for by the .in files, and listed with its licence as it is."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from devtools import dependencies
from devtools.dependencies import (
    LICENCES,
    LOCK,
    NPM,
    PINS,
    SBOM,
    DependencyError,
    Pin,
    bill,
    licence_list,
    licences,
    pins,
    plain_name,
)
from devtools.node import PROJECT

RUNS = pins(PROJECT / "requirements.txt")
ALL = pins(PROJECT / "requirements-dev.txt")
ASKED = re.compile(r"^([A-Za-z0-9_-]+)(?:\[\w+\])?==(\S+) +# \S", re.M)


@pytest.mark.parametrize("target", PINS)
def test_every_package_is_pinned_with_hashes(target: str) -> None:
    found = pins(PROJECT / target)
    assert len(found) > 30
    assert [pin.name for pin in found if not pin.hashes] == []
    lines = [line for line in (PROJECT / target).read_text().splitlines() if re.match(r"[A-Za-z]", line)]
    assert len(lines) == len(found)


@pytest.mark.parametrize(("target", "source"), PINS.items())
def test_what_is_asked_for_is_what_is_pinned(target: str, source: str) -> None:
    text = (PROJECT / source).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "-r "))]
    if source == "requirements.in":
        assert len(ASKED.findall(text)) == len(lines), "each line has a version, and says why it is here"
    pinned = {(pin.name, pin.version) for pin in pins(PROJECT / target)}
    asked = [re.match(r"([A-Za-z0-9_-]+)(?:\[\w+\])?==(\S+)", line) for line in lines]
    assert {(plain_name(match[1]), match[2]) for match in asked if match} <= pinned
    assert all(asked)


def test_development_has_what_production_has() -> None:
    assert set(RUNS) <= set(ALL)


def test_what_runs_here_is_what_is_pinned() -> None:
    pinned = {pin.name: pin.version for pin in RUNS}
    assert {name: version(name) for name in pinned if name != "async-timeout"} == {
        name: pin for name, pin in pinned.items() if name != "async-timeout"
    }


@pytest.mark.parametrize("folder", NPM, ids=lambda folder: folder.name)
def test_npm_packages_are_pinned_with_hashes(folder: Path) -> None:
    locked = json.loads((folder / LOCK).read_text())["packages"]
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    assert locked[""]["dependencies"] == asked
    assert {name: locked[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert len(locked) > 100
    assert [
        place for place, entry in locked.items() if place and not entry.get("integrity", "").startswith("sha512-")
    ] == []


def test_no_file_names_a_registry() -> None:
    for name in (name for pair in PINS.items() for name in pair):
        assert not re.search(r"https?:|index-url|find-links", (PROJECT / name).read_text())
    for folder in NPM:
        assert '"resolved"' not in (folder / LOCK).read_text()
    assert set(re.findall(r"https?://([^/\s]+)", SBOM.read_text())) == {"cyclonedx.org"}
    assert "http" not in LICENCES.read_text()


def test_the_lists_are_those_of_the_pins() -> None:
    """Made anew they are the same; so are they when made twice."""
    known = licences()
    assert LICENCES.read_text() == licence_list(known), "make sbom"
    made = bill(known)
    assert SBOM.read_text() == made == bill(known), "make sbom"


def test_the_bill_of_materials_lists_what_runs_and_no_more() -> None:
    data = json.loads(SBOM.read_text())
    listed = {
        (one["name"], one["version"], *(each["content"] for ref in one["externalReferences"] for each in ref["hashes"]))
        for one in data["components"]
    }
    assert listed == {(pin.name, pin.version, *pin.hashes) for pin in RUNS}
    assert all(one["licenses"][0]["license"]["name"] for one in data["components"])
    assert "secantusdb" not in SBOM.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(SBOM.read_text()) is None


def test_a_change_of_a_pin_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PINS:
        (tmp_path / name).write_text((PROJECT / name).read_text().replace("orjson==", "orjson==99."))
    monkeypatch.setattr(dependencies, "PROJECT", tmp_path)
    assert licence_list(licences()) != LICENCES.read_text()


def test_a_package_without_a_licence_is_told() -> None:
    known = {pin.name: "MIT" for pin in ALL if pin.name != "orjson"}
    with pytest.raises(DependencyError, match="orjson declares no licence"):
        licence_list(known)


def test_pins_are_read(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    first, second = "0" * 64, "1" * 64
    lines = [
        "a-b==1.0 ; python_version < '3' \\",
        f"    --hash=sha256:{first} \\",
        f"    --hash=sha256:{second}",
        "c==2",
        "",
    ]
    path.write_text("\n".join(lines))
    assert pins(path) == [Pin("a-b", "1.0", (first, second)), Pin("c", "2", ())]


@pytest.mark.parametrize(
    ("said", "code", "problem"),
    [
        ("Found 2 known vulnerabilities in 1 package", 1, "known vulnerabilities"),
        ("# npm audit report\nx", 1, "npm audit report"),
        ("ERROR: no route", 1, "was NOT audited: the service of known vulnerabilities did not answer"),
    ],
)
def test_an_audit_that_found_something_or_nobody_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, problem: str
) -> None:
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(dependencies, "_tool", lambda _: [str(tool)])
    monkeypatch.setattr(dependencies, "npm", lambda: [str(tool)])
    with pytest.raises(DependencyError, match=problem):
        dependencies.audit()
    tool.write_text("#!/bin/sh\nexit 0\n")
    dependencies.audit()
