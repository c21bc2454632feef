"""The privileges that a command needs, and the one that grants them; ``docs/privileges.md`` lists them all."""

from __future__ import annotations

import json
from typing import NamedTuple

ROLE = "zerosource"
DOCUMENT = "docs/privileges.md"


class Need(NamedTuple):
    """What may be done with a collection, or where that is empty, with every collection of the database."""

    actions: tuple[str, ...]
    database: str
    collection: str = ""

    def __str__(self) -> str:
        """The need as a message names it: ``find on app.messages``."""
        place = f"{self.database}.{self.collection}" if self.collection else f"the database {self.database}"
        return f"{' and '.join(self.actions)} on {place}"

    @property
    def grant(self) -> str:
        """The command of mongosh that grants it to the documented role."""
        database, collection, role = (json.dumps(name) for name in (self.database, self.collection, ROLE))
        actions = json.dumps(self.actions)
        resource = f"{{db: {database}, collection: {collection}}}"
        privilege = f"{{resource: {resource}, actions: {actions}}}"
        return f"db.getSiblingDB({database}).grantPrivilegesToRole({role}, [{privilege}])"
