"""Names for tables and columns, made of those of collections and fields."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from changesource.exceptions import MappingError
from changesource.mapping.checks import MAX_NAME_LENGTH, check_name

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_ROOM = 4  # characters that may be added to tell two names apart


def fitting_name(parts: Sequence[str], taken: Collection[str] = ()) -> str:
    """A name that Zero takes, in camel case from ``parts``, such as ``addressCity`` of ``address`` and ``city``.

    It differs from each name in ``taken`` by more than upper and lower case.
    """
    joined = parts[0] + "".join(part[:1].upper() + part[1:] for part in parts[1:])
    plain = "".join(one for one in unicodedata.normalize("NFKD", joined) if not unicodedata.combining(one))
    name = _UNFIT.sub("_", plain)[: MAX_NAME_LENGTH - _ROOM]
    if not _is_name(name):
        name = f"f_{name}"
    used = {one.lower() for one in taken}
    found, number = name, 1
    while found.lower() in used:
        number += 1
        found = f"{name[: MAX_NAME_LENGTH - len(str(number)) - 1]}_{number}"
    return found


def _is_name(name: str) -> bool:
    try:
        check_name(name, "", "a name")
    except MappingError:
        return False
    return True
