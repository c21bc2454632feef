"""Strings. Positions count code points; upper and lower case are those of ASCII, as in MongoDB."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from datetime import datetime

from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.objectid import ObjectId

from changesource.mapping.budget import PART, SHORT, charge, charge_text
from changesource.mapping.comparison import milliseconds
from changesource.mapping.expressions.moments import utc_text
from changesource.mapping.expressions.nodes import (
    ABSENT,
    Builder,
    EvaluationError,
    Get,
    binary,
    in_turn,
    is_null,
    named,
    unary,
)
from changesource.mapping.expressions.numbers import whole
from changesource.mapping.values import type_name

# What fits a document at all: an expression that doubles a text again and again would fill the memory.
MAX_TEXT = 16 * 1024 * 1024
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
# What $trim takes off by itself (manual: "$trim", "Whitespace Characters").
_WHITESPACE = "\0\t\n\v\f\r \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
_HEX = re.compile("(?:[0-9a-fA-F]{2})*")


def text_of(value: object, name: str) -> str:
    """The text of a value where a string is wanted and others are taken; null gives none."""
    if is_null(value):
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        # Six digits, as printf writes: the server does so here, and not where it converts to a string.
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal128):
        return str(value)
    if isinstance(value, datetime | DatetimeMS):
        return utc_text(milliseconds(value))
    raise EvaluationError(f"{name} takes no value of type {type_name(value)}")


def string(value: object, name: str) -> str:
    """``value``, which must be a string."""
    if not isinstance(value, str) or isinstance(value, Code):
        raise EvaluationError(f"{name} takes strings, not a value of type {type_name(value)}")
    return value


def _concat(values: Iterator[object]) -> object:
    parts = []
    for value in values:
        if is_null(value):
            return None
        parts.append(string(value, "$concat"))
    length = sum(map(len, parts))
    charge_text(length)
    return "".join(parts) if length <= MAX_TEXT else _too_long("$concat")


def _too_long(name: str) -> str:
    raise EvaluationError(f"{name} gives a text of more than {MAX_TEXT} characters")


def _cased(name: str, table: dict[int, int]) -> Builder:
    return unary(lambda value: _translated(text_of(value, name), table))


def _translated(text: str, table: dict[int, int]) -> str:
    if len(text) > SHORT:
        # Of a text that is not ASCII each letter is looked up.
        charge(len(text) >> 4 if text.isascii() else 2 * len(text))
    return text.translate(table)


def _counted(text: str) -> str:
    charge_text(len(text))
    return text


def _charge_search(text: str, part: str) -> None:
    """Count a search for ``part``, which takes at the worst the length of both multiplied, while that is short."""
    if len(text) > SHORT:
        charge(len(text) * (4 + min(len(part), 100)) >> 6)


def _substr(values: Iterator[object]) -> object:
    value, start, length = values
    text = text_of(value, "$substrCP")
    begin, count = whole(start, "the start of $substrCP"), whole(length, "the length of $substrCP")
    if begin < 0 or count < 0:
        raise EvaluationError("the start and length of $substrCP cannot be negative")
    return _counted(text[begin : begin + count])


def _length(value: object) -> object:
    return len(string(value, "$strLenCP"))


def _split(value: object, delimiter: object) -> object:
    if is_null(value) or is_null(delimiter):
        return None
    text, by = string(value, "$split"), string(delimiter, "$split")
    if not by:
        raise EvaluationError("$split needs a delimiter that is not empty")
    _charge_search(text, by)
    if len(text) > SHORT:
        charge(PART * text.count(by))
    return list(text.split(by))


def _trim(name: str, strip: Callable[[str, str], str]) -> Builder:
    def function(get: Get) -> object:
        value = get("input")
        if is_null(value):
            return None
        text, given = string(value, name), get("chars")
        if given is ABSENT:
            given = _WHITESPACE
        if is_null(given):
            return None
        characters = string(given, name)
        if len(text) > SHORT or len(characters) > SHORT:
            charge(len(text) * len(characters) >> 7)
        # An empty set of characters would mean whitespace to Python.
        return strip(text, characters) if characters else text

    return named(function, ("input",), ("chars",))


def _replace(name: str, count: int) -> Builder:
    def function(get: Get) -> object:
        value, find, by = (_string_or_null(get(argument), name) for argument in ("input", "find", "replacement"))
        if value is None or find is None or by is None:
            return None
        _charge_search(value, find)
        grown = len(value) + (len(by) - len(find)) * (min(1, value.count(find)) if count == 1 else value.count(find))
        charge_text(grown)
        return value.replace(find, by, count) if grown <= MAX_TEXT else _too_long(name)

    return named(function, ("input", "find", "replacement"))


def _string_or_null(value: object, name: str) -> str | None:
    return None if is_null(value) else string(value, name)


def _index(values: Iterator[object]) -> object:
    """Where the part begins; it must begin before the end that is given, but may go beyond."""
    value = next(values)
    if is_null(value):
        return None
    text, part = string(value, "$indexOfCP"), string(next(values), "$indexOfCP")
    start, end = (_position(next(values, ABSENT), default) for default in (0, len(text)))
    if not text and not part and start == 0:
        return 0
    _charge_search(text, part)
    found = text.find(part, start)
    return found if start <= found < min(end, len(text)) else -1


def _position(given: object, default: int) -> int:
    if given is ABSENT:
        return default
    found = whole(given, "the start or end of $indexOfCP")
    if found < 0:
        raise EvaluationError("the start and end of $indexOfCP cannot be negative")
    return found


def _compare(left: object, right: object) -> object:
    one, other = (_translated(text_of(value, "$strcasecmp"), _UPPER) for value in (left, right))
    return (one > other) - (one < other)


def _base64_of_hex(value: object) -> object:
    if is_null(value):
        return None
    text = str(value) if isinstance(value, ObjectId) else string(value, "$hexToBase64Url")
    if len(text) > SHORT:
        charge(len(text))
    if not _HEX.fullmatch(text):
        raise EvaluationError("$hexToBase64Url takes pairs of hexadecimal digits")
    return base64.urlsafe_b64encode(binascii.unhexlify(text)).decode("ascii").rstrip("=")


OPERATORS: dict[str, Builder] = {
    "$concat": in_turn(_concat, 0),
    "$toLower": _cased("$toLower", _LOWER),
    "$toUpper": _cased("$toUpper", _UPPER),
    "$substrCP": in_turn(_substr, 3, 3),
    "$strLenCP": unary(_length),
    "$split": binary(_split),
    "$trim": _trim("$trim", str.strip),
    "$ltrim": _trim("$ltrim", str.lstrip),
    "$rtrim": _trim("$rtrim", str.rstrip),
    "$replaceOne": _replace("$replaceOne", 1),
    "$replaceAll": _replace("$replaceAll", -1),
    "$indexOfCP": in_turn(_index, 2, 4),
    "$strcasecmp": binary(_compare),
    "$hexToBase64Url": unary(_base64_of_hex),
}
