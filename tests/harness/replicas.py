"""What a real zero-cache's replica holds, compared with what MongoDB says."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
from pymongo import MongoClient
from pymongo.database import Database

from devtools.processes import wait_until
from devtools.zerocache import ZeroCache
from tests.harness.app import Rows, everything, last_write

Document = dict[str, Any]


def replica_rows(cache: ZeroCache, table: str) -> Rows:
    """Return a table's rows by their keys; none while there is no such table."""
    try:
        # The key is that of the unique index, which is called so.
        index = "SELECT name FROM pragma_index_info(?) ORDER BY seqno"
        key = [column["name"] for column in cache.replica.query(index, [f"{table}.key"])]
        return {tuple(row[column] for column in key): row for row in cache.rows(table)}
    except sqlite3.OperationalError:
        return {}


def open_cursors(client: MongoClient[Document]) -> int:
    """Return how many cursors are open: a change stream is one that stays so."""
    return int(client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])


def stored_watermark(cache: ZeroCache) -> str:
    """Return the last commit that zero-cache has stored and would resume from; its replica may be ahead of that."""
    with psycopg.connect(cache.database_url, autocommit=True) as connection:
        state = f'SELECT "lastWatermark" FROM "{cache.app_id}_0/cdc"."replicationState"'  # noqa: S608
        found = connection.execute(state).fetchone()
    return str(found[0]) if found else ""


def wait_equal(cache: ZeroCache, expected: dict[str, Rows], timeout: float = 30) -> None:
    """Wait until the replica's tables are as expected; the first difference is in the error."""
    wait_until(
        lambda: all(replica_rows(cache, table) == rows for table, rows in expected.items()),
        "the replica to equal MongoDB",
        timeout,
        detail=lambda: difference(cache, expected),
    )


def settle(cache: ZeroCache, database: Database[Document], tables: list[str], timeout: float = 90) -> None:
    """Wait until all that was written has arrived, and compare row for row. All writers must have stopped."""
    table = "item" if "item" in tables else "note"
    (key,) = last_write(database, table)
    wait_until(
        lambda: cache.replica.query(f'SELECT 1 FROM "{table}" WHERE id = ?', [str(key)]),  # noqa: S608
        "the last write to arrive",
        timeout,
        detail=cache.log_tail,
    )
    expected = everything(database, tables)
    assert not difference(cache, expected)


def difference(cache: ZeroCache, expected: dict[str, Rows]) -> str:
    """Return the first difference in words, "" where there is none."""
    for table, rows in expected.items():
        found = replica_rows(cache, table)
        for key in rows.keys() | found.keys():
            if found.get(key) != rows.get(key):
                sizes = f"{len(found)} rows, {len(rows)} expected"
                return f"{table} ({sizes}) {key}: {found.get(key)!s:.500} instead of {rows.get(key)!s:.500}"
    return ""
