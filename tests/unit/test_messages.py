"""Frames: each one's exact shape, and what must never leave the encoder."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from changesource.protocol import messages
from changesource.protocol.messages import TableFrames, dumps
from changesource.protocol.tables import mapped_table
from changesource.protocol.watermark import Watermark

MARK = Watermark(1_700_000_000 << 32 | 1, 99)
W = str(MARK)
TABLE = mapped_table("item", [("id", "string", False), ("n", "number", True)], ("id",))
RELATION = {"schema": "public", "name": "item", "rowKey": {"columns": ["id"]}, "keyColumns": ["id"]}
FRAMES = TableFrames(TABLE)


def read(frame: bytes) -> Any:
    text = frame.decode()
    assert "\n" not in text
    assert "\r" not in text
    return json.loads(text)


def test_transactions() -> None:
    assert read(messages.begin(MARK)) == ["begin", {"tag": "begin"}, {"commitWatermark": W}]
    assert read(messages.commit(MARK)) == ["commit", {"tag": "commit"}, {"watermark": W}]
    timed = ["commit", {"tag": "commit", "commitTimeMs": 1_700_000_000_123}, {"watermark": W}]
    assert read(messages.commit(MARK, 1_700_000_000_123)) == timed
    assert read(messages.rollback()) == ["rollback", {"tag": "rollback"}]


def test_reset_required() -> None:
    body = {
        "tag": "reset-required",
        "message": 'lost "it"\n',
        "errorDetails": {"code": "ZS202", "message": 'lost "it"\n'},
    }
    assert read(messages.reset_required('lost "it"\n', "ZS202")) == ["control", body]


def test_rows() -> None:
    row = {"id": 'a"\n', "n": 1.5}
    assert read(FRAMES.insert(row)) == ["data", {"tag": "insert", "relation": RELATION, "new": row}]
    assert read(FRAMES.delete({"id": "a"})) == ["data", {"tag": "delete", "relation": RELATION, "key": {"id": "a"}}]
    assert read(FRAMES.truncate) == ["data", {"tag": "truncate", "relations": [RELATION]}]


def test_an_update_never_carries_a_key() -> None:
    row = {"id": "a", "n": None}
    assert read(FRAMES.update(row)) == ["data", {"tag": "update", "relation": RELATION, "key": None, "new": row}]


def test_a_backfill_bears_its_transactions_watermark_and_leaves_the_key_out_of_the_columns() -> None:
    frame = FRAMES.backfill(["n"], [dumps(["a", 1]), dumps(["b", None])], MARK)
    values = [["a", 1], ["b", None]]
    change = {"tag": "backfill", "relation": RELATION, "columns": ["n"], "watermark": W, "rowValues": values}
    assert read(frame) == ["data", change]


def test_tables_come_with_the_required_ones_and_the_row_of_permissions() -> None:
    changes = [read(frame)[1] for frame in messages.create_tables([TABLE], "app", 7)]
    created = [(c["spec"]["schema"], c["spec"]["name"]) for c in changes if c["tag"] == "create-table"]
    assert created == [("app_7", "clients"), ("app_7", "mutations"), ("app", "permissions"), ("public", "item")]
    indexed = [(c["spec"]["schema"], c["spec"]["tableName"]) for c in changes if c["tag"] == "create-index"]
    assert indexed == created
    assert changes[-1] == {
        "tag": "insert",
        "relation": {
            "schema": "app",
            "name": "permissions",
            "rowKey": {"columns": ["lock"]},
            "keyColumns": ["lock"],
        },
        "new": {"lock": True, "permissions": None, "hash": None},
    }


# What poisons zero-cache for good.


@pytest.mark.parametrize("value", ["\0", "a\0b", {"a\0": 1}, [{"x": ["\0"]}], {"x": {"y": "\\\0"}}, ("\0",)])
@pytest.mark.parametrize("encode", [dumps, FRAMES.insert, FRAMES.update, FRAMES.delete])
def test_nul_never_leaves(value: object, encode: Any) -> None:
    with pytest.raises(TypeError, match="U\\+0000"):
        encode({"id": "a", "n": value})


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", "u0000", {"\\u0000": 1}, "\x01", "\u2028", "\ufffd", "😀"])
def test_what_only_looks_like_nul_passes(value: object) -> None:
    assert read(dumps([value])) == [value]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_becomes_null(value: float) -> None:
    assert dumps({"n": value, "j": [value]}) == b'{"n":null,"j":[null]}'


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40])
def test_integers_that_no_double_holds_are_refused(value: int) -> None:
    for row in ({"n": value}, {"n": {"deep": [value]}}):
        with pytest.raises(TypeError):
            FRAMES.insert(row)


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, 1e300, -1e300, 5e-324])
def test_numbers_that_a_double_holds_pass(value: float) -> None:
    assert read(FRAMES.insert({"n": value}))[1]["new"] == {"n": value}


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, b"bytes", {1: 2}, object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        dumps([value])


def test_nesting_without_end_is_refused() -> None:
    value: list[Any] = []
    for _ in range(2000):
        value = [value]
    with pytest.raises(TypeError):
        dumps(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**64) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def holds(value: Any, wrong: Any) -> bool:
    if isinstance(value, dict):
        return any(holds(part, wrong) for item in value.items() for part in item)
    return any(holds(item, wrong) for item in value) if isinstance(value, list) else bool(wrong(value))


def is_poison(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int) and abs(value) > 2**53 - 1


@given(JSON)
def test_what_leaves_is_clean_and_on_one_line(value: Any) -> None:
    try:
        encoded = dumps({"value": value})
    except TypeError:
        assert holds(value, is_poison)
        return
    assert not holds(value, is_poison)
    assert b"\n" not in encoded
    orjson.loads(encoded)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "\n", ",\n,", '"']), inner),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=6))
def test_many_values_are_encoded_as_each_is(values: list[object]) -> None:
    assert messages.dumps_each(values) == [messages.dumps(value) for value in values]


def test_of_many_values_none_may_hold_what_zero_cache_cannot_store() -> None:
    with pytest.raises(TypeError):
        messages.dumps_each([{"a": "x"}, {"a": ["\0"]}])
    with pytest.raises(TypeError):
        messages.dumps_each([2**53 + 1])
