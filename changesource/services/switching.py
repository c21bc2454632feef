"""Tables switched on and off in the draft."""

from __future__ import annotations

from collections.abc import Iterable

from changesource.conf import settings
from changesource.exceptions import MappingError
from changesource.mapping.rows import compile_table
from changesource.store import mappings as store


def switch_tables(names: Iterable[str], *, enabled: bool) -> list[str]:
    """Enable or disable tables in the draft, all or none; return those that were not so already.

    Raises ``MappingError`` for a table that does not exist or is managed, and for one to be enabled that is wrong.
    """
    with store.alone():
        basis = store.basis()
        tables = {table.name: table for table in basis.draft.tables}
        changed = []
        for name in sorted(set(names)):
            table = tables.get(name)
            if table is None:
                raise MappingError(f"tables.{name}", "there is no such table")
            if name in basis.managed_tables and settings().has_managed_source:
                raise MappingError(f"tables.{name}", "is managed, and switched where it comes from")
            if enabled:
                compile_table(table)
            if table.enabled != enabled:
                changed.append(name)
        store.switch(changed, enabled=enabled)
    return changed
