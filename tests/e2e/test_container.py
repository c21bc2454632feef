"""The image, made by the Dockerfile's own instructions in a Debian root: it serves as the README's command runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.processes import free_port, port_answers
from tests.conftest import MongoServer
from tests.harness.application import application
from tests.harness.documentation import README
from tests.harness.image import Container, Image, image
from tests.harness.reader import Reader

pytestmark = pytest.mark.slow
SCHEMA = {
    "message": {
        "tableName": "message",
        "columns": {"id": {"type": "string"}, "content": {"type": "string"}},
        "primaryKey": ["id"],
    }
}
# What nobody who broke in should find.
TOOLS = (
    "cc",
    "c++",
    "gcc",
    "g++",
    "cpp",
    "ld",
    "as",
    "make",
    "cmake",
    "rustc",
    "cargo",
    "go",
    "git",
    "curl",
    "wget",
    "pip",
)
PLACES = ("usr/local/bin", "usr/bin", "usr/sbin", "bin", "sbin", "opt/zerosource/venv/bin")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image(tmp_path_factory.mktemp("container") / "image") as made:
        yield made


@pytest.fixture
def app() -> Iterator[int]:
    """The port of an application that answers at /schema."""
    with application({"/schema": json.dumps(SCHEMA)}) as port:
        yield port


@pytest.fixture
def settings(built: Image, mongodb: MongoServer, app: int) -> dict[str, str]:
    """The two variables of the README's command, with ports of ours, and hosts that a network of containers has.

    What it has ``docker build`` make is what it has ``docker run`` run; ``docker logs`` shows the container's log.
    """
    lines = dict(re.findall(r"^docker (build|run) (.+)$", README.read_text(), re.M))
    words = shlex.split(lines["run"])
    assert shlex.split(lines["build"]) == ["-t", words[-1], "."]
    documented = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-e")
    assert documented.keys() == {"MONGODB_URI", "SCHEMA_URL"}
    assert words[words.index("-p") + 1] == "3000:3000"
    (built.root / "etc" / "hosts").write_text("127.0.0.1 localhost mongo app\n")
    port = mongodb.client.address[1] if mongodb.client.address else 27017
    return {
        "MONGODB_URI": documented["MONGODB_URI"].replace("mongo:27017", f"mongo:{port}"),
        "SCHEMA_URL": documented["SCHEMA_URL"].replace("//app/", f"//app:{app}/"),
        "PORT": str(free_port()),
    }


def test_nothing_that_builds_is_left(built: Image) -> None:
    names = {path.name for place in PLACES if (built.root / place).is_dir() for path in (built.root / place).iterdir()}
    assert "python3" in names
    assert [
        tool for tool in TOOLS if any(re.fullmatch(rf"(\w+-)*{re.escape(tool)}(-?[\d.]+)?", n) for n in names)
    ] == []
    packages = {path.name for path in (built.root / "opt/zerosource/venv/lib").glob("python3*/site-packages/*")}
    assert "django" in packages
    assert not packages & {"pip", "setuptools", "pytest", "secantusdb"}
    assert sorted(
        path.name for path in (built.root / "opt/zerosource/app").iterdir() if path.name != "__pycache__"
    ) == [
        "LICENSE",
        "changesource",
        "manage.py",
        "templates",
        "zerosource_project",
    ]
    # The user may write to its volume alone.
    uid = int(built.final.user.split(":")[0])
    owned = [path for path in built.root.rglob("*") if not path.is_symlink() and path.lstat().st_uid == uid]
    assert owned == [built.root / "data"]
    loose = [p for p in (built.root / "opt").rglob("*") if not p.is_symlink() and p.stat().st_mode & stat.S_IWOTH]
    assert loose == []


def test_it_serves_and_goes_on_after_a_restart(
    built: Image, settings: dict[str, str], mongodb: MongoServer, tmp_path: Path
) -> None:
    """As nobody in particular, with a root that nobody can write to, from two variables; its volume keeps the rest."""
    messages = mongodb.client["test"]["message"]
    messages.insert_one({"_id": "one", "content": "Hello"})
    volume, port = tmp_path / "volume", int(settings["PORT"])
    container = built.container(volume, tmp_path / "first.log", settings)
    try:
        wait_to_serve(container, built, settings)
        assert container.status("Uid") == container.status("Gid") == ["10001"] * 4
        assert container.status("NSpid")[-1] == "1"
        mounts = container.mounts()
        assert "ro" in mounts["/"]
        assert "rw" in mounts["/data"]
        said = container.log_text()
        for words in (
            "'test' (neither",
            "SQLite in /data",
            "kept in /data",
            "localhost, 127.0.0.1",
            "collection of its own",
        ):
            assert words in said.partition("API key")[0], said
        assert "Admin user     there is none yet" in said
        (key,) = re.findall(r"API key .*: (\S+)", said)
        reader = Reader(f"ws://127.0.0.1:{port}/changes/v0/stream?apiKey={key}")
        follow(reader, messages, "two")
        assert reader.model.rows("message") == {(one["_id"],): to_row(one) for one in messages.find()}
        end(container)
        assert built.health(settings) == 1
    finally:
        container.kill()

    again = built.container(volume, tmp_path / "again.log", settings)
    try:
        wait_to_serve(again, built, settings)
        assert not re.findall(r"API key .*: (\S+)", again.log_text())
        follow(reader, messages, "three")
        assert reader.model.rows("message") == {(one["_id"],): to_row(one) for one in messages.find()}
        end(again)
        assert "Traceback" not in container.log_text() + again.log_text()
    finally:
        again.kill()


def test_it_ends_at_once_while_it_starts(built: Image, settings: dict[str, str], tmp_path: Path) -> None:
    """The first process of a container is deaf to signals that it does not ask for."""
    nowhere = {**settings, "DATABASE_URL": f"postgresql://nobody:password@127.0.0.1:{free_port()}/nothing"}
    container = built.container(tmp_path / "volume", tmp_path / "log", nowhere)
    try:
        container.wait_until(lambda: "does not answer, waiting" in container.log_text(), "it to wait", 60)
        end(container, 128 + signal.SIGTERM)
    finally:
        container.kill()


def test_other_commands_run_in_it(built: Image, settings: dict[str, str], tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    made = built.container(volume, tmp_path / "migrate.log", settings, "migrate", "--verbosity", "0")
    assert made.wait(60) == 0, made.log_text()
    key = built.container(volume, tmp_path / "key.log", settings, "createapikey", "production")
    assert key.wait(60) == 0, key.log_text()
    assert (volume / "secret_key").stat().st_mode & 0o777 == 0o600


def wait_to_serve(container: Container, built: Image, settings: dict[str, str]) -> None:
    port = int(settings["PORT"])
    container.wait_until(lambda: "Change source  ws://" in container.log_text(), "it to serve", 60)
    container.wait_until(lambda: port_answers("127.0.0.1", port), "its port", 10)
    assert built.health(settings) == 0


def follow(reader: Reader, messages: Any, name: str) -> None:
    """Have a document written while the replica follows, which syncs first where it has not; wait until it is there."""

    async def go() -> None:
        if not reader.replica_version:
            await reader.sync()
        messages.insert_one({"_id": name, "content": "More"})
        await reader.follow(lambda: (name,) in reader.model.rows("message"))

    asyncio.run(go())


def to_row(document: dict[str, Any]) -> dict[str, Any]:
    return {"id": document["_id"], "content": document["content"]}


def end(container: Container, code: int = 0) -> None:
    """Stop it as an engine does; it must end by itself, in time."""
    os.kill(container.first, signal.SIGTERM)
    assert container.wait(10) == code, container.log_text()
