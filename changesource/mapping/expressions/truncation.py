"""Dates cut to a unit, or to bins of several: counted from 2000-01-01 on the clocks of a time zone."""

from __future__ import annotations

from changesource.mapping.expressions.dates import iso_weekday
from changesource.mapping.expressions.moments import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Zone,
    civil,
    days_of,
    instant,
    moment,
    to_utc,
    zone_of,
)
from changesource.mapping.expressions.nodes import ABSENT, Builder, EvaluationError, Get, is_null, named
from changesource.mapping.expressions.numbers import whole
from changesource.mapping.literals import INT64

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Units up to the hour last as long everywhere; days and more begin at midnight, whenever that is.
_FIXED = {"hour": HOUR, "minute": MINUTE, "second": SECOND, "millisecond": 1}
_DAYS = {"week": 7, "day": 1}
_MONTHS = {"year": 12, "quarter": 3, "month": 1}
_UNITS = (*_MONTHS, *_DAYS, *_FIXED)
_MOST_BINS = 100_000_000_000
REFERENCE = days_of(2000, 1, 1) * DAY


def _unit(value: object) -> str:
    if not isinstance(value, str) or value not in _UNITS:
        raise EvaluationError(f"the unit of $dateTrunc is one of {', '.join(_UNITS)}")
    return value


def _bin_size(value: object) -> int:
    size = whole(value, "the binSize of $dateTrunc", INT64)
    if size < 1:
        raise EvaluationError("the binSize of $dateTrunc must be positive")
    return size


def _weekday(value: object) -> int:
    """The number of a day of the week by its name; 1 is Monday."""
    name = value.lower() if isinstance(value, str) else ""
    found = next((number for number, day in enumerate(WEEKDAYS, 1) if name in (day, day[:3])), None)
    if found is None:
        raise EvaluationError("the startOfWeek of $dateTrunc is a day's name, such as monday")
    return found


def _trunc(get: Get) -> object:
    date, size = get("date"), 1
    if is_null(date):
        return None
    given = get("binSize")
    if is_null(given):
        return None
    if given is not ABSENT:
        size = _bin_size(given)
    unit = get("unit")
    if is_null(unit):
        return None
    name, start = _unit(unit), get("startOfWeek") if unit == "week" else ABSENT
    if is_null(start):
        return None
    first = _weekday("sunday" if start is ABSENT else start)
    zone = get("timezone")
    if is_null(zone):
        return None
    return _cut(instant(date), name, size, zone_of("UTC" if zone is ABSENT else zone), first)


def _cut(at: int, unit: str, size: int, zone: Zone, first: int) -> object:
    if unit in _FIXED:
        reference = to_utc(REFERENCE, zone)
        return moment(_down(at, reference, _FIXED[unit] * size))
    if size > _MOST_BINS:
        raise EvaluationError("the binSize of $dateTrunc is too large")
    local = at + zone(at)
    if unit in _MONTHS:
        day = civil(local)
        months = _down((day.year - 2000) * 12 + day.month - 1, 0, _MONTHS[unit] * size)
        return moment(to_utc(days_of(2000, months + 1, 1) * DAY, zone))
    reference = REFERENCE + (first - iso_weekday(REFERENCE)) % 7 * DAY if unit == "week" else REFERENCE
    return moment(to_utc(_down(local, reference, _DAYS[unit] * size * DAY), zone))


def _down(value: int, reference: int, width: int) -> int:
    """The beginning of the bin that ``value`` is in; one begins at ``reference``."""
    return (value - reference) // width * width + reference


OPERATORS: dict[str, Builder] = {
    "$dateTrunc": named(
        _trunc,
        ("date", "unit"),
        ("binSize", "timezone", "startOfWeek"),
        {"unit": _unit, "binSize": _bin_size, "timezone": zone_of, "startOfWeek": _weekday},
    ),
}
