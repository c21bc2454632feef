"""Batches: their way through the channel layer, and a replica's part of them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from changesource.protocol.messages import dumps
from changesource.stream.batches import BARRIER, Batch, BatchBuilder, decode, encode

PRINTS = {"a": "0a", "b": "0b"}
FRAMES = st.text(max_size=20).map(
    lambda text: orjson.dumps(["data", {"tag": text.encode("utf-8", "replace").decode()}])
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch that may be put on the layer: pieces that are not final never are."""
    builder = BatchBuilder(draw(st.integers(0, 2**63)), PRINTS)
    cluster_time = builder.follows + 1
    for _ in range(draw(st.integers(0, 6))):
        cluster_time += draw(st.integers(0, 2))
        table = draw(st.sampled_from(["a", "b", "ü\n", BARRIER]))
        builder.add(cluster_time, table, [] if table == BARRIER else draw(st.lists(FRAMES, max_size=3)))
    builder.end = cluster_time + 1
    builder.refill(draw(st.lists(st.sampled_from(["a", "b"]))), cluster_time)
    return builder.build()


@given(batches())
def test_what_was_encoded_is_decoded(batch: Batch) -> None:
    assert decode(encode(batch)) == batch


def test_the_time_goes_with_a_batch_and_may_be_missing() -> None:
    batch = Batch(5, 9, PRINTS, time_ms=1_700_000_000_123)
    assert decode(encode(batch)).time_ms == 1_700_000_000_123
    head = orjson.loads(encode(batch))
    del head["time"]
    assert decode(orjson.dumps(head)).time_ms == 0


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def test_the_trace_goes_with_a_batch_and_may_be_missing() -> None:
    batch = Batch(5, 9, PRINTS, trace=TRACE)
    assert decode(encode(batch)).trace == TRACE
    assert b"trace" not in encode(Batch(5, 9, PRINTS))
    assert decode(encode(Batch(5, 9, PRINTS))).trace == ""


@pytest.mark.parametrize("wrong", [7, None, ["00"], "", TRACE + "\n", TRACE.upper(), "x" * 10_000, {"a": TRACE}])
def test_a_trace_that_is_none_costs_no_batch(wrong: object) -> None:
    head = orjson.loads(encode(Batch(5, 9, PRINTS)))
    assert decode(orjson.dumps(head | {"trace": wrong})) == Batch(5, 9, PRINTS)
    assert decode(orjson.dumps(head | {"trace": wrong})).trace == ""


def test_an_announcement_is_decoded() -> None:
    batch = Batch(5, 9, PRINTS, pull=True)
    assert decode(encode(batch)) == batch


@given(batches(), st.data())
def test_a_payload_that_lost_its_end_is_refused(batch: Batch, data: st.DataObject) -> None:
    payload = encode(batch)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError, match="not a batch"):
        decode(payload[:cut])


HEAD = {"follows": 1, "end": 2, "fingerprints": {}, "runs": [], "pull": False, "refill": {}, "size": 0}
FOREIGN = [
    b"",
    b"\n",
    b"{}",
    b"[]",
    b"1",
    b"null",
    b"\xff\xfe",
    b"\x80\x04K\x01.",
    *(orjson.dumps({key: value for key, value in HEAD.items() if key != missing}) for missing in HEAD),
    orjson.dumps({**HEAD, "follows": "1"}),
    orjson.dumps({**HEAD, "end": None}),
    orjson.dumps({**HEAD, "end": 2**63 * 1.0}),
    orjson.dumps({**HEAD, "fingerprints": ["a"]}),
    orjson.dumps({**HEAD, "runs": ["a", "b", "c"]}),
    orjson.dumps({**HEAD, "runs": "abc"}),
    orjson.dumps({**HEAD, "runs": [1, "a", -1, 1, "a", 1]}),
    orjson.dumps({**HEAD, "runs": {"a": 1}}),
    orjson.dumps({**HEAD, "pull": "no"}),
    orjson.dumps({**HEAD, "refill": ["a"]}),
    orjson.dumps({**HEAD, "refill": {"a": "1"}}),
    orjson.dumps({**HEAD, "refill": 1}),
    orjson.dumps({**HEAD, "size": 7}),
    orjson.dumps({**HEAD, "time": "1"}),
    orjson.dumps({**HEAD, "time": 1.5}),
    orjson.dumps({**HEAD, "time": -1}),
    orjson.dumps({**HEAD, "time": 2**53}),
    orjson.dumps(HEAD) + b"\nmore",
    orjson.dumps({**HEAD, "follows": -1}),
    orjson.dumps({**HEAD, "follows": 3}),
    orjson.dumps({**HEAD, "follows": True}),
    orjson.dumps({**HEAD, "runs": [True, "a", 0]}),
    orjson.dumps({**HEAD, "runs": [1, "a", 0]}),
    orjson.dumps({**HEAD, "runs": [3, "a", 0]}),
    orjson.dumps({**HEAD, "end": 9, "runs": [5, "a", 0, 4, "a", 0]}),
    orjson.dumps({**HEAD, "refill": {"a": 3}}),
    orjson.dumps({**HEAD, "runs": [2, "a", 1], "size": 4}) + b"\nmore",
]


