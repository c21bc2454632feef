"""Reads zero-cache's replica, which only its own build of SQLite can open."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from devtools import node
from devtools.processes import ManagedProcess

Value = object
Row = dict[str, Value]

KEY_COLUMNS = """
    SELECT DISTINCT part.name FROM pragma_index_list(?) AS unique_index, pragma_index_info(unique_index.name) AS part
    WHERE unique_index."unique" ORDER BY unique_index.seq, part.seqno
"""


class Replica:
    """The replica in ``file``, read by a helper process that stays until ``close``. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._helper: ManagedProcess | None = None

    def query(self, sql: str, params: Sequence[str | int | float | None] = ()) -> list[Row]:
        """The rows of any SELECT, as SQLite holds them; ``sqlite3.OperationalError`` where it fails or no file is."""
        columns, rows = self._ask(sql, params)
        names = [name for name, _ in columns]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rows(self, table: str) -> list[Row]:
        """All rows of a table in the order of its key, with booleans and JSON as Python values.

        Zero's own column ``_0_version`` is left out.
        """
        key = self.query(KEY_COLUMNS, [table])
        order = ", ".join(quoted(str(column["name"])) for column in key) or "rowid"
        columns, rows = self._ask(f"SELECT * FROM {quoted(table)} ORDER BY {order}", ())  # noqa: S608
        names = [name for name, _ in columns]
        # A declared type is such as "float8|NOT_NULL".
        types = [(declared or "").split("|")[0].lower() for _, declared in columns]
        decoded = [{n: _decode(v, t) for n, t, v in zip(names, types, row, strict=True)} for row in rows]
        for row in decoded:
            row.pop("_0_version", None)
        return decoded

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(str(self.query(f"SELECT count(*) AS n FROM {quoted(table)}")[0]["n"]))  # noqa: S608

    def tables(self) -> list[str]:
        """The names of the mapped tables, without Zero's own."""
        found = self.query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        # Tables of any schema but `public` are named SCHEMA.TABLE, and Zero's own `_zero.…`.
        return [name for row in found if not ("." in (name := str(row["name"])) or name.startswith("sqlite_"))]

    def watermark(self) -> str:
        """The watermark up to which the replica is; "" while there is no synced replica."""
        return self._state('SELECT stateVersion AS v FROM "_zero.replicationState"')

    def version(self) -> str:
        """The ``replicaVersion``: the watermark of its initial sync; "" while there is no synced replica."""
        return self._state('SELECT replicaVersion AS v FROM "_zero.replicationConfig"')

    def close(self) -> None:
        """End the helper; a later read starts another one."""
        with self._lock:
            helper, self._helper = self._helper, None
        if helper is not None:
            helper.kill()

    def _state(self, sql: str) -> str:
        try:
            found = self.query(sql)
        except sqlite3.OperationalError:
            return ""
        return str(found[0]["v"]) if found else ""

    def _ask(
        self, sql: str, params: Sequence[str | int | float | None]
    ) -> tuple[list[tuple[str, str | None]], list[list[Value]]]:
        request = json.dumps({"file": str(self.file), "sql": sql, "params": list(params)})
        with self._lock:
            if self._helper is None:
                log = self.file.with_name("replica-reader.log")
                args = [node.node_binary(), node.SCRIPTS / "replica.mjs"]
                self._helper = ManagedProcess(args, log, node.environment(), pipes=True)
            try:
                self._helper.stdin.write(request + "\n")
                self._helper.stdin.flush()
                line = self._helper.stdout.readline()
            except OSError:
                line = ""
            if not line:
                raise sqlite3.OperationalError(f"The replica's reader died. {self._helper.log_tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise sqlite3.OperationalError(answer["error"])
        return answer["columns"], answer["rows"]


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _decode(value: Value, declared: str) -> Value:
    if value is None:
        return None
    if declared in ("boolean", "bool"):
        return bool(value)
    if declared in ("json", "jsonb"):
        return json.loads(str(value))
    return value
