"""The groups by which operators get their rights: viewer, operator and admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.apps import apps as all_apps
from django.apps.registry import Apps

if TYPE_CHECKING:
    from django.contrib.auth.models import Permission

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
CONFIGURATION = ("tablemapping", "columnmapping", "publication")
# What an operator may do beside looking at everything of ours. Publishing adds a revision; forgetting a replica
# deletes its watermark; asking one to sync anew changes it.
OPERATORS: Final = frozenset(
    {f"{action}_{model}" for model in CONFIGURATION for action in ("add", "change", "delete")}
    | {"add_mappingrevision", "change_watermark", "delete_watermark", "change_rowerror"}
)


def make_roles(using: str = "default", apps: Apps = all_apps, **_: Any) -> None:
    """Make the groups where they are missing, and give them exactly their rights: after each migration.

    Not in a migration itself: Django makes the permissions only after all of them. ``apps`` are those that are
    migrated.
    """
    try:
        groups, known = (apps.get_model("auth", name)._default_manager.using(using) for name in ("Group", "Permission"))
    except LookupError:
        return  # this app was migrated alone
    permissions = list(
        known.filter(content_type__app_label__in=("changesource", "auth", "admin")).select_related("content_type")
    )
    for name, may in ((VIEWER, _viewer), (OPERATOR, _operator), (ADMIN, _admin)):
        group, _made = groups.get_or_create(name=name)
        wanted = {permission for permission in permissions if may(permission)}
        # Written only where it differs: each start of a process comes by here.
        if set(group.permissions.all()) != wanted:
            group.permissions.set(wanted)


def _viewer(permission: Permission) -> bool:
    return permission.content_type.app_label == "changesource" and permission.codename.startswith("view_")


def _operator(permission: Permission) -> bool:
    ours = permission.content_type.app_label == "changesource"
    return _viewer(permission) or (ours and permission.codename in OPERATORS)


def _admin(permission: Permission) -> bool:
    if permission.content_type.app_label == "admin":
        return permission.codename == "view_logentry"
    return True
