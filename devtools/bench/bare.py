"""The least that a client of MongoDB can do, in a process of its own: ``python -m devtools.bench.bare decode``.

``decode`` decodes encoded documents; ``watch`` iterates over a change stream; ``times`` prints when the change stream
gave which document, line by line. What our source does is compared with these.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from typing import Any

import bson
from bson import Timestamp
from pymongo import MongoClient

from changesource.sources.mongodb.decoding import CODEC_OPTIONS
from devtools.bench import dataset

BATCH = 1000


def decode(documents: int) -> None:
    """Print how many documents a second are decoded, in batches of a thousand."""
    (found,) = dataset.encoded(documents, 1).values()
    batches = [b"".join(found[n : n + BATCH]) for n in range(0, documents, BATCH)]
    del found
    began = time.perf_counter()
    for batch in batches:
        bson.decode_all(batch, CODEC_OPTIONS)
    _tell(rate=documents / (time.perf_counter() - began))


def watch(uri: str, after: int, events: int) -> None:
    """Print how many events a second come of a collection's change stream after a cluster time."""
    with MongoClient[dict[str, Any]](uri) as client:
        collection = client[dataset.DATABASE][dataset.collection(0)]
        client.admin.command("ping")
        began = time.perf_counter()
        start = Timestamp(after >> 32, (after & 0xFFFFFFFF) + 1)
        with collection.watch(start_at_operation_time=start, batch_size=BATCH) as stream:
            count = sum(1 for _ in islice(stream, events))
        _tell(rate=count / (time.perf_counter() - began))


def times(uri: str) -> None:
    """Print ``{"likes": L, "moment": M}`` for every event, M by ``monotonic``, until killed."""
    with MongoClient[dict[str, Any]](uri) as client:
        collection = client[dataset.DATABASE][dataset.collection(0)]
        with collection.watch(full_document="updateLookup", max_await_time_ms=1000) as stream:
            _tell(ready=True)
            for event in stream:
                moment = time.monotonic()
                _tell(likes=event["fullDocument"]["likes"], moment=moment)


def _tell(**found: object) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["decode", "watch", "times"])
    parser.add_argument("--uri", default="")
    parser.add_argument("--after", type=int, default=0, help="a cluster time")
    parser.add_argument("--count", type=int, default=1, help="of documents or events")
    chosen = parser.parse_args()
    match chosen.what:
        case "decode":
            decode(chosen.count)
        case "watch":
            watch(chosen.uri, chosen.after, chosen.count)
        case _:
            times(chosen.uri)


if __name__ == "__main__":
    main()
