"""Nothing is tried again without a wait, and each wait is counted, where Prometheus finds it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, get_args
from urllib.request import urlopen

import pytest
from django.db import OperationalError
from prometheus_client import REGISTRY
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from changesource.consumers import CLOSE_ENDED, ChangeStreamConsumer
from changesource.mapping.compiled import RowFault
from changesource.metrics import Retry
from changesource.models import RowError
from changesource.services import bookkeeping
from changesource.services.bookkeeping import FaultLog
from changesource.services.leadership import Leadership
from changesource.services.session import Guard, ReplicaSession
from changesource.store import leases, row_errors
from devtools.processes import wait_until
from tests.conftest import DeploymentFactory, MongoServer
from tests.harness.app import MAPPINGS, fill
from tests.harness.deployment import Server
from tests.harness.failpoints import fail_next, failing
from tests.harness.members import Member, running
from tests.harness.reader import Reader
from tests.harness.waiting import until
from tests.harness.whole import Whole

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "the-key-of-prometheus"


def counted(what: str) -> float:
    """How many retries this process has counted."""
    found = REGISTRY.get_sample_value("zerosource_retries_total", {"what": what})
    assert found is not None
    return found


def shown(server: Server) -> dict[str, float]:
    """How many retries a server tells Prometheus of."""
    with urlopen(f"{server.url}/metrics?apiKey={KEY}", timeout=10) as answer:  # noqa: S310
        text = answer.read().decode()
    return {what: float(n) for what, n in re.findall(r'^zerosource_retries_total\{what="(\w+)"\} (\S+)', text, re.M)}


async def test_retries_are_shown_to_prometheus(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Any]
) -> None:
    """A fault of the watcher's stream, and one of a replica's own where there is no watcher."""
    fill(mongo, 5, others=5)
    place = deployment(CHANGE_SOURCE_API_KEYS=KEY)
    place.configure(mappings=MAPPINGS)
    server = place.server()
    await asyncio.to_thread(wait_until, lambda: "watching" in server.log_text(), "the watcher", 20)
    assert shown(server) == dict.fromkeys(get_args(Retry), 0.0)
    with failing(mongodb.client, ["getMore", "aggregate"], {"times": 2}, code=189):
        await asyncio.to_thread(wait_until, lambda: shown(server)["watcher"] == 2, "the count", 20)
    server.stop()
    server = place.server("--no-watcher")
    reader = Reader(f"{server.stream_url}?apiKey={KEY}")
    await reader.sync()

    def counted_then() -> bool:
        if len(reader.model.commits) == 2:
            fail_next(mongodb.client, "getMore", code=189)
        return shown(server)["replica"] > 0

    await reader.follow(counted_then)
    assert shown(server)["watcher"] == 0


async def test_a_connection_that_ends_by_an_error_is_not_opened_anew_at_once(
    mongodb: MongoServer, mongo: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket closes only after a wait: zero-cache opens another within milliseconds."""

    class Broken(ReplicaSession):
        def __init__(self) -> None:
            self.ran = asyncio.Event()
            self.locked_out = False

        async def run(self, guard: Guard | None = None) -> None:
            self.ran.set()
            raise RuntimeError("a mistake of ours")

    session = Broken()
    consumer = ChangeStreamConsumer()
    closed: list[int] = []

    async def close(code: int) -> None:
        closed.append(code)

    monkeypatch.setattr(consumer, "close", close)
    before = counted("connection")
    serving = asyncio.create_task(consumer.serve(session, None))
    await session.ran.wait()
    await until(lambda: counted("connection") == before + 1)
    assert not closed
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        await serving
    assert closed == [CLOSE_ENDED]


async def test_a_stream_that_ends_without_an_event_is_not_opened_anew_at_once(
    mongodb: MongoServer, mongo: Database[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as lost. An end by an event (invalidate) is gone on from at once."""
    fill(mongo, 5, others=5)
    ((_, port),) = parse_uri(mongodb.uri)["nodelist"]
    ends = 0

    def reply(answer: dict[str, Any]) -> dict[str, Any]:
        nonlocal ends
        cursor = answer["cursor"]
        if ends and cursor.get("nextBatch") == []:
            ends -= 1
            return {**answer, "cursor": {**cursor, "id": 0}}
        return answer

    member = Member(port, reply=reply)
    with running(member):
        uri = f"mongodb://127.0.0.1:{member.port}/?directConnection=true&retryWrites=false"
        whole = Whole(uri, mongo)
        replica = whole.replica()
        await replica.sync()
        async with replica.connection() as connection:
            await whole.settle(connection)
            before = counted("replica")
            ends = 3
            await connection.until(lambda: ends == 0)
            await whole.settle(connection)
            assert counted("replica") >= before + 3
        await whole.close()
    assert caplog.text.count("replica waits for MongoDB") >= 3


@pytest.mark.parametrize("times", [1, 4])
async def test_a_lease_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    looked, left = leases.look, times

    def look(name: str) -> leases.Seen:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError("the server closed the connection")
        return looked(name)

    monkeypatch.setattr(leases, "look", look)
    before = counted("lease")
    leadership = Leadership("test", lambda: asyncio.sleep(60), lambda: 0.0, 0.3)
    task = asyncio.create_task(leadership.run())
    try:
        await until(lambda: leadership.leads)
        assert counted("lease") == before + times
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_row_errors_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept, and written once the database takes them."""
    record: Callable[..., None] = row_errors.record
    left = 3

    def refuse(*args: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError("the disk is full")
        record(*args)

    monkeypatch.setattr(row_errors, "record", refuse)
    monkeypatch.setattr(bookkeeping, "INTERVAL", 0.02)
    before = counted("row_errors")
    faults = FaultLog()
    faults.report(RowFault("item", "item-1", "name", "is missing", left_out=True))
    task = asyncio.create_task(faults.run())
    try:
        async with asyncio.timeout(20):
            while not await RowError.objects.aexists():
                await asyncio.sleep(0.02)
        assert counted("row_errors") == before + 3
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
