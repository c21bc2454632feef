"""Fingerprints: short hashes of all that decides what is sent, so that a replica notices when that changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from changesource.mapping.spec import TableSpec

TRANSFORM_VERSION = 1
"""Raised whenever the same document and mapping would be sent in another way than before."""

DEFAULT_ROW_BYTES = 32 * 1024 * 1024
_FINGERPRINT_BYTES = 6
_REPLICA_BYTES = 5


def table_fingerprint(database: str, spec: TableSpec, max_row_bytes: int = DEFAULT_ROW_BYTES) -> str:
    """12 hex digits over everything that decides what is sent for the table; larger rows are left out.

    The order of columns decides nothing, since rows carry names; the order within a filter may (an embedded
    document is equal only in its order), so it counts.
    """
    decisive = [
        TRANSFORM_VERSION,
        database,
        spec.name,
        spec.collection,
        sorted([c.name, c.type, c.source, c.optional, c.key_type] for c in spec.columns),
        spec.primary_key,
        spec.filter,
        spec.pipeline,
        spec.id_type,
        spec.error_policy,
        spec.large_integers,
    ]
    if max_row_bytes != DEFAULT_ROW_BYTES:
        decisive.append(max_row_bytes)
    text = json.dumps(decisive, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=_FINGERPRINT_BYTES).hexdigest()


def replica_fingerprint(fingerprints: Iterable[str]) -> int:
    """One number below 2^40 for the fingerprints of a replica's tables, whatever their order."""
    text = ",".join(sorted(set(fingerprints)))
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=_REPLICA_BYTES).digest(), "big")
