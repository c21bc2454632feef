"""What operators keep in the database, and the state that the daemons leave there for them to see.

Configuration is written by operators, ``MappingRevision`` by publishing, state by the daemons.
"""

from .configuration import ApiKey, ColumnMapping, MappingRevision, Publication, TableMapping
from .state import Lease, LoginTry, ManagedContent, ManagedReading, ReplicaMinute, RowError, Watermark

__all__ = [
    "ApiKey",
    "ColumnMapping",
    "Lease",
    "LoginTry",
    "ManagedContent",
    "ManagedReading",
    "MappingRevision",
    "Publication",
    "ReplicaMinute",
    "RowError",
    "TableMapping",
    "Watermark",
]
