"""API keys: made at random, shown to whoever makes them, kept as hashes."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils import timezone

from changesource.models import ApiKey

MARK = "zs_"
SHOWN = len(MARK) + 6
SECRET_BYTES = 32


@dataclass(frozen=True)
class KeptKeys:
    """``hashes`` of the keys that are not revoked; ``any_made`` is true once any key was made, revoked or not."""

    hashes: tuple[str, ...]
    any_made: bool


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


def create(name: str) -> str | None:
    """Make a key of this name and return it; None where the name is taken."""
    try:
        with transaction.atomic():
            return generate(ApiKey(name=name))
    except IntegrityError:
        return None


def revoke(name: str) -> bool:
    """Revoke the key of this name; False where there is none. One revoked before keeps its time."""
    ApiKey.objects.filter(name=name, revoked=None).update(revoked=timezone.now())
    return ApiKey.objects.filter(name=name).exists()


def kept() -> KeptKeys:
    """Return what is known of all keys."""
    rows = list(ApiKey.objects.values_list("hash", "revoked"))
    return KeptKeys(tuple(stored for stored, revoked in rows if revoked is None), bool(rows))
