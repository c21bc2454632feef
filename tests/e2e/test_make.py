"""What ``make run`` serves and ``make zero`` shows, without make: the sample data arrives in the replica."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from changesource import sample_data
from devtools import node, zero
from devtools.processes import free_port, wait_until
from tests.conftest import DeploymentFactory


def test_the_sample_data_arrives(
    deployment: DeploymentFactory,
    mongo: Database[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The supervisor of ``make zero`` says how many rows each table has; it ends when it is told to."""
    sample_data.load(mongo)
    # As in ``make run``, the server has an embedded MongoDB of its own.
    server = deployment(MONGODB_URI="", MONGODB_DATABASE="").server("--sample-data")
    monkeypatch.setattr(node, "PROJECT", tmp_path)
    monkeypatch.setattr(node, "DATA", tmp_path / ".zero")
    monkeypatch.setenv("ZERO_UPSTREAM_DB", server.stream_url)
    monkeypatch.setenv("ZERO_PORT", str(free_port(span=2)))
    for name in ("ZERO_APP_ID", "ZERO_APP_PUBLICATIONS", "ZERO_QUERY_URL"):
        monkeypatch.delenv(name, raising=False)
    supervisor = zero.Supervisor()
    thread = threading.Thread(target=supervisor.run, name="make zero")
    thread.start()
    said: list[str] = []

    def shown(line: str) -> bool:
        said.extend(capsys.readouterr().out.splitlines())
        return f"[zero]   {line} rows" in said

    try:
        users = mongo["users"].count_documents({})
        assert users > 0
        wait_until(lambda: shown(f"user: {users}"), "the users", 60, detail=lambda: "\n".join(said))
        for kind in ("chat", "channel", "group"):
            count = mongo["rooms"].count_documents({"type": kind})
            assert count > 0
            assert shown(f"{kind}: {count}"), said
        members = sum(len(account["members"]) for account in mongo["accounts"].find())
        assert shown(f"accountMember: {members}"), said
    finally:
        supervisor.stopping.set()
        thread.join(60)
    assert not thread.is_alive()
    shown("")
    assert said[-1] == "[zero] stopped; `make zero` goes on where it ended"
