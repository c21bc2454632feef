"""How large a value is when it is written out.

What expressions make refers to parts of the document instead of copying them, so a value of a few objects may stand for
more than fits any memory: a list of twice the same list, of twice the same list, and so on.
"""

from __future__ import annotations

from collections.abc import Collection

from bson.dbref import DBRef

from changesource.mapping.budget import charge, charge_text
from changesource.mapping.expressions.nodes import EvaluationError
from changesource.mapping.values import MAX_DEPTH

# The steps of looking at one, and of writing it.
_MEMBER = 12
# So many are counted together with those of others.
_FEW = 16


def checked_size(value: object) -> object:
    """``value``, once its size is counted; ``BudgetSpent`` where it is too large, and an error where it is too deep."""
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > MAX_DEPTH + 1:
            raise EvaluationError(f"the value is nested deeper than {MAX_DEPTH} levels")
        inner: list[object] = []
        small = 0
        for one in level:
            members: Collection[object] = ()
            if isinstance(one, dict):
                members = one.values()
            elif isinstance(one, list):
                members = one
            elif isinstance(one, str | bytes):
                charge_text(len(one))
            elif isinstance(one, DBRef):
                members = one.as_doc().values()
            if len(members) > _FEW:
                charge(_MEMBER * len(members))
            else:
                small += len(members)
            inner.extend(members)
        charge(_MEMBER * small)
        level = inner
        depth += 1
    return value
