"""The place that an error names is found in the text that was typed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from changesource.mapping.json_places import Position, locate, position
from changesource.mapping.spec import Json
from tests.specifications import FILTERS

TEXT = """{
  "a": {"$in": [1, {"b\\u0041": 2}]},
  "c.d" : 3,
  "e": []
}"""


@pytest.mark.parametrize(
    ("place", "line", "column"),
    [
        ("", 1, 1),
        ("a", 2, 3),
        ("a.$in", 2, 9),
        ("a.$in.0", 2, 17),
        ("a.$in.1.bA", 2, 21),
        ("a.$in.9", 2, 9),
        ("a.$in.0.deeper", 2, 17),
        ("c.d", 3, 3),
        ("e.0", 4, 3),
        ("missing", 1, 1),
    ],
)
def test_a_place_is_found_or_its_nearest_parent(place: str, line: int, column: int) -> None:
    assert locate(TEXT, place) == Position(line, column)


def test_a_character_has_a_line_and_a_column() -> None:
    assert [position("a\nbc", index) for index in range(4)] == [(1, 1), (1, 2), (2, 1), (2, 2)]


@given(FILTERS)
def test_each_key_of_any_filter_is_found(filter: dict[str, Json]) -> None:
    for indent in (None, 2):
        text = json.dumps(filter, indent=indent)
        lines = text.splitlines()
        for key in filter:
            line, column = locate(text, key)
            assert lines[line - 1][column - 1 :].startswith(json.dumps(key))
