"""Every reason for a reset makes a real zero-cache exit with 14, once, and sync anew; faults that pass never do."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from changesource.protocol.watermark import Watermark
from devtools.processes import wait_until
from devtools.secantusdb import SecantusDB
from devtools.zerocache import RESET_EXIT_CODE, ZeroCache
from tests.conftest import DeploymentFactory, ZeroCacheFactory
from tests.harness.app import COLUMNS, MAPPINGS, PIPELINES, Writers, everything, fill, last_write
from tests.harness.deployment import Deployment, Server
from tests.harness.failpoints import failing
from tests.harness.proxy import RecordingProxy, check_watermarks
from tests.harness.replicas import stored_watermark, wait_equal

pytestmark = pytest.mark.slow
Document = dict[str, Any]
DATABASE = "own"
OPLOG = 1000
ITEMS = 100
CUTS = 20
HOUR = 3600 << 32
# More would not fit into a request line, which the server reads up to 16 KiB.
LONG = "z" * 10_000
# ChangeStreamHistoryLost, ChangeStreamFatalError, CappedPositionLost and InvalidResumeToken.
LOST = [("getMore", 286), ("aggregate", 286), ("getMore", 280), ("aggregate", 136), ("getMore", 260)]
# PrimarySteppedDown, ShutdownInProgress, InterruptedAtShutdown, CursorNotFound, HostUnreachable; 0 drops connections.
PASSING = [189, 91, 11600, 43, 6, 0]
RESET = "replica must be reset"
WAITS = "replica waits for MongoDB"
# What the server's log says, by code.
ROLLED_OVER = "MongoDB's oplog no longer holds the changes after the position."
IN_FUTURE = "The watermark is later than anything MongoDB has"
CHANGED = "The mappings of the replica's tables changed since it was synced."
WISH = "An operator asked this replica to sync anew."
# In the place of zero-cache's watermark: garbage, too long, of another form, from before the oplog, an hour ahead.
WATERMARKS: list[tuple[Callable[[Watermark], str], str, str]] = [
    (lambda _: "garbage", "ZS201", "'garbage' is not one of ours."),
    (lambda _: LONG, "ZS201", f"'{LONG[:40]}' is not one of ours."),
    (lambda mark: str(mark).partition(".")[0], "ZS201", "is not one of ours."),
    (lambda mark: str(Watermark(mark.cluster_time - HOUR, mark.fingerprint)), "ZS202", ROLLED_OVER),
    (lambda mark: str(Watermark(mark.cluster_time + HOUR, mark.fingerprint)), "ZS204", IN_FUTURE),
]


@dataclass
class Stage:
    """One each of MongoDB, server, proxy and zero-cache. ``codes`` are those of all resets until now, in order."""

    mongodb: SecantusDB
    client: MongoClient[Document]
    place: Deployment
    server: Server
    proxy: RecordingProxy
    cache: ZeroCache
    codes: list[str] = field(default_factory=list)
    version: str = ""

    @property
    def database(self) -> Database[Document]:
        """The watched database."""
        return self.client[DATABASE]

    @property
    def storage(self) -> Path:
        """Where MongoDB keeps all it has."""
        return self.mongodb.directory / "storage"

    def arrives(self) -> None:
        """Write to two collections, and wait until the replica equals MongoDB row for row."""
        for table in ("item", "note"):
            last_write(self.database, table)
        wait_equal(self.cache, everything(self.database), 60)

    def logged(self, event: str) -> list[Document]:
        """The server's log lines of this event, over all its starts."""
        return [json.loads(line) for line in self.server.log_text().splitlines() if f'"event": "{event}"' in line]

    def wait_logged(self, event: str, count: int) -> None:
        """Wait until the server's log has so many lines of this event."""
        wait_until(lambda: len(self.logged(event)) >= count, f"{count} of {event!r}", 30, detail=self.state)

    def wait_streaming(self) -> None:
        """Wait until something has come over the newest connection."""
        wait_until(lambda: self.proxy.connections[-1].commits, "a commit", 30, detail=self.cache.log_tail)

    def cut(self) -> None:
        """Cut zero-cache's connection."""
        self.wait_streaming()
        assert self.proxy.cut() == 1

    def check_reset(self, code: str, words: str) -> None:
        """Wait until zero-cache has been reset and is back in sync; fail unless it was just once, and for this."""
        self.codes.append(code)
        count = len(self.codes)
        wait_until(lambda: len(self.cache.exits) >= count, f"reset {count}, {code}", 60, detail=self.state)
        self.cache.wait_ready()
        self.arrives()
        assert self.cache.exits == [RESET_EXIT_CODE] * count, self.state()
        resets = self.logged(RESET)
        assert [reset["code"] for reset in resets] == self.codes
        assert words in resets[-1]["why"], resets[-1]
        # zero-cache's operator reads it too, in its log.
        assert json.dumps(words)[1:-1] in self.cache.log_text()
        last = [connection.transactions[-1][0] for connection in self.proxy.connections if connection.transactions]
        assert last.count("control") == count
        earlier, self.version = self.version, self.cache.replica.version()
        assert self.version > earlier

    def state(self) -> str:
        """What both logs say, for error messages."""
        return f"{self.cache.log_tail()}\nThe server: {self.server.log_tail()}"


