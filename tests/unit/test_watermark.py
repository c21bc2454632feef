"""Watermarks: their order as strings is their order as positions, and nothing but ours is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changesource.exceptions import WatermarkInvalid
from changesource.protocol.watermark import MAX_CLUSTER_TIME, Watermark, lexi, unlexi

CLUSTER_TIMES = st.integers(0, MAX_CLUSTER_TIME)
# Powers of the base and their neighbours: where the length of the text changes.
EDGES = st.sampled_from([max(0, 36**power + offset) for power in range(13) for offset in (-1, 0, 1)])
FINGERPRINTS = st.integers(0, 2**64 - 1)
WATERMARKS = st.builds(Watermark, CLUSTER_TIMES | EDGES.filter(lambda n: n <= MAX_CLUSTER_TIME), FINGERPRINTS)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "00"), (10, "0a"), (35, "0z"), (36, "110"), (46655, "2zzz"), (46656, "31000"), (2**64 - 1, "c3w5e11264sgsf")],
)
def test_lexi_is_base_36_led_by_its_length(number: int, text: str) -> None:
    assert lexi(number) == text
    assert unlexi(text) == number


@given(CLUSTER_TIMES | EDGES, CLUSTER_TIMES | EDGES)
def test_order_as_strings_is_order_as_numbers(one: int, other: int) -> None:
    assert (lexi(one) < lexi(other)) == (one < other)


@given(WATERMARKS, WATERMARKS)
def test_later_positions_have_later_watermarks_whatever_the_fingerprint(one: Watermark, other: Watermark) -> None:
    if one.cluster_time != other.cluster_time:
        assert (str(one) < str(other)) == (one.cluster_time < other.cluster_time)


@given(WATERMARKS)
def test_what_was_written_is_read(mark: Watermark) -> None:
    assert Watermark.parse(str(mark)) == mark


GARBAGE = [
    "",
    "00",
    ".",
    "00.",
    ".00",
    "00.00.00",
    "00.00 ",
    " 00.00",
    "00.00\n",
    "0A.00",  # uppercase
    "00.0A",
    "101.00",  # 1 with a leading zero: not its only form
    "00.101",
    "01a.00",  # the length says one digit, there are two
    "1a.00",
    "0.00",
    "z00.00",
    "0٣.00",  # ARABIC-INDIC DIGIT THREE, which int() reads
    "0².00",
    "0_0.00",
    "1_1.00",
    "2+11.00",
    "-1.00",
    "00.0x\0",
    "00,00",
    "d10000000000000.00",  # 36 ** 13, beyond 64 bit
    "c3w5e11264sgsg.00",  # 2 ** 64
    "0" * 100_000,
    "c" + "z" * 13 + ".00",
    "latest",
    "\ud800",
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: ascii(text[:20]))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(WatermarkInvalid) as refused:
        Watermark.parse(text)
    assert len(str(refused.value)) < 500
    str(refused.value).encode()


@given(st.text(max_size=30) | st.text("0123456789abcdz.", max_size=32))
def test_nothing_is_read_that_would_be_written_otherwise(text: str) -> None:
    try:
        mark = Watermark.parse(text)
    except WatermarkInvalid:
        return
    assert str(mark) == text
