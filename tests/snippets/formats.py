"""Runs what is neither shell nor JSON: each by the program that reads it."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from devtools import node
from devtools.processes import ProcessError
from devtools.prometheus import promtool
from tests.harness.containers import read_variables
from tests.snippets import kubectl
from tests.snippets.inline import check_command, check_metrics

MONGOSH = node.MONGOSH / "node_modules" / ".bin" / "mongosh"
# What mongosh takes as a line of its own.
SHELL_LINE = re.compile(r"^(use|show) \S+;?$", re.M)
TYPESCRIPT = {
    "strict": True,
    "noEmit": True,
    "skipLibCheck": True,  # what others declare is not judged here
    "target": "es2022",
    "module": "nodenext",
    "allowImportingTsExtensions": True,
    "jsx": "react-jsx",
}


def mongosh(text: str, uri: str, home: Path) -> str:
    """Run a page's lines by mongosh; return what it says. Raises ``ProcessError``."""
    node.install(node.MONGOSH)
    parts = [part for part in re.split(rf"({SHELL_LINE.pattern})", text, flags=re.M) if part and part.strip()]
    parts = [part for part in parts if part not in ("use", "show")]
    command = [node.node_binary(), MONGOSH.resolve(), "--quiet", "--norc", uri]
    for part in parts:
        command += ["--eval", part.strip()]
    environment = {**node.environment(), "HOME": str(home)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise ProcessError(f"mongosh ended with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def check_yaml(text: str, folder: Path) -> None:
    """By kubernetes_validate, promtool or our own settings, whichever it is for. Fails where it is wrong."""
    found: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    first = found[0]
    if "apiVersion" in first:
        for manifest in found:
            kubernetes_validate.validate(manifest, kubectl.VERSION, strict=True)
        return
    file = folder / "block.yaml"
    file.write_text(text)
    if first.keys() & {"scrape_configs", "rule_files", "global"}:
        promtool("check", "config", file)
    elif "groups" in first:
        promtool("check", "rules", file)
        check_metrics(text)
    elif "services" in first:
        for name, service in first["services"].items():
            assert {"image", "build"} & service.keys(), f"{name} has no image"
            if "zerosource" in name:
                given = {key: str(value) for key, value in service.get("environment", {}).items()}
                read_variables({**given, "SECRET_KEY": "any"}, folder)
    else:
        raise AssertionError(f"nothing here reads YAML with {sorted(first)}")


def check_promql(text: str, folder: Path) -> None:
    """By promtool, a line each; metrics of ours must be there."""
    rules = [{"record": f"line:{n}", "expr": line} for n, line in enumerate(filter(str.strip, text.splitlines()))]
    file = folder / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "page", "rules": rules}]}))
    promtool("check", "rules", file)
    check_metrics(text)


def check_unit(text: str) -> None:
    """A unit of systemd: its sections and what it starts."""
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(text)
    assert set(found.sections()) <= {"Unit", "Service", "Install", "Timer"}, found.sections()
    starts = [value for section in found.values() for key, value in section.items() if key.startswith("Exec")]
    assert starts, "it starts nothing"
    for command in starts:
        check_command(command)


def compile_typescript(folder: Path) -> None:
    """All TypeScript of a page together, by ``tsc``. Raises ``ProcessError``."""
    node.install()
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": TYPESCRIPT, "include": ["*.ts", "*.tsx"]}))
    tsc = node.MODULES / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node.node_binary(), tsc],
        cwd=folder,
        env=node.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise ProcessError(f"tsc: {done.stdout}{done.stderr}")
