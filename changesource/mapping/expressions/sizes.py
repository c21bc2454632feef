"""How large a value is when it is written out.

What expressions make refers to parts of the document instead of copying them, so a value of a few objects may stand for
more than fits any memory: a list of twice the same list, of twice the same list, and so on.
"""

from __future__ import annotations

from changesource.mapping.budget import charge, charge_text
from changesource.mapping.expressions.nodes import EvaluationError
from changesource.mapping.paths import as_document
from changesource.mapping.values import MAX_DEPTH

# The steps of looking at one, and of writing it.
_MEMBER = 12


def checked_size(value: object) -> object:
    """``value``, once its size is counted; ``BudgetSpent`` where it is too large, and an error where it is too deep."""
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > MAX_DEPTH + 1:
            raise EvaluationError(f"the value is nested deeper than {MAX_DEPTH} levels")
        inner: list[object] = []
        for one in level:
            kind = type(one)
            if kind is list:
                charge(_MEMBER * len(one))  # type: ignore[arg-type]
                inner += one  # type: ignore[arg-type]
            elif kind is str or kind is bytes:
                charge_text(len(one))  # type: ignore[arg-type]
            else:
                fields = as_document(one)
                if fields:
                    charge(_MEMBER * len(fields))
                    inner += fields.values()
        level = inner
        depth += 1
    return value
