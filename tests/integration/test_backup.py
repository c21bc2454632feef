"""What docs/backup.md says: its commands, and that replicas go on after a restore, or without any database."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS
from tests.harness.deployment import Deployment
from tests.harness.documentation import DOCS, commands
from tests.harness.reader import Reader

pytestmark = pytest.mark.slow
PAGE = DOCS / "backup.md"


def run(place: Deployment, script: str) -> None:
    """Run a block of the page in the deployment's folder, where ``data`` is."""
    path = os.pathsep.join([str(Path(sys.executable).parent), place.environment["PATH"]])
    environment = {**place.environment, "PATH": path}
    subprocess.run(["bash", "-ec", script], cwd=place.directory, env=environment, check=True, timeout=60)


def imported(place: Deployment) -> Deployment:
    """The deployment, with mappings that no file gives it."""
    file = place.directory / "mappings.json"
    file.write_text(json.dumps(MAPPINGS))
    place.manage("importmappings", str(file))
    return place


async def goes_on(reader: Reader, place: Deployment, database: Database[Any], name: str, key: str = "") -> None:
    """Write, and have the replica get it where it was, by a server of this deployment, and then stop that."""
    server = await asyncio.to_thread(place.server)
    reader.stream_url = f"{server.stream_url}?apiKey={key}"
    if not reader.last_watermark:
        await reader.sync()
    before = len(reader.model.commits)
    database.items.insert_one({"_id": name, "name": name})
    await reader.follow(lambda: (name,) in reader.model.rows("item"))
    assert reader.model.reset is None
    assert len(reader.model.commits) > before
    server.kill()


async def backed_up_and_restored(place: Deployment, database: Database[Any], backup: str, restore: str) -> None:
    """A key that is revoked after the backup is good again, and the replica goes on."""
    key = place.manage("createapikey", "one").strip()
    reader = Reader("")
    running = await asyncio.to_thread(place.server)
    run(place, backup)
    running.kill()
    await goes_on(reader, place, database, "before", key)
    place.manage("revokeapikey", "one")
    run(place, restore)
    assert "revoked" not in place.manage("listapikeys")
    await goes_on(reader, place, database, "after", key)


async def test_a_copy_of_sqlite(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """It is made while the server runs."""
    place = imported(deployment(migrate=False, DATABASE_URL="", DEBUG="0"))
    backup = commands(PAGE, "python -c 'import sqlite3;")
    restore = commands(PAGE, "rm -f data/zerosource.sqlite3-wal", "cp backup.sqlite3")
    await backed_up_and_restored(place, mongo, backup, restore)


async def test_a_dump_of_postgresql(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    place = imported(deployment(database="postgres", DEBUG="0"))
    await backed_up_and_restored(
        place, mongo, commands(PAGE, "pg_dump --format=custom"), commands(PAGE, "pg_restore --clean")
    )


async def test_a_lost_database_resets_nobody(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """The same mappings are imported into a new one: they have the same fingerprints."""
    reader = Reader("")
    await goes_on(reader, imported(deployment()), mongo, "before")
    await goes_on(reader, imported(deployment()), mongo, "after")