@contextmanager
def staged(
    mongodb: SecantusDB, deployment: DeploymentFactory, zero_cache: ZeroCacheFactory, items: int
) -> Iterator[Stage]:
    """Set the stage on a MongoDB with documents of every kind, which have arrived in the replica."""
    with MongoClient[Document](mongodb.uri) as client:
        fill(client[DATABASE], items, others=20)
        place = deployment(MONGODB_URI=mongodb.uri, MONGODB_DATABASE=DATABASE, LOG_FORMAT="json")
        place.configure(mappings=MAPPINGS)
        server = place.server()
        with RecordingProxy(server.port) as proxy:
            stage = Stage(mongodb, client, place, server, proxy, zero_cache(proxy.stream_url))
            stage.cache.wait_ready()
            stage.arrives()
            stage.version = stage.cache.replica.version()
            yield stage


def test_every_reason_resets_zero_cache_once(
    secantusdb: Callable[..., SecantusDB],
    deployment: DeploymentFactory,
    zero_cache: ZeroCacheFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other; each time the replica comes back equal to MongoDB, and follows it."""
    with staged(secantusdb(oplog_entries=OPLOG), deployment, zero_cache, ITEMS) as stage:
        mongodb_says_so(stage, *LOST[0])
        the_oplog_rolled_over(stage)
        the_mappings_are_edited(stage, monkeypatch)
        mongodb_is_restored(stage, tmp_path / "backup")
        mongodb_is_another(stage)
        an_operator_wishes_it(stage)
        for forge, code, words in (WATERMARKS[0], WATERMARKS[-1]):
            it_comes_with_another_watermark(stage, forge, code, words)


def test_the_kin_of_these_reasons_reset_zero_cache_once(
    secantusdb: Callable[..., SecantusDB], deployment: DeploymentFactory, zero_cache: ZeroCacheFactory
) -> None:
    """Other errors that say so, when a stream is read and when it is opened; other watermarks that are none of ours."""
    with staged(secantusdb(), deployment, zero_cache, ITEMS) as stage:
        for command, error in LOST[1:]:
            mongodb_says_so(stage, command, error)
        for forge, code, words in WATERMARKS[1:-1]:
            it_comes_with_another_watermark(stage, forge, code, words)


def mongodb_says_so(stage: Stage, command: str, error: int) -> None:
    """Until the server has told it; with the error still there, nobody could sync anew."""
    with failing(stage.client, [command], "alwaysOn", code=error):
        if command == "aggregate":
            # So that a stream must be opened.
            stage.cut()
        stage.wait_logged(RESET, len(stage.codes) + 1)
    stage.check_reset("ZS202", "failpoint")


def the_oplog_rolled_over(stage: Stage) -> None:
    """While zero-cache is away. This MongoDB opens the stream all the same; the event at the position is missing."""
    stage.cache.kill()
    for _ in range(0, 3 * OPLOG + 500, 500):
        stage.database["elsewhere"].insert_many([{} for _ in range(500)])
    stage.cache.start()
    stage.check_reset("ZS202", ROLLED_OVER)


def the_mappings_are_edited(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column goes, and a filter lets others pass; from now on all are compared by that."""
    edited = deepcopy(MAPPINGS)
    del edited["tables"]["user"]["columns"]["joined"]
    edited["tables"]["chat"]["filter"] = {"kind": "group"}
    columns = [column for column in COLUMNS["user"] if column != "joined"]
    monkeypatch.setitem(COLUMNS, "user", columns)
    pipeline = [{"$match": {"kind": "group"}}, {"$project": {"_id": 0, "id": "$_id", "title": 1}}]
    monkeypatch.setitem(PIPELINES, "chat", ("rooms", pipeline))
    stage.place.configure(mappings=edited)
    stage.place.manage("reloadmappings")
    stage.check_reset("ZS203", CHANGED)


def mongodb_is_restored(stage: Stage, backup: Path) -> None:
    """To a time before the replica's position; what was written since has never been."""
    stage.mongodb.stop()
    shutil.copytree(stage.storage, backup)
    stage.mongodb.start()
    stage.arrives()
    since = everything(stage.database)["item"]
    replace_mongodb(stage, backup)
    assert everything(stage.database)["item"].keys() < since.keys()
    stage.check_reset("ZS202", ROLLED_OVER)


def mongodb_is_another(stage: Stage) -> None:
    """One that has nothing of the one before, and gets documents of its own."""
    replace_mongodb(stage)
    assert not any(everything(stage.database).values())
    fill(stage.database, 10, others=5, seed=2)
    stage.check_reset("ZS202", ROLLED_OVER)


def replace_mongodb(stage: Stage, storage: Path | None = None) -> None:
    """Put another MongoDB in its place: with nothing in it, or with a copy of ``storage``."""
    stage.mongodb.stop()
    shutil.rmtree(stage.storage)
    if storage is not None:
        shutil.copytree(storage, stage.storage)
    stage.mongodb.start()


def an_operator_wishes_it(stage: Stage) -> None:
    """As the admin writes it down."""
    with closing(sqlite3.connect(stage.place.directory / "zerosource.sqlite3", timeout=10)) as database, database:
        wish = "UPDATE changesource_watermark SET resync_wanted = 1 WHERE kind = 'replica' AND app_id = ?"
        assert database.execute(wish, [stage.cache.app_id]).rowcount == 1
    stage.check_reset("ZS205", WISH)


def it_comes_with_another_watermark(stage: Stage, forge: Callable[[Watermark], str], code: str, words: str) -> None:
    """The proxy makes another of it on the way."""
    stage.proxy.rewrite(forge(Watermark.parse(stored_watermark(stage.cache))))
    stage.cut()
    stage.check_reset(code, words)


def test_faults_that_pass_reset_nobody(
    secantusdb: Callable[..., SecantusDB], deployment: DeploymentFactory, zero_cache: ZeroCacheFactory
) -> None:
    """Connections cut, MongoDB and the server killed, streams killed, errors that pass: zero-cache never exits."""
    with staged(secantusdb(), deployment, zero_cache, ITEMS) as stage:
        connections_are_cut(stage)
        for command in ("getMore", "aggregate"):
            for code in PASSING:
                mongodb_fails(stage, command, code)
        change_streams_are_killed(stage)
        mongodb_is_killed(stage)
        the_server_is_killed(stage)
        assert stage.cache.exits == [], stage.state()
        assert stage.logged(RESET) == []
        assert stage.cache.replica.version() == stage.version
        check_watermarks(stage.proxy.connections)


def connections_are_cut(stage: Stage) -> None:
    """Again and again, in the midst of changes."""
    with Writers(stage.mongodb.uri, DATABASE, threads=1, items=ITEMS, pause=0.02):
        for _ in range(CUTS):
            number = len(stage.proxy.connections)
            stage.cut()
            wait_until(lambda number=number: len(stage.proxy.connections) > number, "zero-cache to come back", 30)
    assert len(stage.proxy.connections) > CUTS
    stage.arrives()


def mongodb_fails(stage: Stage, command: str, code: int) -> None:
    """Until a replica that has just come back has met it too."""
    count = len(stage.logged(WAITS))
    with failing(stage.client, [command], "alwaysOn", code=code):
        stage.cut()
        last_write(stage.database, "item")
        stage.wait_logged(WAITS, count + 1)
    stage.arrives()


def change_streams_are_killed(stage: Stage) -> None:
    """All there are, again and again; others take their place."""
    for _ in range(3):
        streams = wait_until(lambda: open_streams(stage.database), "a change stream", 30)
        for cursor, collection in streams.items():
            stage.database.command({"killCursors": collection, "cursors": [cursor]})
        wait_until(lambda old=streams: open_streams(stage.database).keys() - old.keys(), "another change stream", 30)
        stage.arrives()


def open_streams(database: Database[Document]) -> dict[int, str]:
    """The cursors that stay open on a database, with the name that each has for its collection."""
    operations = database.client.admin.command({"currentOp": 1, "idleCursors": True})["inprog"]
    idle = [operation for operation in operations if operation["type"] == "idleCursor"]
    names = {cursor["cursorId"]: cursor["ns"].split(".", 1) for cursor in idle}
    return {cursor: collection for cursor, (name, collection) in names.items() if name == database.name}


def mongodb_is_killed(stage: Stage) -> None:
    """As it is, between two writes, and started again."""
    for _ in range(2):
        last_write(stage.database, "item")
        stage.mongodb.kill()
        stage.mongodb.start()
        stage.arrives()


def the_server_is_killed(stage: Stage) -> None:
    """And ended in order; each time started again on its port, with changes meanwhile."""
    for end in (Server.kill, Server.stop):
        end(stage.server)
        last_write(stage.database, "note")
        stage.server = stage.place.server(port=stage.server.port)
        stage.arrives()
