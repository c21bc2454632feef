"""The pages that orchestrators ask: MongoDB away makes a process unready, and never dead."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pymongo import MongoClient

from devtools.processes import wait_until
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.deployment import Server


def asked(server: Server, path: str, host: str = "10.1.2.3:3000") -> tuple[int, dict[str, Any]]:
    """Return status and content of a page, asked for by the name that a probe uses."""
    try:
        with urlopen(Request(server.url + path, headers={"Host": host}), timeout=10) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_readiness_follows_mongodb(deployment: DeploymentFactory, secantusdb: Callable[..., SecantusDB]) -> None:
    mongodb = secantusdb()
    with MongoClient[dict[str, Any]](mongodb.uri) as client:
        fill(client["own"], 5, others=5)
    place = deployment(MONGODB_URI=mongodb.uri, MONGODB_DATABASE="own", ALLOWED_HOSTS="elsewhere")
    place.configure(mappings=MAPPINGS)
    server = place.server()
    assert asked(server, "/healthz") == (200, {"status": "ok"})
    assert asked(server, "/readyz") == (200, {"status": "ready"})
    unready = (503, {"status": "unready", "code": "ZS300"})
    for away, back in ((mongodb.pause, mongodb.resume), (mongodb.kill, mongodb.start)):
        away()
        wait_until(lambda: asked(server, "/readyz") == unready, "503", 20)
        assert asked(server, "/healthz") == (200, {"status": "ok"})
        back()
        wait_until(lambda: asked(server, "/readyz") == (200, {"status": "ready"}), "200", 30)
    assert server.exit_code is None
    assert "10.1.2.3" not in server.log_text()


def test_nothing_is_ready_before_mappings_are_published(deployment: DeploymentFactory) -> None:
    server = deployment().server()
    assert asked(server, "/readyz") == (503, {"status": "unready", "code": "ZS102"})
    assert asked(server, "/healthz") == (200, {"status": "ok"})
