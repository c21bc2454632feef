"""What a page's reader has before the first command: a copy of the repository, data, a shell, and programs."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from bson import ObjectId
from psycopg import sql
from pymongo import MongoClient

from changesource import sample_data
from devtools import node
from devtools.node import PROJECT
from devtools.postgres import Postgres
from devtools.processes import ManagedProcess
from tests.harness.environment import blank_environment, process_environment
from tests.snippets.inline import files
from tests.snippets.placeholders import Reader
from tests.snippets.shell import Shell
from tests.snippets.zygote import shim

DATABASE = "app"
# The _id that pages name of a message.
MESSAGE = ObjectId("64b7f0c2a1b2c3d4e5f60718")
NPM = f"""\
#!/bin/sh
exec env PYTHONPATH={PROJECT} {sys.executable} -m tests.snippets.npm "$@"
"""
KUBECTL = NPM.replace("snippets.npm", "snippets.kubectl")


def fill_mongodb(uri: str) -> None:
    """The sample data in ``app``, and a message whose id is known."""
    with MongoClient[Any](uri) as client:
        database = client[DATABASE]
        sample_data.load(database)
        message = database["messages"].find_one()
        assert message is not None
        database["messages"].replace_one({"_id": MESSAGE}, {**message, "_id": MESSAGE}, upsert=True)


def copy_repository(folder: Path) -> None:
    """All files of the repository, and what is installed beside them."""
    for name in files():
        if (PROJECT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target)
    (folder / "node_modules").symlink_to(node.MODULES)
    for place in (node.SCRIPTS, node.MONGOSH):
        (folder / place.relative_to(PROJECT) / "node_modules").symlink_to(place / "node_modules")
    own = folder / ".venv"
    own.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".installed":
            (own / entry.name).symlink_to(entry)
    (own / ".installed").touch()  # make finds it newer than the requirements, and installs nothing


def environment(reader: Reader, home: Path, zygote: Path) -> dict[str, str]:
    """The variables that a reader has. No setting comes from elsewhere; pip and npm install nothing."""
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in (("kubectl", KUBECTL), ("npm", NPM), ("python", shim(zygote)), ("python3", shim(zygote))):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    modules = [folder / "node_modules" / ".bin" for folder in (node.SCRIPTS, node.MONGOSH)]
    path = [programs, Path(sys.prefix) / "bin", node.node_binary().parent, *modules]
    unset = {name: value for name, value in process_environment().items() if name not in blank_environment()}
    return {
        **unset,
        **node.environment(),
        "PATH": os.pathsep.join([*map(str, path), os.environ.get("PATH", os.defpath), "/usr/sbin"]),
        "HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        "PIP_DRY_RUN": "1",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "MONGODB_URI": reader.mongodb(),
        "MONGODB_DATABASE": DATABASE,
        "PORT": str(reader.port),
        "ZERO_PORT": str(reader.zero_port),
        "CHANGE_SOURCE_API_KEYS": reader.key,
        "KEEPALIVE_SECONDS": "1",
    }


def publish_samples(uri: str, url: str, folder: Path) -> None:
    """Publish the sample data's tables in the database at ``url``."""
    unset = {**process_environment(), **blank_environment()}
    own = {"DATABASE_URL": url, "MONGODB_URI": uri, "MONGODB_DATABASE": DATABASE, "DATA_DIR": str(folder)}
    command = [sys.executable, PROJECT / "manage.py", "importmappings", sample_data.MAPPINGS_FILE]
    subprocess.run(command, env={**unset, **own}, check=True, capture_output=True)


class Databases:
    """PostgreSQL databases in which the sample data's tables are published: copies of one, made when it is wanted."""

    def __init__(self, server: Postgres, uri: str, folder: Path) -> None:
        self._server = server
        self._uri = uri
        self._folder = folder
        self._made: list[str] = []

    def another(self) -> str:
        """The URL of a new one."""
        if not self._made:
            self._made.append(f"template_{secrets.token_hex(6)}")
            publish_samples(self._uri, self._server.create_database(self._made[0]), self._folder)
        self._made.append(f"page_{secrets.token_hex(6)}")
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            copied = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                *map(sql.Identifier, reversed(self._made[:1] + self._made[-1:]))
            )
            connection.execute(copied)
        return self._server.url(self._made[-1])

    def drop(self) -> None:
        """Drop all."""
        for name in reversed(self._made):
            self._server.drop_database(name)


@contextmanager
def zygote(folder: Path) -> Iterator[Path]:
    """Have a process by which commands of manage.py start quickly; gives its address."""
    address = folder / "zygote"
    unset = {**process_environment(), **blank_environment(), "DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tests.snippets.zygote", address]
    process = ManagedProcess(command, folder / "zygote.log", unset, cwd=PROJECT)
    try:
        process.wait_until(lambda: "listening" in process.log_text(), "the zygote to listen", 60)
        yield address
    finally:
        process.kill()


def settle(reader: Reader, database: Path, state: Path, zygote: Path) -> Shell:
    """Make the page's folder, and a shell in it."""
    copy_repository(reader.folder)
    data = reader.folder / "data"
    data.mkdir(mode=0o700)
    shutil.copy(database, data / "zerosource.sqlite3")
    home = state.with_name("home")
    home.mkdir()
    return Shell(reader.folder, state, environment(reader, home, zygote))
