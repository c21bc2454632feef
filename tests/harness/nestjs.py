"""A stand-in for the NestJS zero-sources server: its frames, its watermarks and its key, for a real zero-cache.

Its watermarks count from "00", the initial sync, as Zero's LexiVersions; a position that it does not know it takes
for now.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from changesource.protocol.tables import DATA_TYPES, Table, required_tables
from changesource.protocol.watermark import lexi

Row = dict[str, Any]


class NestJsServer:
    """Serves one replica of one table, whose rows are ``rows`` at its initial sync; ``insert`` sends more."""

    def __init__(self, table: str, columns: dict[str, str], rows: list[Row], token: str) -> None:
        self.table, self.columns, self.rows, self.token = table, columns, rows, token
        self.asked: list[str] = []
        """The ``lastWatermark`` of each connection."""
        self._watermark = 0
        self._connections: list[ServerConnection] = []
        self._changed = threading.Lock()

    def insert(self, row: Row) -> None:
        """Send one more row, in a transaction of its own."""
        with self._changed:
            self._watermark += 1
            for connection in self._connections:
                self._send(connection, self._watermark, [self._insert(row)])

    def answer(self, connection: ServerConnection) -> None:
        """Serve one connection until it is closed."""
        assert connection.request is not None
        query = {name: found[-1] for name, found in parse_qs(urlsplit(connection.request.path).query).items()}
        if query.get("k") != self.token:
            connection.close(3000, "Unauthorized")
            return
        with self._changed:
            self.asked.append(query.get("lastWatermark", ""))
            if "lastWatermark" not in query:
                self._send(connection, 0, self._snapshot(query["appID"], int(query["shardNum"])))
            self._connections.append(connection)
        try:
            for _ in connection:
                pass  # acks
        except ConnectionClosed:
            pass
        finally:
            with self._changed:
                self._connections.remove(connection)

    def _snapshot(self, app_id: str, shard: int) -> list[dict[str, Any]]:
        """Tables of its own kind: all in the schema ``public``, with the shard in the name."""
        changes: list[dict[str, Any]] = []
        for own in required_tables(app_id, shard):
            named = Table("public", f"{own.schema}.{own.name}", own.columns, own.key)
            changes += [{k: v for k, v in change.items() if k != "metadata"} for change in named.create()]
        spec = {
            "schema": "public",
            "name": self.table,
            "columns": {
                name: {"pos": position, "dataType": DATA_TYPES[kind], "notNull": name == "_id"}
                for position, (name, kind) in enumerate(self.columns.items())
            },
            "primaryKey": ["_id"],
        }
        index = {"schema": "public", "tableName": self.table, "name": "pk", "unique": True, "columns": {"_id": "ASC"}}
        changes += [{"tag": "create-table", "spec": spec}, {"tag": "create-index", "spec": index}]
        return changes + [self._insert(row) for row in self.rows]

    def _insert(self, row: Row) -> dict[str, Any]:
        relation = {"schema": "public", "name": self.table, "keyColumns": ["_id"]}
        return {"tag": "insert", "new": row, "relation": relation}

    @staticmethod
    def _send(connection: ServerConnection, watermark: int, changes: list[dict[str, Any]]) -> None:
        frames: list[list[Any]] = [["begin", {"tag": "begin"}, {"commitWatermark": lexi(watermark)}]]
        frames += [["data", change] for change in changes]
        frames.append(["commit", {"tag": "commit"}, {"watermark": lexi(watermark)}])
        for frame in frames:
            connection.send(json.dumps(frame))


@contextmanager
def serving(server: NestJsServer) -> Iterator[str]:
    """Serve in a thread; gives the address for ``ZERO_UPSTREAM_DB``."""
    with serve(server.answer, "127.0.0.1", 0, compression=None) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        port = listening.socket.getsockname()[1]
        yield f"ws://127.0.0.1:{port}/changes/v0/stream?k={server.token}"
        listening.shutdown()
        thread.join(10)
