"""Dates as milliseconds since 1970, of any year that BSON can hold, in any time zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from bson.datetime_ms import DatetimeMS
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from changesource.mapping.budget import SHORT, charge_text
from changesource.mapping.comparison import EPOCH, milliseconds
from changesource.mapping.expressions.nodes import EvaluationError
from changesource.mapping.literals import INT64
from changesource.mapping.values import type_name

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MAX_YEAR = 9999
"""Text of dates has four digits for the year."""

# The years 1 to 9999, which Python's dates and time zones know, and the span in which the calendar repeats.
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
_ERA = 146_097 * DAY
_OFFSET = re.compile(r"([+-])(\d\d)(?::?(\d\d))?", re.A)
# Files among the time zones that are none, or are another on every machine.
_NO_ZONES = ("localtime", "posixrules", "Factory", "posix/", "right/")
_UNKNOWN_ZONE = "unknown time zone: give a name such as Europe/Rome, or an offset such as +02:00"
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)? ?(Z|[+-]\d\d(?::?\d\d)?)?", re.A
)

Zone = Callable[[int], int]
"""The offset of a time zone's clocks from UTC at a moment, both in milliseconds."""


class Civil(NamedTuple):
    """A day of the calendar and the milliseconds since its midnight."""

    year: int
    month: int
    day: int
    time: int


def moment(value: int) -> datetime | DatetimeMS:
    """The date at ``value`` milliseconds, as the driver would decode it."""
    if _FIRST <= value <= _LAST:
        return EPOCH + timedelta(milliseconds=value)
    if not -INT64 <= value < INT64:
        raise EvaluationError("the date is beyond 64 bits")
    return DatetimeMS(value)


def instant(value: object) -> int:
    """The milliseconds of a date, or of a value that holds one."""
    if isinstance(value, datetime | DatetimeMS):
        return milliseconds(value)
    if isinstance(value, Timestamp):
        return int(value.time) * SECOND
    if isinstance(value, ObjectId):
        return int(value.generation_time.timestamp()) * SECOND
    raise EvaluationError(f"a value of type {type_name(value)} is no date")


def civil(value: int) -> Civil:
    """The day and time of ``value`` milliseconds, in the Gregorian calendar.

    By the era-based algorithm of https://howardhinnant.github.io/date_algorithms.html, since Python's dates end with
    the year 9999.
    """
    days, time = divmod(value, DAY)
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return Civil(year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1, time)


def days_of(year: int, month: int, day: int) -> int:
    """The days since 1970 of a day; ``month`` may be beyond 1 to 12."""
    years, months = divmod(month - 1, 12)
    year, month = year + years, months + 1
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def utc_text(value: int) -> str:
    """The date at ``value`` milliseconds as ISO 8601 text, UTC with milliseconds."""
    year, month, day, time = civil(value)
    if not 0 <= year <= MAX_YEAR:
        raise EvaluationError("only dates of the years 0 to 9999 can be written as text")
    clock = f"{time // HOUR:02}:{time // MINUTE % 60:02}:{time // SECOND % 60:02}.{time % SECOND:03}"
    return f"{year:04}-{month:02}-{day:02}T{clock}Z"


def parse_date(text: str) -> int:
    """The milliseconds of a date in ISO 8601; UTC where it has no offset."""
    charge_text(len(text))
    found = _ISO.fullmatch(text.strip())
    if not found:
        raise EvaluationError("the string is no date of ISO 8601, such as 2024-03-01T12:00:00Z")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction, offset = found.groups()[6:]
    if not 1 <= month <= 12 or not 0 < day <= days_of(year, month + 1, 1) - days_of(year, month, 1):
        raise EvaluationError("the string is no day of the calendar")
    if hour > 23 or minute > 59 or second > 59:
        raise EvaluationError("the string is no time of a day")
    since = days_of(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second * SECOND
    if offset and offset != "Z":
        since -= zone_of(offset)(since)
    microseconds = since * 1000 + int((fraction or "").ljust(6, "0")[:6])
    # As the server does: towards 1970.
    return microseconds // 1000 if microseconds >= 0 else -(-microseconds // 1000)


def zone_of(name: object) -> Zone:
    """The time zone of a name such as Europe/Rome, or of an offset from UTC such as +02:00."""
    if not isinstance(name, str):
        raise EvaluationError(f"a time zone is a string, not of type {type_name(name)}")
    if len(name) > SHORT:
        raise EvaluationError(_UNKNOWN_ZONE)
    return _zone(name)


def is_utc(name: object) -> bool:
    """Whether a time zone is UTC itself, by its name or by its offset."""
    return isinstance(name, str) and (name == "UTC" or (_OFFSET.fullmatch(name) is not None and _zone(name)(0) == 0))


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=1024)
def _zone(name: str) -> Zone:
    if name == "UTC":
        return lambda value: 0
    found = _OFFSET.fullmatch(name)
    if found:
        sign, hours, minutes = found.groups()
        offset = (int(hours) * HOUR + int(minutes or 0) * MINUTE) * (-1 if sign == "-" else 1)
        return lambda value: offset
    try:
        # To look for one that is none takes longer than most evaluations.
        if name.startswith(_NO_ZONES) or name not in _names():
            raise ValueError(name)
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise EvaluationError(_UNKNOWN_ZONE) from exc

    def offset_at(value: int) -> int:
        # Beyond Python's years: before them as at their beginning, after them as in an equal year among them.
        within = max(value, _FIRST + DAY) if value <= _LAST - DAY else value % _ERA + 5 * _ERA
        shift = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=within)).astimezone(zone).utcoffset()
        return 0 if shift is None else shift // timedelta(milliseconds=1)

    return offset_at


def to_utc(local: int, zone: Zone) -> int:
    """The moment at which clocks of ``zone`` show ``local``: the later where they do twice, as they set them back.

    Where they skip it, as if they had not been set yet.
    """
    guess = local - zone(local)
    # By the offsets before and after a change of clocks that may be near.
    both = (local - zone(guess - 3 * HOUR), local - zone(guess + 3 * HOUR))
    fitting = {found for found in both if found + zone(found) == local}
    return fitting.pop() if len(fitting) == 1 else max(both)
