"""What comes over the channel layer: payloads of another release, of another program, or of an enemy in Redis."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import strategies as st

from changesource.protocol.watermark import Watermark
from changesource.services.downstream import Downstream
from changesource.services.live import LiveFeed
from changesource.services.mailbox import Mailbox
from changesource.services.subscriber import Subscriber
from changesource.stream.batches import BARRIER, Batch, encode
from changesource.stream.excerpt import Excerpt, Wanted
from tests.fuzz.documents import MAPPING
from tests.fuzz.drawing import json_value, mutated_bytes, mutated_json, of_corpus, seeded
from tests.fuzz.targets import Plant, Target, gives_nothing, hangs, raises_key_error

TABLE = MAPPING.tables["thing"]
FRAMES = (
    TABLE.frames.insert({"id": "a", "a": None, "all": {"x": [1]}, "n": 5}),
    TABLE.frames.delete({"id": "b"}),
    TABLE.frames.truncate,
    TABLE.frames.relief,
)
PRINTS = MAPPING.fingerprints
BATCHES = (
    Batch(100, 110, PRINTS, ((105, "thing", 2), (107, BARRIER, 0), (110, "person", 1)), FRAMES[:3]),
    Batch(100, 120, PRINTS, pull=True),
    Batch(110, 111, PRINTS, ((111, BARRIER, 0),)),
    Batch(100, 130, PRINTS, ((120, "thing", 1),), (FRAMES[2],), refill={"thing": 120}),
)
PAYLOADS = tuple(map(encode, BATCHES))


def _payload(chance: random.Random) -> bytes:
    """A payload whose first line was changed as JSON."""
    head, *frames = chance.choice(PAYLOADS).split(b"\n")
    changed = mutated_json(json.loads(head), chance, rate=0.1)
    if isinstance(changed, dict) and isinstance(changed.get("runs"), list) and changed["runs"]:
        place = chance.randrange(len(changed["runs"]))
        changed["runs"][place] = chance.choice((0, -1, 105, 2**63, 2**64 - 1, 2**70, True, "thing", "", None, 1.0))
    for name in ("follows", "end"):
        if isinstance(changed, dict) and chance.random() < 0.1:
            changed[name] = chance.choice((0, -1, 2**64 - 1, 2**64, 90, 1e300, True, 109))
    if frames and chance.random() < 0.3:
        place = chance.randrange(len(frames))
        other = json.dumps(json_value(chance)).encode()
        frames[place] = (other * 100)[: len(frames[place])] if other else b""
    return b"\n".join((json.dumps(changed).encode(), *frames))


class _Page:
    """What the live page would be sent of each batch."""

    def __init__(self, wanted: Wanted) -> None:
        self._excerpt = Excerpt(wanted)

    def offer(self, batch: Batch, size: int) -> None:
        self._excerpt.add(batch)
        orjson.dumps(self._excerpt.lines)


async def _sent(payload: bytes) -> list[bytes]:
    """What a replica at 100 is sent of a payload, and of a sound one that came before."""
    mailbox = Mailbox()
    layer: Any = None
    subscriber = Subscriber(layer)
    subscriber._mailboxes = {mailbox, _Page(Wanted()), _Page(Wanted("thing", "5")), LiveFeed(60.0, 0.0)}
    messages: list[dict[str, object]] = [
        {"payload": PAYLOADS[2]},
        {"payload": "text"},
        {"type": "x"},
        {"payload": payload},
    ]
    for message in messages:
        subscriber._deliver(message)
    assert subscriber.received + subscriber.unreadable == 2
    frames: list[bytes] = []

    async def send(given: Sequence[bytes]) -> None:
        frames.extend(given)

    downstream = Downstream(send, MAPPING.fingerprint, MAPPING.tables, 100, MAPPING.relief)
    mailbox.connects(downstream.position, PRINTS)
    while (batch := mailbox.take(downstream.position, PRINTS)) is not None:
        before = downstream.position
        await downstream.batch(batch)
        assert downstream.position > before
    return frames


_runner = asyncio.Runner()


def check_payload(payload: bytes) -> None:
    """A payload is taken whole or counted as unreadable; watermarks rise, and transactions end, whatever it says."""
    frames = _runner.run(_sent(payload))
    marks = [orjson.loads(frame)[2]["commitWatermark"] for frame in frames if frame.startswith(b'["begin"')]
    assert marks == sorted(set(marks)), marks
    assert all(mark > str(Watermark(100, MAPPING.fingerprint)) for mark in marks)
    ends = sum(frame.startswith(b'["commit"') for frame in frames)
    assert ends == len(marks)
    if payload in PAYLOADS:
        index = PAYLOADS.index(payload)
        # The one that came before follows the first alone, and what is to be pulled is not sent.
        assert len(marks) == (2, 0, 0, 1)[index], marks


TARGETS = [
    Target(
        "layer",
        st.one_of(of_corpus(PAYLOADS, mutated_bytes), seeded(_payload)),
        check_payload,
        [
            Plant("a decoder that raises", "changesource.stream.batches._is_sound", raises_key_error),
            Plant("a decoder that hangs", "changesource.services.subscriber.decode", hangs),
            Plant("a decoder that takes all", "changesource.stream.batches._is_sound", lambda _: True),
            Plant("batches that are lost", "changesource.services.mailbox.Mailbox.take", gives_nothing),
        ],
        [*PAYLOADS, b"", b"\n", b"{}", b"[]\n[]", b"[" * 100_000, b"\xff"],
        full=15_000,
    )
]
