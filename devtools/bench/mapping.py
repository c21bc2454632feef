"""What mapping costs beside decoding: ``python -m devtools.bench.mapping``.

One process, one core. Documents are decoded by ``bson.decode_all`` alone, then mapped to rows, in turn, many times; the
figures are medians, and the ratios are of figures of the same run.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import bson
from bson.objectid import ObjectId

from changesource.mapping.compiled import MappedTable, ignore_fault
from changesource.mapping.spec import ColumnSpec, Json, TableSpec
from changesource.sources.mongodb.decoding import CODEC_OPTIONS

RESULT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "mapping.json"
DOCUMENTS = 5000
ROUNDS = 25
MEMBERS = 5
# The time of mapping by that of decoding the same documents.
FLAT_BAR = 1.0

ID = ColumnSpec("id", "string", "_id")
FLAT = (
    ID,
    ColumnSpec("roomId", "string", "roomId"),
    ColumnSpec("author", "string", "author"),
    ColumnSpec("text", "string", "text"),
    ColumnSpec("likes", "number", "likes"),
    ColumnSpec("edited", "boolean", "edited", optional=True),
    ColumnSpec("sentAt", "number", "sentAt"),
)
MEMBER = (
    ColumnSpec("accountId", "string", "_id"),
    ColumnSpec("userId", "string", "members.userId"),
    ColumnSpec("role", "string", "members.role"),
    ColumnSpec("since", "number", "members.since"),
)


class Case(NamedTuple):
    """A table and the documents that it is made of."""

    name: str
    table: MappedTable
    documents: list[dict[str, Any]]


def table(
    name: str,
    columns: tuple[ColumnSpec, ...],
    key: tuple[str, ...] = ("id",),
    pipeline: tuple[Json, ...] = (),
    **more: Any,
) -> MappedTable:
    """Compile a table of a collection that exists nowhere."""
    spec = TableSpec(name, name, columns, key, pipeline=pipeline, id_type="objectId", **more)
    return MappedTable(spec, "bench")


def cases() -> list[Case]:
    """Return a flat, a filtered, a computed and an unwound table."""
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    messages: list[dict[str, Any]] = [
        {
            "_id": ObjectId(),
            "roomId": ObjectId(),
            "author": f"user {number % 50}",
            "text": "Could you look at the release notes, please? " * 3,
            "likes": number % 100,
            "edited": number % 3 == 0,
            "sentAt": moment + timedelta(seconds=number),
        }
        for number in range(DOCUMENTS)
    ]
    accounts: list[dict[str, Any]] = [
        {
            "_id": ObjectId(),
            "name": f"account {number}",
            "members": [{"userId": f"u{n}", "role": "member", "since": moment} for n in range(MEMBERS)],
        }
        for number in range(DOCUMENTS // MEMBERS)
    ]
    shout = (*FLAT[:6], ColumnSpec("shout", "string", expression={"$toUpper": {"$substrCP": ["$text", 0, 20]}}))
    return [
        Case("flat", table("flat", FLAT), messages),
        Case("filtered", table("filtered", FLAT, filter={"likes": {"$gte": 50}, "edited": {"$ne": None}}), messages),
        Case("computed", table("computed", shout), messages),
        Case("unwound", table("unwound", MEMBER, ("accountId", "userId"), ({"$unwind": "$members"},)), accounts),
    ]


def seconds(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(case: Case) -> dict[str, float]:
    """Return medians: rows a second by mapping alone, and the ratios to decoding of mapping, and with encoding."""
    raw = b"".join(bson.encode(document) for document in case.documents)
    documents = bson.decode_all(raw, CODEC_OPTIONS)
    compiled = case.table.compiled
    plain = compiled.pipeline is None

    def rows() -> int:
        if plain:
            return sum(compiled.row_with_errors(document)[0] is not None for document in documents)
        return sum(isinstance(row, dict) for document in documents for row in compiled.rows(document))

    def encoded() -> None:
        for document in documents:
            case.table.encoded(document, case.table.inserts, ignore_fault)

    count = rows()
    figures: dict[str, list[float]] = {"decoding": [], "rows": [], "frames": []}
    for _ in range(ROUNDS):
        # In turn, so that what else the machine does touches all alike.
        figures["decoding"].append(seconds(lambda: bson.decode_all(raw, CODEC_OPTIONS)))
        figures["rows"].append(seconds(rows))
        figures["frames"].append(seconds(encoded))
    median = {name: statistics.median(times) for name, times in figures.items()}
    return {
        "rows_per_second": round(count / median["rows"]),
        "decoded_per_second": round(len(documents) / median["decoding"]),
        "rows_by_decoding": round(median["rows"] / median["decoding"], 2),
        "frames_by_decoding": round(median["frames"] / median["decoding"], 2),
    }


def main() -> None:
    """Measure, print a table, and keep it."""
    measured = {case.name: measure(case) for case in cases()}
    print(f"{'table':10} {'rows/s':>10} {'decoded/s':>10} {'rows/decode':>12} {'frames/decode':>14}")
    for name, figures in measured.items():
        print("{:10} {:>10,} {:>10,} {:>12} {:>14}".format(name, *figures.values()))
    flat = measured["flat"]["rows_by_decoding"]
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "measured": measured,
        "mapping_flat": {"value": flat, "bar": FLAT_BAR, "ok": flat <= FLAT_BAR},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
