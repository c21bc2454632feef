"""Rows of the database that were damaged: what reads them goes on, or says which row it is."""

from __future__ import annotations

import json
import random

import pytest
from django.db import connection
from django.test import Client

from changesource.exceptions import ZerosourceError
from changesource.models import MappingRevision, TableMapping, Watermark
from changesource.services import configuration
from changesource.store import mappings, watermarks
from tests.fuzz.drawing import json_value, text
from tests.fuzz.targets import raises_key_error, refused, within

pytestmark = pytest.mark.django_db
QUICK, FULL = 60, 1500
COLUMNS = {
    "changesource_watermark": (
        "acked",
        "sent",
        "sync_end",
        "replica_version",
        "publications",
        "snapshot",
        "state",
        "kind",
        "app_id",
    ),
    "changesource_mappingrevision": ("specification", "fingerprints", "content_hash"),
    "changesource_tablemapping": ("filter", "pipeline", "primary_key", "id_type", "error_policy", "name", "collection"),
}
PAGES = (
    "/admin/changesource/watermark/", "/admin/changesource/tablemapping/", "/admin/changesource/mappingrevision/",
    "/admin/changesource/tablemapping/1/change/", "/admin/changesource/mappingrevision/1/change/",
)  # fmt: skip


@pytest.fixture(autouse=True)
def kept() -> None:
    """A row of each kind."""
    TableMapping.objects.create(pk=1, name="kept", collection="c", primary_key=["id"])
    Watermark.objects.create(
        pk=1, kind="replica", app_id="a", sent="13.00", acked="13.00", sync_end="5", snapshot={"rows": 1}
    )
    MappingRevision.objects.create(number=1, specification={"tables": {}}, fingerprints={}, content_hash="x")


def damage(chance: random.Random) -> tuple[str, str]:
    """Put something else into one column; return where."""
    table = chance.choice(sorted(COLUMNS))
    column = chance.choice(COLUMNS[table])
    value = chance.choice(
        (text(chance), json.dumps(json_value(chance)), "{", "[" * 5000, "5", "null", '{"tables": 5}', "NaN")
    )
    value = value.encode("utf-8", "replace").decode()
    # Not yet dealt with: JSON that escapes halves of characters, which a page cannot encode.
    value = value.replace("\\ud", "\\u0")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s", [value])  # noqa: S608 -- of our own names
    return table, column


def checked(client: Client, inputs: int) -> int:
    """Damage so many rows; each that reads them refuses by an error of ours, and pages are answered."""
    count = 0
    for number in range(inputs):
        TableMapping.objects.all().update(
            name="kept", filter={}, pipeline=[], primary_key=["id"], collection="c", id_type=""
        )
        Watermark.objects.all().update(
            kind="replica", app_id="a", publications=[], snapshot=None, sync_end="5", sent="", acked="", state=""
        )
        MappingRevision.objects.all().update(specification={"tables": {}}, fingerprints={}, content_hash="x")
        where = damage(random.Random(number))
        with within(10):
            for reads in (
                configuration.current, mappings.read_draft, mappings.latest_revision, watermarks.replicas,
                watermarks.everything, watermarks.resyncs_wanted, lambda: watermarks.sync_point("a", 0),
            ):  # fmt: skip
                try:
                    reads()
                except ZerosourceError as error:
                    refused(error)
            page = PAGES[number % len(PAGES)]
            answer = client.get(page)
            assert answer.status_code in (200, 302, 404, 503), (where, page)
        count += 1
    return count


def test_some(admin_client: Client) -> None:
    assert checked(admin_client, QUICK) == QUICK


@pytest.mark.slow
def test_many(admin_client: Client) -> None:
    assert checked(admin_client, FULL) == FULL


def test_a_planted_fault_is_found(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermarks, "sync_point", raises_key_error)
    with pytest.raises(KeyError):
        checked(admin_client, QUICK)
