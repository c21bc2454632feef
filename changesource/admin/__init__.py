"""The admin: configuration is edited here, state is only shown."""

from __future__ import annotations

from .mappings import PublicationAdmin, TableMappingAdmin
from .state import ApiKeyAdmin, StateAdmin

__all__ = ["ApiKeyAdmin", "PublicationAdmin", "StateAdmin", "TableMappingAdmin"]
