"""Where in a JSON text the place stands that an error names."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

_BLANKS: Final = " \t\n\r"
_DECODER: Final = json.JSONDecoder()


class Position(NamedTuple):
    """A line and a column, both from 1."""

    line: int
    column: int


def position(text: str, index: int) -> Position:
    """Where the character ``index`` of ``text`` stands."""
    before = text[:index]
    return Position(before.count("\n") + 1, index - before.rfind("\n"))


def locate(text: str, place: str) -> Position:
    """Where ``place``, such as ``a.$in.0``, stands in valid JSON; of one that is not there, its nearest parent.

    An object's member begins with its key. A key that holds dots counts as it is.
    """
    return position(text, _locate(text, _skip(text, 0), place))


def _locate(text: str, start: int, place: str) -> int:
    if not place or text[start] not in "{[":
        return start
    is_object = text[start] == "{"
    index, number = _skip(text, start + 1), 0
    while text[index] not in "}]":
        begin = index
        key = str(number)
        if is_object:
            key, index = _key(text, index)
        if place == key or place.startswith(f"{key}."):
            inner = place[len(key) + 1 :]
            found = _locate(text, index, inner) if inner else begin
            return begin if found == index else found
        _, index = _DECODER.raw_decode(text, index)
        index = _skip(text, index)
        if text[index] == ",":
            index = _skip(text, index + 1)
        number += 1
    return start


def _key(text: str, index: int) -> tuple[str, int]:
    """A member's key, and where its value begins."""
    key, index = _DECODER.raw_decode(text, index)
    return str(key), _skip(text, _skip(text, index) + 1)


def _skip(text: str, index: int) -> int:
    while index < len(text) and text[index] in _BLANKS:
        index += 1
    return index
