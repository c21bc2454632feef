"""What somebody must be allowed, in Django's own permissions, for what is more than adding, changing or deleting."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

VIEW = "changesource.view_tablemapping"
EDIT = "changesource.change_tablemapping"
# Each publishing adds a revision.
PUBLISH = "changesource.add_mappingrevision"
# What an import or a restored revision may do to the draft.
REWRITE = (
    EDIT,
    "changesource.add_tablemapping",
    "changesource.add_publication",
    "changesource.change_publication",
)
RESTORE = (*REWRITE, "changesource.delete_publication")


def may(request: HttpRequest, *permissions: str) -> bool:
    """Whether the user has all of these permissions."""
    return request.user.has_perms(permissions)


def require(request: HttpRequest, *permissions: str) -> None:
    """Raise ``PermissionDenied`` unless the user has all of these permissions."""
    if not may(request, *permissions):
        raise PermissionDenied