@pytest.mark.parametrize("payload", FOREIGN, ids=lambda payload: payload[:60].decode("latin-1"))
def test_a_payload_of_another_kind_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a batch"):
        decode(payload)


@given(st.binary(max_size=200))
def test_no_bytes_are_another_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a batch"):
        decode(payload)


def test_frames_that_hold_escaped_line_breaks_stay_whole() -> None:
    frame = dumps(["data", {"tag": "a\nb\r\n\u2028"}])
    assert decode(encode(Batch(1, 2, {}, ((2, "a", 1),), (frame,)))).frames == (frame,)


BATCH = Batch(
    10,
    19,
    PRINTS,
    ((11, "a", 2), (11, "b", 1), (13, BARRIER, 0), (15, "a", 0), (17, "b", 2)),
    (b"a1", b"a2", b"b1", b"b2", b"b3"),
)


@pytest.mark.parametrize(
    ("after", "tables", "position", "barrier", "frames", "transactions"),
    [
        (10, {"a", "b"}, 17, True, [b"a1", b"a2", b"b1", b"b2", b"b3"], 4),
        (11, {"a", "b"}, 17, True, [b"b2", b"b3"], 3),
        (13, {"a", "b"}, 17, False, [b"b2", b"b3"], 2),
        (17, {"a", "b"}, 0, False, [], 0),
        (19, {"a", "b"}, 0, False, [], 0),
        (0, {"a", "b"}, 17, True, [b"a1", b"a2", b"b1", b"b2", b"b3"], 4),
        # An event that made no frame for a table of one's own is still a position of one's own.
        (10, {"a"}, 15, True, [b"a1", b"a2"], 3),
        (14, {"a"}, 15, False, [], 1),
        (10, {"b"}, 17, True, [b"b1", b"b2", b"b3"], 3),
        (10, {"c"}, 13, True, [], 1),
        (13, {"c"}, 0, False, [], 0),
        (10, set(), 13, True, [], 1),
    ],
)
def test_a_replica_gets_its_tables_after_its_position(
    after: int, tables: set[str], position: int, barrier: bool, frames: list[bytes], transactions: int
) -> None:
    assert BATCH.pieces(after, tables) == (position, barrier, frames, transactions)


def test_frames_of_one_event_and_table_are_one_run() -> None:
    builder = BatchBuilder(0, {})
    builder.add(1, "a", [b"x"])
    builder.add(1, "a", [b"y"])
    builder.add(1, "b", [])
    builder.add(2, "b", [b"zz"])
    builder.end = 2
    batch = builder.build()
    assert batch.runs == ((1, "a", 2), (1, "b", 0), (2, "b", 1))
    assert (builder.rows, builder.size) == (3, 4)


def test_a_builder_takes_over_what_follows() -> None:
    first, second = BatchBuilder(0, {}), BatchBuilder(1, {})
    first.add(1, "a", [b"x"])
    first.end = 1
    second.add(2, "b", [b"y"])
    second.refill(["b"], 2)
    second.end = 3
    first.take(second)
    runs, frames = ((1, "a", 1), (2, "b", 1)), (b"x", b"y")
    assert first.build() == Batch(0, 3, {}, runs, frames, refill={"b": 2})
