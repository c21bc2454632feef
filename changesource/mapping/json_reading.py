"""JSON text to values, and the checks that every reader of a JSON form needs; each names the place at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Final, TypeVar

from changesource.exceptions import MappingError

from .spec import Json

MAX_DEPTH: Final = 100
Choice = TypeVar("Choice", bound=str)


def parse(content: bytes, origin: str) -> Json:
    """The JSON value in ``content`` (UTF-8). ``origin`` names the file in errors.

    Refused: a key given twice, of which one would be lost; numbers and text that no database can keep; values nested
    deeper than 100. Raises ``MappingError``.
    """
    try:
        data: Json = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise MappingError(origin, f"is not UTF-8 (byte {exc.start})") from exc
    except json.JSONDecodeError as exc:
        raise MappingError(origin, f"is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise MappingError(origin, f"is nested deeper than {MAX_DEPTH} levels") from exc
    except ValueError as exc:
        raise MappingError(origin, str(exc)) from exc
    check_values(origin, data, 0)
    return data


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError(f"the key {first_twice(key for key, _ in pairs)!r} is given twice in one object")
    return entry


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def check_values(place: str, value: Json, depth: int = 0) -> None:
    """Refuse text that no database can keep, numbers beyond a double, and nesting deeper than 100."""
    if depth > MAX_DEPTH:
        raise MappingError(place, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(place, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise MappingError(place, "is a number too large")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_values(f"{place}.{index}", item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(f"{place}.{key!a}", key)
            check_values(f"{place}.{key}", item, depth + 1)


def _check_text(place: str, value: str) -> None:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise MappingError(place, "holds U+0000 or half of a surrogate pair")


def obj(place: str, value: Json) -> dict[str, Json]:
    """``value``, which must be an object."""
    if not isinstance(value, dict):
        raise MappingError(place, "must be an object")
    return value


def text(place: str, value: Json, *, empty: bool = False) -> str:
    """``value``, which must be a string, and not empty unless ``empty``."""
    if not isinstance(value, str):
        raise MappingError(place, "must be a string")
    if not value and not empty:
        raise MappingError(place, "must not be empty")
    return value


def natural(place: str, value: Json) -> int:
    """``value``, which must be a whole number of 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MappingError(place, "must be a whole number of 0 or more")
    return value


def boolean(place: str, value: Json) -> bool:
    """``value``, which must be true or false."""
    if not isinstance(value, bool):
        raise MappingError(place, "must be true or false")
    return value


def flag(value: Json) -> bool | None:
    """A projection's 1 or true, 0 or false; None is neither."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    return None


def one_of(place: str, value: Json, choices: tuple[Choice, ...]) -> Choice:
    """``value``, which must be one of ``choices``."""
    for choice in choices:
        if value == choice:
            return choice
    raise MappingError(place, f"must be one of {', '.join(choice or repr(choice) for choice in choices)}")


def names(place: str, value: Json) -> tuple[str, ...]:
    """``value``, which must be a list of names, each given once."""
    if not isinstance(value, list):
        raise MappingError(place, "must be a list of names")
    found = tuple(text(f"{place}.{index}", item) for index, item in enumerate(value))
    if (twice := first_twice(found)) is not None:
        raise MappingError(place, f"names {twice!r} twice")
    return found


def first_twice(items: Iterable[str]) -> str | None:
    """The first of ``items`` that was there before; None where each stands once. A file may hold very many."""
    seen: set[str] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def known_keys(place: str, entry: dict[str, Json], known: Iterable[str]) -> None:
    """Refuse a key that is not among ``known``."""
    for key in entry:
        if key not in known:
            raise MappingError(f"{place}.{key}", f"is not a known key; known are {', '.join(known)}")
