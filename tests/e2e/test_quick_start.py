"""docs/quick-start.md as it is written: its commands in bash, its programs with a real zero-cache and Zero client."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from devtools.node import MODULES, PROJECT, SCRIPTS
from devtools.processes import ManagedProcess, free_port
from tests.conftest import MongoServer
from tests.harness.documentation import DOCS, blocks, commands
from tests.harness.environment import newcomers_environment

pytestmark = pytest.mark.slow
PAGE = DOCS / "quick-start.md"
OWN = "mongodb://zerosource:secret@db.example/app?replicaSet=rs0"


class Terminal(Protocol):
    """See the fixture ``terminal``."""

    def __call__(self, script: str, name: str, folder: str = "zerosource") -> ManagedProcess: ...


@pytest.fixture
def ports() -> dict[str, str]:
    """What the page's ports are here."""
    return {"3000": str(free_port()), "4848": str(free_port(span=2)), "4000": str(free_port())}


@pytest.fixture
def terminal(tmp_path: Path, ports: dict[str, str]) -> Iterator[Terminal]:
    """Runs commands in a clone of what is committed, with the packages that are installed here already."""
    clone = tmp_path / "zerosource"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(clone)], check=True)
    (clone / ".venv").symlink_to((PROJECT / ".venv").resolve())
    (clone / MODULES.relative_to(PROJECT)).symlink_to(MODULES.resolve())
    for requirements in clone.glob("requirements*.txt"):
        os.utime(requirements, (0, 0))  # older than what is installed
    outside = newcomers_environment()
    outside |= {"PORT": ports["3000"], "ZERO_PORT": ports["4848"]}
    outside |= {"ZERO_UPSTREAM_DB": f"ws://localhost:{ports['3000']}/changes/v0/stream"}
    with ExitStack() as stack:

        def run(script: str, name: str, folder: str = "zerosource") -> ManagedProcess:
            for shown, here in ports.items():
                script = script.replace(f"localhost:{shown}", f"localhost:{here}")
            process = ManagedProcess(["bash", "-ec", script], tmp_path / f"{name}.log", outside, tmp_path / folder)
            stack.callback(process.kill)
            return process

        yield run


def done(process: ManagedProcess, what: str) -> str:
    """What it wrote, once it has ended well."""
    code = process.wait(60)
    said: str = process.log_text()
    assert code == 0, f"{what}: {said}"
    return said


def programs(folder: Path, ports: dict[str, str]) -> None:
    """Write the page's files, with ports of ours."""
    for file, text in blocks(PAGE, "js"):
        here = text.replace("localhost:4848", f"localhost:{ports['4848']}")
        (folder / file).write_text(here.replace("listen(4000", f"listen({ports['4000']}"))


def test_the_quick_start(tmp_path: Path, terminal: Terminal, ports: dict[str, str]) -> None:
    """The sample data is shown by the client, and so is a message that is written then."""
    served = terminal(commands(PAGE, "make run"), "run")
    served.wait_until(lambda: "watching" in served.log_text(), "make run to serve", 60)
    assert "Admin user 'admin' with password" in served.log_text()
    zero = json.loads((SCRIPTS / "package.json").read_text())["dependencies"]["@rocicorp/zero"]
    path = "export PATH=$PWD/.venv/bin:$PATH"
    client = commands(PAGE, path, "mkdir -p", "python manage.py", "cd ../hello-zero", "npm install")
    install = f"npm install @rocicorp/zero@{zero}"
    assert install in client
    done(terminal(client.replace(install, f"ln -s {MODULES.resolve()} node_modules"), "client"), "the client's folder")
    programs(tmp_path / "hello-zero", ports)
    cache = terminal(commands(PAGE, "ZERO_QUERY_URL=http://localhost:4000 make zero"), "zero")
    cache.wait_until(lambda: "zero-cache is ready" in cache.log_text(), "zero-cache", 120)
    path = f"export PATH={PROJECT}/.venv/bin:$PATH\n"
    watch = terminal(path + commands(PAGE, "node query-server.mjs", "node client.mjs"), "watch", "hello-zero")
    watch.wait_until(lambda: "│ 4 " in watch.log_text(), "five rows of the sample", 60)
    assert "Hello" not in watch.log_text()
    (uri,) = re.findall(r"mongodb://\S+", served.log_text())
    write = commands(PAGE, ".venv/bin/python -c").replace("mongodb://127.0.0.1:PORT/?retryWrites=false", uri)
    done(terminal(write, "write"), "the write")
    watch.wait_until(lambda: "Hello" in watch.log_text(), "the new row", 30)


def test_the_quick_start_with_ones_own_mongodb(terminal: Terminal, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """It is served as it is, and one of its collections is mapped by the page's commands."""
    mongo.messages.insert_many([{"text": "One"}, {"text": "Two"}])
    own = mongodb.uri.replace("/?", f"/{mongo.name}?")
    served = terminal(commands(PAGE, "MONGODB_URI=").replace(OWN, own), "run")
    served.wait_until(lambda: "/healthz" in served.log_text(), "make run to serve", 60)
    assert "watching" not in served.log_text()
    said = done(terminal(commands(PAGE, "export DEBUG=1 MONGODB_URI").replace(OWN, own), "map"), "mapping")
    assert "made: note" in said
    served.wait_until(lambda: "watching" in served.log_text(), "the mapping to be served", 60)
    with MongoClient[Any](own) as client:
        assert set(client.get_default_database().list_collection_names()) == {"messages", "_zerosource"}
