"""API keys: made at random, shown to whoever makes them, kept as hashes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from changesource.models import ApiKey

MARK = "zs_"
SHOWN = len(MARK) + 6
SECRET_BYTES = 32
# A use is written no more often, by all processes together.
USE_SECONDS = 60.0


@dataclass(frozen=True)
class KeptKey:
    """What is known of a key. ``app_ids`` are those that it is bound to; none: it is good for any."""

    name: str
    hash: str
    app_ids: frozenset[str] = frozenset()
    expires: datetime | None = None
    revoked: bool = False


@dataclass(frozen=True)
class KeptKeys:
    """``keys`` by their hashes, revoked ones too, so that a refusal can say why."""

    keys: Mapping[str, KeptKey] = field(default_factory=dict)

    @property
    def any_made(self) -> bool:
        """Whether any key was made, revoked or not."""
        return bool(self.keys)


def hash_of(key: str) -> str:
    """The SHA-256 of a key, in hex.

    No salt, no slow hash and no SECRET_KEY: those protect what people choose, and nobody guesses 256 random bits.
    So keys outlive a change of SECRET_KEY.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def generate(row: ApiKey) -> str:
    """Give an unsaved ``row`` a new key and save it; return the key, which cannot be had again.

    It is made of characters that need no escape in a URL.
    """
    key = MARK + secrets.token_urlsafe(SECRET_BYTES)
    row.hash, row.prefix = hash_of(key), key[:SHOWN]
    row.save(force_insert=True)
    return key


def create(name: str, app_ids: Iterable[str] = (), expires: datetime | None = None) -> str | None:
    """Make a key of this name and return it; None where the name is taken. Raises ``ValidationError``."""
    row = ApiKey(name=name, app_ids=",".join(app_ids), expires=expires)
    row.clean()
    try:
        with transaction.atomic():
            return generate(row)
    except IntegrityError:
        return None


def find(name: str) -> ApiKey | None:
    """The key of this name."""
    return ApiKey.objects.filter(name=name).first()


def everything() -> list[ApiKey]:
    """All keys, by name."""
    return list(ApiKey.objects.all())


def in_words(row: ApiKey) -> str:
    """What there is to say of a key, in one line: times are in UTC."""
    form = "%Y-%m-%d %H:%M"
    words = [f"{row.name}: {row.prefix}...", f"app ids {row.app_ids or 'any'}"]
    words.append(f"expires {row.expires:{form}}" if row.expires else "never expires")
    words.append(f"last used {row.last_used:{form}}" if row.last_used else "never used")
    if row.revoked:
        words.append(f"revoked {row.revoked:{form}}")
    return ", ".join(words)


def rebind(row: ApiKey) -> None:
    """Save what ``row`` is bound to and when it expires, and nothing else. Raises ``ValidationError``."""
    row.clean()
    row.save(update_fields=["app_ids", "expires"])


def revoke(name: str) -> bool:
    """Revoke the key of this name; False where there is none. One revoked before keeps its time."""
    ApiKey.objects.filter(name=name, revoked=None).update(revoked=timezone.now())
    return ApiKey.objects.filter(name=name).exists()


def kept() -> KeptKeys:
    """Return what is known of all keys."""
    rows = ApiKey.objects.values_list("name", "hash", "app_ids", "expires", "revoked")
    keys = (
        KeptKey(name, stored, frozenset(app_ids.replace(",", " ").split()), expires, revoked is not None)
        for name, stored, app_ids, expires, revoked in rows
    )
    return KeptKeys({key.hash: key for key in keys})


def note_use(hashes: Iterable[str]) -> None:
    """Write that the keys of these hashes are in use, unless that was written within the last minute."""
    now = timezone.now()
    late = Q(last_used=None) | Q(last_used__lt=now - timedelta(seconds=USE_SECONDS))
    ApiKey.objects.filter(late, hash__in=list(hashes)).update(last_used=now)
