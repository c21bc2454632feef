"""Watermarks: where a replica stands in MongoDB's oplog, as zero-cache compares them (as strings).

A watermark is ``lexi(cluster time)`` + ``.`` + ``lexi(fingerprint)``. A cluster time is a BSON timestamp as one
integer, ``seconds << 32 | increment``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from changesource.exceptions import WatermarkInvalid

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
FORM = re.compile(r"([0-9a-d][0-9a-z]{1,14})\.([0-9a-d][0-9a-z]{1,14})", re.ASCII)
MAX_CLUSTER_TIME = 2**64 - 1


def lexi(number: int) -> str:
    """Return ``number`` (0 or more) as a LexiVersion: base 36, led by one digit that gives its length minus 1.

    >>> lexi(0), lexi(35), lexi(36)
    ('00', '0z', '110')
    """
    digits = []
    rest = number
    while True:
        rest, digit = divmod(rest, 36)
        digits.append(DIGITS[digit])
        if not rest:
            break
    return DIGITS[len(digits) - 1] + "".join(reversed(digits))


def unlexi(text: str) -> int:
    """Return the number of a LexiVersion; ``ValueError`` where ``text`` is not one in its only form."""
    number = int(text[1:], 36)
    if lexi(number) != text:
        raise ValueError(text)
    return number


@dataclass(frozen=True)
class Watermark:
    """A position and what it was served under.

    ``cluster_time`` is that of an event of the replica's tables or of a barrier; ``fingerprint`` is a hash (under
    2^64) of all that decides what is sent for these tables.
    """

    cluster_time: int
    fingerprint: int

    def __str__(self) -> str:
        return f"{lexi(self.cluster_time)}.{lexi(self.fingerprint)}"

    @classmethod
    def parse(cls, text: str) -> Watermark:
        """Read what ``str`` wrote; anything else raises ``WatermarkInvalid``, quoting at most 40 characters."""
        if match := FORM.fullmatch(text):
            try:
                mark = cls(unlexi(match[1]), unlexi(match[2]))
            except ValueError:
                mark = None
            if mark and mark.cluster_time <= MAX_CLUSTER_TIME:
                return mark
        raise WatermarkInvalid(f"The watermark {text[:40]!r} is not one of ours.")
