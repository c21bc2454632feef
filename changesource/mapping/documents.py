"""Documents of which the driver cannot decode a part."""

from __future__ import annotations


class Salvaged(dict[str, object]):
    """A document without the fields, at its top, whose BSON cannot be decoded; ``unreadable`` names those."""

    def __init__(self, fields: dict[str, object], unreadable: tuple[str, ...]) -> None:
        super().__init__(fields)
        self.unreadable = unreadable
