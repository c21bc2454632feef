"""What tests of the admin share: people with roles, something to act on, and what they did to it."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.test import Client

from changesource.mapping.formats import read_specification
from changesource.models import MappingRevision, RowError
from changesource.services.configuration import import_specification
from changesource.store import api_keys, watermarks
from changesource.store.mappings import save

ADMIN = "/admin/changesource"


def person(role: str, **more: Any) -> User:
    """Somebody of the staff who has this role."""
    user = User.objects.create_user(role, is_staff=True, **more)
    user.groups.add(Group.objects.get(name=role))
    return user


def logged_in(role: str) -> Client:
    """The browser of somebody of this role."""
    client = Client()
    client.force_login(person(role))
    return client


def mapped(name: str, **parts: Any) -> dict[str, Any]:
    """A table's mapping as a file has it."""
    columns = {"id": {"type": "string", "path": "_id"}, "text": {"type": "string", "path": "text", "optional": True}}
    return {"collection": f"{name}s", "columns": columns, "primaryKey": ["id"], "idType": "string", **parts}


def file(data: object, name: str = "mappings.json") -> SimpleUploadedFile:
    """An upload of JSON."""
    return SimpleUploadedFile(name, data if isinstance(data, bytes) else json.dumps(data).encode())


def scene() -> None:
    """Two revisions of two tables and a publication, an edit that is not published, a replica, a row error, a key."""
    tables = {"message": mapped("message"), "room": mapped("room")}
    import_specification(read_specification({"tables": tables, "publications": {"chat": ["message"]}}), "somebody")
    tables["message"]["filter"] = {"deleted": False}
    import_specification(read_specification({"tables": tables}), "somebody", "No deleted ones")
    save(read_specification({"room": mapped("room", description="Not published yet")}), managed_by="")
    watermarks.note_progress("zero", 0, watermarks.Progress("disconnected"))
    # Of a table that is gone: a retry needs no MongoDB to take it off the list.
    RowError.objects.create(table="gone", document_id="1", reason="does not fit")
    api_keys.create("production")


def revisions() -> list[int]:
    """The numbers of all revisions, the oldest first."""
    return list(MappingRevision.objects.order_by("number").values_list("number", flat=True))


def chosen(client: Client, model: str, action: str, *rows: Model) -> str:
    """Choose an action of a list for these rows, confirm it where it asks, and return the page that follows."""
    app = "auth" if model in ("user", "group") else "changesource"
    return confirmed(client, f"/admin/{app}/{model}/", {"action": action, "_selected_action": [row.pk for row in rows]})


def confirmed(client: Client, url: str, data: dict[str, Any]) -> str:
    """Send this, answer the question where one is asked, and return the page that follows."""
    answer = client.post(url, data, follow=True)
    if "confirmed" not in (answer.context or {}):
        return answer.content.decode()
    hidden: dict[str, list[Any]] = {}
    for name, value in answer.context.get("hidden", ()):
        hidden.setdefault(name, []).append(value)
    return client.post(url, {**hidden, answer.context["confirmed"]: "yes"}, follow=True).content.decode()


def state() -> dict[str, list[dict[str, Any]]]:
    """All that is kept of ours, and of users and groups."""
    models = [*apps.get_app_config("changesource").get_models(), User, Group]
    left_out = {"last_login", "password"}
    return {
        model.__name__: [
            {name: value for name, value in row.items() if name not in left_out}
            for row in model._default_manager.order_by("pk").values()
        ]
        for model in models
    }
