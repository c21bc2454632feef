"""What the commands that bind API keys share: their options."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

LONGEST_DAYS = 36_500


def add_bounds(parser: ArgumentParser) -> None:
    """--app-id, which may come more than once, and --expires."""
    parser.add_argument(
        "--app-id", metavar="APP", action="append", help="good for this ZERO_APP_ID alone; may be given again"
    )
    parser.add_argument(
        "--expires",
        metavar="WHEN",
        type=moment,
        help="refused from then on: a date or date and time in UTC (2027-01-31, 2027-01-31T12:00), or in days (90d)",
    )


def moment(text: str) -> datetime:
    """The moment that WHEN names. Raises ``ArgumentTypeError``."""
    if text.endswith("d") and text[:-1].isdecimal() and text.isascii() and 0 < int(text[:-1]) <= LONGEST_DAYS:
        return timezone.now() + timedelta(days=int(text[:-1]))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is neither a date nor a number of days, such as 90d") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def refusal(error: ValidationError) -> CommandError:
    """The error in one line."""
    return CommandError(" ".join(error.messages))
