"""The query string of zero-cache's connection, and its acks."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from changesource.exceptions import RequestRefused
from changesource.protocol.request import StreamRequest, acked_watermark

ASKED = {"appID": "zero", "shardNum": "0"}


def query(**changes: str) -> bytes:
    return urlencode({**ASKED, **changes}).encode()


def test_the_first_connection_names_only_app_and_shard() -> None:
    assert StreamRequest.parse(b"appID=zero_1&shardNum=12") == StreamRequest("zero_1", 12)


def test_a_later_connection_names_all() -> None:
    text = b"appID=a&shardNum=0&publications=people&publications=places&lastWatermark=0b.0c&replicaVersion=0a.0c"
    assert StreamRequest.parse(text) == StreamRequest("a", 0, ("people", "places"), "0b.0c", "0a.0c")


def test_publications_are_a_set() -> None:
    text = b"appID=a&shardNum=0&publications=b&publications=&publications=a&publications=b"
    assert StreamRequest.parse(text).publications == ("a", "b")


def test_unknown_and_empty_parameters_are_ignored() -> None:
    text = b"apiKey=secret&appID=a&shardNum=0&future=1&future=2&lastWatermark=&=x&&%ff=1"
    assert StreamRequest.parse(text) == StreamRequest("a", 0)


def test_the_same_value_twice_is_no_contradiction() -> None:
    assert StreamRequest.parse(b"appID=a&appID=a&shardNum=0").app_id == "a"


REFUSED = [
    b"",
    b"shardNum=0",
    b"appID=&shardNum=0",
    b"appID=a",
    b"appID=a&shardNum=",
    query(appID="Zero"),
    query(appID="ze-ro"),
    query(appID="zero "),
    query(appID="zero\n"),
    query(appID='a"; drop'),
    query(appID="é"),
    query(appID="a" * 64),
    query(shardNum="-1"),
    query(shardNum="+1"),
    query(shardNum="1.0"),
    query(shardNum="1_0"),
    query(shardNum=" 1"),
    query(shardNum="0x1"),
    query(shardNum="٣"),
    query(shardNum="9" * 5000),
    b"appID=a&appID=b&shardNum=0",
    b"appID=a&shardNum=0&shardNum=1",
    b"appID=a&shardNum=0&lastWatermark=0a.0a&lastWatermark=0b.0a",
    b"appID=\xc3\xa9&shardNum=0",
    b"appID=a&shardNum=0&" + b"&".join(b"x=1" for _ in range(300)),
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30].decode("latin-1"))
def test_what_cannot_be_served_is_refused(text: bytes) -> None:
    with pytest.raises(RequestRefused):
        StreamRequest.parse(text)


NAMES = st.sampled_from(["appID", "shardNum", "publications", "lastWatermark", "replicaVersion", "x", ""])
QUERIES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.lists(st.tuples(NAMES, st.sampled_from(["a", "0", "%00", "%zz"]) | st.text(max_size=10)), max_size=8).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode()
    ),
)


@given(QUERIES)
def test_whatever_comes_is_read_or_refused(text: bytes) -> None:
    try:
        request = StreamRequest.parse(text)
    except RequestRefused:
        return
    assert request.app_id.isascii()
    assert request.shard_num >= 0


def test_an_ack_gives_its_watermark() -> None:
    assert acked_watermark('["status",{"tag":"commit","commitTimeMs":1},{"watermark":"0a.0b"}]') == "0a.0b"
    assert acked_watermark('["status",{"ack":true},{"watermark":"0a","more":1},"and more"]') == "0a"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{}",
        "[]",
        "null",
        '["status"]',
        '["status",{}]',
        '["status",{},{}]',
        '["status",{},{"watermark":1}]',
        '["status",{},{"watermark":null}]',
        '["status",[],{"watermark":"0a"}]',
        '["begin",{},{"watermark":"0a"}]',
        '["status",{},{"watermark":"0a"}',
        "[" * 100_000,
        '"\ud800"',
    ],
    ids=lambda frame: ascii(frame[:30]),
)
def test_any_other_frame_is_no_ack_and_no_error(frame: str) -> None:
    assert acked_watermark(frame) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["watermark", "ack", "x"]), inner),
    max_leaves=8,
)


@given(st.text() | JSON.map(lambda value: orjson.dumps(value).decode()))
def test_no_frame_is_an_error(frame: str) -> None:
    acked_watermark(frame)


@given(JSON, JSON)
def test_no_status_is_an_error(body: object, place: object) -> None:
    found = acked_watermark(orjson.dumps(["status", body, place]).decode())
    assert found is None or isinstance(found, str)
