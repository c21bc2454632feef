"""Parts of dates, and dates as text, in any time zone."""

from __future__ import annotations

import re
from collections.abc import Callable

from bson.int64 import Int64

from changesource.mapping.budget import PART, SHORT, charge
from changesource.mapping.expressions.moments import (
    DAY,
    HOUR,
    MAX_YEAR,
    MINUTE,
    SECOND,
    civil,
    days_of,
    instant,
    is_utc,
    zone_of,
)
from changesource.mapping.expressions.nodes import (
    ABSENT,
    Builder,
    Context,
    EvaluationError,
    Get,
    Node,
    is_null,
    named,
    unary,
)
from changesource.mapping.spec import Json

Part = Callable[[int], int]
"""A part of a date, by what its clocks show as milliseconds since 1970."""
MONTHS = "January February March April May June July August September October November December".split()


def _day_of_year(local: int) -> int:
    return local // DAY - days_of(civil(local).year, 1, 1) + 1


def iso_weekday(local: int) -> int:
    """The day of the week; 1 is Monday."""
    # 1970 began with a Thursday.
    return (local // DAY + 3) % 7 + 1


def _weekday(local: int) -> int:
    """The day of the week; 1 is Sunday."""
    return iso_weekday(local) % 7 + 1


def _week(local: int) -> int:
    """Weeks begin on Sunday; days before the first one are in week 0."""
    return (_day_of_year(local) - _weekday(local) + 7) // 7


def _thursday(local: int) -> int:
    """The Thursday of the same week, which belongs to the year that the week counts in."""
    return local + (4 - iso_weekday(local)) * DAY


def _iso_week(local: int) -> int:
    return (_day_of_year(_thursday(local)) - 1) // 7 + 1


def _iso_year(local: int) -> int:
    return civil(_thursday(local)).year


PARTS: dict[str, Part] = {
    "$year": lambda local: civil(local).year,
    "$month": lambda local: civil(local).month,
    "$dayOfMonth": lambda local: civil(local).day,
    "$dayOfYear": _day_of_year,
    "$dayOfWeek": _weekday,
    "$week": _week,
    "$isoWeek": _iso_week,
    "$isoDayOfWeek": iso_weekday,
    "$isoWeekYear": lambda local: Int64(_iso_year(local)),
    "$hour": lambda local: local // HOUR % 24,
    "$minute": lambda local: local // MINUTE % 60,
    "$second": lambda local: local // SECOND % 60,
    "$millisecond": lambda local: local % SECOND,
}


def _part(part: Part) -> Builder:
    """An operator that takes a date, or an object of it and a time zone."""

    def with_zone(get: Get) -> object:
        value = get("date")
        if is_null(value):
            return None
        at, zone = instant(value), get("timezone")
        if zone is ABSENT:
            return part(at)
        return None if is_null(zone) else part(at + zone_of(zone)(at))

    alone = unary(lambda value: None if is_null(value) else part(instant(value)))
    zoned = named(with_zone, ("date",), ("timezone",), {"timezone": zone_of})

    def build(context: Context, arguments: Json, place: str) -> Node:
        builder = zoned if isinstance(arguments, dict) and "date" in arguments else alone
        return builder(context, arguments, place)

    return build


def _signed(offset: int) -> str:
    sign, minutes = "-" if offset < 0 else "+", abs(offset) // MINUTE
    return f"{sign}{minutes // 60:02}{minutes % 60:02}"


def _four_digits(year: int) -> str:
    if not 0 <= year <= MAX_YEAR:
        raise EvaluationError("$dateToString takes dates of the years 0 to 9999")
    return f"{year:04}"


_SPECIFIERS: dict[str, Callable[[int, int], str]] = {
    "%": lambda local, offset: "%",
    "b": lambda local, offset: MONTHS[civil(local).month - 1][:3],
    "B": lambda local, offset: MONTHS[civil(local).month - 1],
    "d": lambda local, offset: f"{civil(local).day:02}",
    "G": lambda local, offset: _four_digits(_iso_year(local)),
    "H": lambda local, offset: f"{local // HOUR % 24:02}",
    "j": lambda local, offset: f"{_day_of_year(local):03}",
    "L": lambda local, offset: f"{local % SECOND:03}",
    "m": lambda local, offset: f"{civil(local).month:02}",
    "M": lambda local, offset: f"{local // MINUTE % 60:02}",
    "S": lambda local, offset: f"{local // SECOND % 60:02}",
    "u": lambda local, offset: str(iso_weekday(local)),
    "U": lambda local, offset: f"{_week(local):02}",
    "V": lambda local, offset: f"{_iso_week(local):02}",
    "w": lambda local, offset: str(_weekday(local)),
    "Y": lambda local, offset: _four_digits(civil(local).year),
    "z": lambda local, offset: _signed(offset),
    "Z": lambda local, offset: str(offset // MINUTE if offset >= 0 else -(-offset // MINUTE)),
}
_PERCENT = re.compile("%(.?)", re.S)
_WITHOUT_ZONE = "%Y-%m-%dT%H:%M:%S.%L"


def _format(value: object) -> str:
    if not isinstance(value, str):
        raise EvaluationError("the format of $dateToString is a string")
    if len(value) > SHORT:
        charge(4 * PART * len(value))
    for found in _PERCENT.finditer(value):
        if found[1] not in _SPECIFIERS:
            raise EvaluationError(f"%{found[1]} is no part of a date's format")
    return value


def _to_string(get: Get) -> object:
    value, given = get("date"), get("format")
    form = None if given is ABSENT or is_null(given) else _format(given)
    name = get("timezone")
    zone = zone_of("UTC" if name is ABSENT or is_null(name) else name)
    if is_null(value):
        instead = get("onNull")
        return None if instead is ABSENT else instead
    if is_null(name) or is_null(given):
        return None
    at = instant(value)
    offset = zone(at)
    if form is None:
        form = f"{_WITHOUT_ZONE}Z" if name is ABSENT or is_utc(name) else _WITHOUT_ZONE
    return _PERCENT.sub(lambda found: _SPECIFIERS[found[1]](at + offset, offset), form)


OPERATORS: dict[str, Builder] = {
    **{name: _part(part) for name, part in PARTS.items()},
    "$dateToString": named(
        _to_string, ("date",), ("format", "timezone", "onNull"), {"format": _format, "timezone": zone_of}
    ),
}
