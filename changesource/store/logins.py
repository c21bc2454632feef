"""How often somebody may try to log in, counted in the database for all processes that share it.

An account is never locked as such, since anybody could lock an operator out then: tries are counted by the address that
they come from, and by the address and the user name together.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, Q
from django.utils.crypto import salted_hmac

from changesource.models import LoginTry
from changesource.proxies import parsed

# Tries from one address, as a multiple of those for one user: several people may share it.
ALL_USERS: Final = 6
# Rows that are kept at the most, whoever fills them.
MAX_KEPT: Final = 10_000
IPV6_NETWORK: Final = 64  # bits; one client has so many addresses


def begin(address: str, name: str, tries: int, seconds: float, now: datetime) -> int | None:
    """Return a try's number, to be given to ``succeeded``; None where there were too many, of which no row is written.

    Within ``seconds``, one address may fail ``tries`` times for one user, and six times as often for all together.
    """
    since = now - timedelta(seconds=seconds)
    place, who = _place(address), _who(name)
    if _reached(place, who, since, tries, ALL_USERS * tries):
        return None
    # Counted before the password is looked at, and then looked at again: trying many at once is no way round.
    begun = LoginTry.objects.create(place=place, who=who, at=now)
    if _reached(place, who, since, tries + 1, ALL_USERS * tries + 1):
        begun.delete()
        return None
    LoginTry.objects.filter(Q(at__lte=since) | Q(pk__lte=begun.pk - MAX_KEPT)).delete()
    return begun.pk


def succeeded(number: int) -> None:
    """Forget the try, and those before it of the same address for the same user."""
    begun = LoginTry.objects.filter(pk=number).first()
    if begun is not None:
        LoginTry.objects.filter(place=begun.place, who=begun.who).delete()


def _reached(place: str, who: str, since: datetime, of_one: int, of_all: int) -> bool:
    counted = LoginTry.objects.filter(place=place, at__gt=since).aggregate(
        all=Count("pk"), one=Count("pk", filter=Q(who=who))
    )
    return bool(counted["one"] >= of_one or counted["all"] >= of_all)


def _place(address: str) -> str:
    found = parsed(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, IPV6_NETWORK), strict=False))
    return str(found or "")


def _who(name: str) -> str:
    return salted_hmac("changesource.logins", name, algorithm="sha256").hexdigest()
