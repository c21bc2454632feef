"""Who leads, by a row in the database that only one process at a time can change.

The row's ``token`` rises with each renewal. Nobody compares clocks: who waits sees, by a clock of its own, that the
token does not rise any more.
"""

from __future__ import annotations

from typing import NamedTuple

from django.utils import timezone

from changesource.models import Lease


class Seen(NamedTuple):
    """A lease as it was read; ``holder`` is "" where nobody leads."""

    holder: str
    token: int


def look(name: str) -> Seen:
    """Return the lease ``name``, which is made where there is none."""
    lease, _ = Lease.objects.get_or_create(name=name)
    return Seen(lease.holder, lease.token)


def take(name: str, holder: str, token: int) -> bool:
    """Take, or renew, the lease; False where its token is not ``token`` any more. It is one more then."""
    found = Lease.objects.filter(name=name, token=token)
    return bool(found.update(holder=holder, token=token + 1, renewed_at=timezone.now()))


def release(name: str, holder: str, token: int) -> None:
    """Let go of the lease, so that another may take it at once; nothing where another has it already."""
    Lease.objects.filter(name=name, holder=holder, token=token).update(holder="", token=token + 1)


def holder(name: str) -> str:
    """Return who holds the lease; "" where nobody does."""
    return Lease.objects.filter(name=name).values_list("holder", flat=True).first() or ""
