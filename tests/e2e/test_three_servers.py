"""Three servers behind one address, as three pods behind a Service: replicas move between them and stay exact.

With Redis and PostgreSQL, which they share, and without: then each has an SQLite and a watcher of its own.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import free_port
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, Writers, everything, fill, last_write
from tests.harness.deployment import Deployment
from tests.harness.network import Mode, Network
from tests.harness.wanderer import Wanderer

ITEMS = 500
CUTS = 5
# Each goes to the next server in turn, but may happen to come when it is the turn of the one it had.
MOST_CUTS = 20
REPLICAS = 4
KEY = "three-servers-of-one-address"
SERVED = re.compile(r"(?:replica resumes|initial sync begins)\b.* app_id=(\w+)")
LIVE_AGAIN_SECONDS = 2.0


class Three:
    """The servers, the balancing address before them (``link`` of ``network``), and replicas that follow by it."""

    def __init__(self, places: list[Deployment], network: Network) -> None:
        self.places = places
        self.network = network
        self.servers = [place.server(wait=False, port=free_port()) for place in places]
        for server in self.servers:
            server.wait_until(lambda server=server: server.answers("/readyz"), "readiness", 90)  # type: ignore[misc]
        self.link = network.link("service", *(server.port for server in self.servers))
        self.url = f"ws://127.0.0.1:{self.link.port}/changes/v0/stream?apiKey={KEY}"

    def cut(self) -> None:
        """Break every connection, as a node that goes does; new ones go to the next server in turn."""
        self.network.strike(self.link, Mode.DROP)
        self.network.heal(self.link)

    def restart(self, number: int) -> None:
        """End one as Kubernetes does, and start it again: it must have ended in order, and in time."""
        old = self.servers[number]
        old.signal(signal.SIGTERM)
        assert old.wait(10) == 0, old.log_tail()
        new = self.servers[number] = self.places[number].server(wait=False, port=old.port)
        new.wait_until(lambda: new.answers("/readyz"), "readiness", 90)

    def places_of(self, app_id: str) -> list[int]:
        """Which servers have served a replica."""
        return [n for n, server in enumerate(self.servers) if app_id in SERVED.findall(server.log_text())]

    def logs(self) -> str:
        return "\n".join(server.log_text() for server in self.servers)


@pytest.fixture(params=[pytest.param("shared", marks=pytest.mark.slow), "alone"])
def three(request: pytest.FixtureRequest, deployment: DeploymentFactory, mongo: Database[Any]) -> Iterator[Three]:
    fill(mongo, ITEMS, others=50)
    if request.param == "shared":
        places = [deployment(database="postgres", redis=True, CHANGE_SOURCE_API_KEYS=KEY)] * 3
    else:
        places = [deployment(CHANGE_SOURCE_API_KEYS=KEY) for _ in range(3)]
    for place in places:
        place.configure(mappings=MAPPINGS)
    with Network() as network:
        yield Three(places, network)


def settled(replicas: list[Wanderer], mongo: Database[Any]) -> None:
    """All writers have stopped: every replica comes to be what MongoDB holds."""
    key = last_write(mongo, "note")
    rows = everything(mongo, list(MAPPINGS["tables"]))
    for replica in replicas:
        replica.until_has("note", key)
        for table, expected in rows.items():
            assert replica.reader.model.rows(table) == expected, (replica.reader.app_id, table)


def test_replicas_move_between_servers(three: Three, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """Cut off again and again, each is served by several in turn, wherever it stood, and begins anew at none."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(Wanderer(three.url, f"app{number}")) for number in range(REPLICAS)]
        for replica in replicas:
            replica.until_live(commits=2)  # its sync, and what follows on a connection of its own
        with Writers(mongodb.uri, mongo.name, threads=2, items=ITEMS, pause=0.02) as writers:
            for cuts in range(MOST_CUTS):
                moved = all(len(three.places_of(replica.reader.app_id)) > 1 for replica in replicas)
                if cuts >= CUTS and moved:
                    break
                before = writers.total
                three.cut()
                for replica in replicas:
                    replica.until_live(commits=3)
                assert writers.total > before
        settled(replicas, mongo)
    for replica in replicas:
        assert len(replica.outages) >= CUTS
        assert len(three.places_of(replica.reader.app_id)) >= 2
    assert three.logs().count("initial sync done") == len(replicas)
    assert "replica must be reset" not in three.logs()


@pytest.mark.slow
def test_a_rolling_restart_under_load(three: Three, mongodb: MongoServer, mongo: Database[Any]) -> None:
    """One after another is ended and started again: who was cut off is live again elsewhere within two seconds.

    A watermark that comes again, or a change that never does, ends the replica, or leaves it different.
    """
    with ExitStack() as stack:
        replicas = [stack.enter_context(Wanderer(three.url, f"app{number}")) for number in range(REPLICAS)]
        for replica in replicas:
            replica.until_live(commits=2)  # its sync, and what follows on a connection of its own
        with Writers(mongodb.uri, mongo.name, threads=2, items=ITEMS, pause=0.02) as writers:
            for number in range(len(three.servers)):
                before = writers.total
                three.restart(number)
                for replica in replicas:
                    replica.until_live(commits=3)
                assert writers.total > before
        settled(replicas, mongo)
    outages = [replica.outages for replica in replicas]
    assert all(outages), "a replica that was never cut off"
    assert max(map(max, outages)) < LIVE_AGAIN_SECONDS, outages
    assert three.logs().count("initial sync done") == len(replicas)
    assert "replica must be reset" not in three.logs()
    assert "Traceback" not in three.logs()
