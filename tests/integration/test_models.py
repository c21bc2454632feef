"""Models: what they refuse, what their fields keep, and that migrations follow them."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from changesource.models import ColumnMapping, RowError, TableMapping, Watermark

pytestmark = pytest.mark.django_db


def make_table(**parts: object) -> TableMapping:
    table = TableMapping.objects.create(**{"name": "message", "collection": "messages", "primary_key": ["id"], **parts})
    ColumnMapping.objects.create(table=table, name="id", type="string", path="_id")
    return table


def test_migrations_follow_the_models() -> None:
    call_command("makemigrations", check=True, dry_run=True, stdout=StringIO())


def test_every_field_says_what_it_is() -> None:
    for model in (TableMapping, ColumnMapping, Watermark, RowError):
        for field in model._meta.get_fields():
            if hasattr(field, "help_text") and field.name not in ("id", "table"):
                assert field.help_text, f"{model.__name__}.{field.name}"


def test_sqlite_is_set_up_for_several_writers() -> None:
    if connection.vendor == "sqlite":
        assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
        assert "journal_mode=WAL" in connection.settings_dict["OPTIONS"]["init_command"]


def test_json_comes_back_as_it_went_in() -> None:
    value = {"b": {"z": 1.0, "a": 1e22}, "a": "\ud800 \0", "n": 10**30}
    table = make_table(filter=value)
    table.refresh_from_db()
    assert json.dumps(table.filter) == json.dumps(value)


@pytest.mark.parametrize(
    ("parts", "field", "words"),
    [
        ({"pipeline": [{"$group": {}}]}, "pipeline", "the stage $group is not supported"),
        ({"error_policy": "ignore"}, "error_policy", "is not supported"),
        ({"large_integers": "keep"}, "large_integers", "is not supported"),
        ({"primary_key": ["id", "other"]}, "primary_key", "there is no column other"),
        ({"filter": {"a": {"$near": "x"}}}, "filter", "$near is not supported"),
        ({"filter": []}, "filter", "must be an object"),
        ({"name": "1 2"}, "name", "a table's name"),
        ({"collection": "system.x"}, "collection", "system collections cannot be mapped"),
        ({"id_type": "oid"}, "id_type", "is not supported"),
    ],
)
def test_clean_refuses_what_the_compiler_refuses(parts: dict[str, object], field: str, words: str) -> None:
    table = make_table(**parts)
    with pytest.raises(ValidationError) as caught:
        table.full_clean()
    shown = caught.value.message_dict
    assert words in " ".join(shown.get(field, shown.get("__all__", []))), shown


def test_clean_takes_a_sound_table() -> None:
    make_table(filter={"a": {"$in": [1, {"$oid": "64b7f0a1c2d3e4f5a6b7c8d9"}]}}).full_clean()


def test_a_replica_has_one_watermark() -> None:
    Watermark.objects.create(kind="replica", app_id="a", shard_num=0)
    with transaction.atomic(), pytest.raises(IntegrityError):
        Watermark.objects.create(kind="replica", app_id="a", shard_num=0)
    Watermark.objects.create(kind="watcher", app_id="a", shard_num=0)
