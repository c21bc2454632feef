"""What zero-cache asks for in the query string of its connection, and what it sends afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

import orjson

from changesource.exceptions import RequestRefused

APP_ID = re.compile(r"[a-z0-9_]{1,63}", re.ASCII)
ASKED_BY = re.compile(rb"(?:^|&)appID=([a-z0-9_]{1,63})(?:&|$)")
SHARD_NUM = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class StreamRequest:
    """One connection's wishes. ``last_watermark`` is empty at the initial sync; no ``publications`` means all."""

    app_id: str
    shard_num: int
    publications: tuple[str, ...] = ()
    last_watermark: str = ""
    replica_version: str = ""

    @classmethod
    def parse(cls, query: bytes) -> StreamRequest:
        """Read a query string; unknown parameters are ignored, wrong ones raise ``RequestRefused``."""
        try:
            values = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=200)
        except ValueError:
            raise RequestRefused("The query string is not readable.") from None

        def one(name: str) -> str:
            found = values.get(name, [""])
            if len(set(found)) > 1:
                raise RequestRefused(f"{name} is given more than once, with different values.")
            return found[0]

        app_id, shard = one("appID"), one("shardNum")
        if not APP_ID.fullmatch(app_id):
            raise RequestRefused("appID must be 1 to 63 of the characters a to z, 0 to 9 and _.")
        if not SHARD_NUM.fullmatch(shard):
            raise RequestRefused("shardNum must be an integer, 0 or more.")
        publications = tuple(sorted({name for name in values.get("publications", []) if name}))
        return cls(app_id, int(shard), publications, one("lastWatermark"), one("replicaVersion"))


def app_id_of(query: bytes) -> str:
    """The app id of a query string that may be refused, for the log; empty where there is none that is valid."""
    found = ASKED_BY.search(query)
    return found[1].decode() if found else ""


def acked_watermark(frame: str) -> str | None:
    """Return the watermark of an upstream ``status`` frame, None for anything else; a bad frame is no error."""
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    match message:
        case ["status", dict(), {"watermark": str(watermark)}, *_]:
            return watermark
        case _:
            return None
