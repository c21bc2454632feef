"""The admin's forms, pages and parameters: what is posted is taken or refused in words, and no page fails."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from bson import decode, encode
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from changesource import conf
from changesource.admin import mapping_editor
from changesource.exceptions import SourceUnavailable
from changesource.models import TableMapping
from changesource.sources.mongodb.decoding import CODEC_OPTIONS
from tests.fuzz.drawing import TEXTS, bson_document, encoded, json_value, mutated_bytes, text
from tests.fuzz.files import WHOLE, wild_table
from tests.fuzz.targets import hangs, raises_key_error, within
from tests.harness.app import MAPPINGS
from tests.integration.test_admin import ADD, LIST, form

pytestmark = pytest.mark.django_db

EDITOR = f"{LIST}editor/"
QUICK, FULL = 150, 4000
LIMIT_SECONDS = 10.0  # of the processor, for one request
OK = {200, 301, 302, 400, 403, 404, 405, 426}
PAGES = (
    "/admin/live/", "/admin/login/", LIST, ADD, f"{LIST}1/change/", f"{LIST}export/",
    f"{LIST}schema/json/", f"{LIST}schema/x/", f"{LIST}import/", f"{LIST}load/", f"{LIST}publish/", f"{LIST}1/checks/",
    f"{EDITOR}collections/", f"{EDITOR}draft/", "/admin/changesource/rowerror/", "/admin/changesource/watermark/",
    "/admin/changesource/mappingrevision/", "/admin/changesource/publication/", "/admin/changesource/apikey/",
    "/admin/auth/user/", "/admin/r/1/1/", "/changes/v0/stream", "/healthz", "/",
)  # fmt: skip
PARAMETERS = (
    "q",
    "o",
    "p",
    "e",
    "id",
    "next",
    "_popup",
    "state__exact",
    "table__exact",
    "all",
    "name__in",
    "x",
)
NUMBERS = ("1", "0", "-1", "9" * 30, "9" * 5000, "1.5", "٣", "²", "nan", "0x1", "1,2", "")


@pytest.fixture(autouse=True)
def mapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One table, and a MongoDB whose documents are of every kind."""
    monkeypatch.setenv("MONGODB_URI", "mongodb://127.0.0.1:1/")
    conf.settings.cache_clear()
    for module in ("preview", "inference", "findings", "consequences", "retrying"):
        monkeypatch.setattr(f"changesource.services.{module}.looking", looking)
    monkeypatch.setattr(mapping_editor, "looking", looking)
    for module in ("services.preview", "services.findings", "admin.files", "admin.publishing"):
        monkeypatch.setattr(f"changesource.{module}.inspector", lambda **_: None)
    TableMapping.objects.create(pk=1, name="kept", collection="c", primary_key=["id"])
    yield
    conf.settings.cache_clear()


class _Look:
    """What is seen of the collections."""

    def __init__(self) -> None:
        self._chance = random.Random(1)

    def collections(self) -> dict[str, object]:
        """Their names, which MongoDB bounds in nothing but U+0000."""
        return {name: {} for name in TEXTS if "\0" not in name and not name[:1] > "\ud7ff"}

    def sample(self, collection: str, size: int, match: object = None) -> list[dict[str, Any]]:
        """Documents as the driver gives them."""
        return [decode(encoded(bson_document(self._chance)), CODEC_OPTIONS) for _ in range(size % 10)]

    def by_id(self, collection: str, document_ids: Sequence[object]) -> list[dict[str, Any]]:
        """As many as were asked for; MongoDB would encode the ids."""
        encode({"ids": list(document_ids)})
        return self.sample(collection, len(document_ids))

    def switch_images_on(self, collection: str) -> None:
        """Refuse."""
        raise SourceUnavailable()

    def __getattr__(self, name: str) -> Any:
        raise SourceUnavailable(f"{name} is not answered.")


@contextmanager
def looking(*_: object) -> Iterator[_Look]:
    """Stand in for a look at MongoDB."""
    yield _Look()


def _posted(chance: random.Random) -> dict[str, Any]:
    """A form of the editor with parts that no browser sends."""
    table = wild_table(chance) if chance.random() < 0.6 else MAPPINGS["tables"]["item"]
    columns = [
        {
            "name": name,
            **{
                key: json.dumps(value) if key == "expression" else value
                for key, value in column.items()
                if key != "optional"
            },
            **({"optional": "on"} if column.get("optional") else {}),
        }
        for name, column in table["columns"].items()
    ]
    data = form(columns, filter=json.dumps(table.get("filter", {})), pipeline=json.dumps(table.get("pipeline", [])))
    for name in chance.sample(sorted(data), chance.choice((0, 1, 1, 2))):
        data[name] = chance.choice((text(chance), chance.choice(NUMBERS), json.dumps(json_value(chance)), "[" * 5000))
    if chance.random() < 0.1:
        data.pop(chance.choice(sorted(data)))
    return {name: str(value).encode("utf-8", "replace").decode() for name, value in data.items()}


def _import(chance: random.Random) -> dict[str, Any]:
    raw = mutated_bytes(json.dumps(chance.choice(WHOLE)).encode(), chance)
    plain = text(chance).encode("utf-8", "replace").decode()
    if chance.random() < 0.5:
        return {"mappings": SimpleUploadedFile(plain.replace("\0", "") or "x", raw)}
    said = raw.decode("utf-8", "replace")
    return {
        "confirmed": "yes",
        "mappings_name": plain,
        "mappings_text": said,
        "seen": plain,
        "schema_name": "",
        "schema_text": "",
    }


def request(client: Client, chance: random.Random) -> Any:  # noqa: PLR0911 -- one for each kind
    """Send one request; an exception in a view is raised here."""
    where = (
        f"?id={quote(chance.choice((text(chance).encode('utf-8', 'replace').decode(), *NUMBERS)))}"
        if chance.random() < 0.4
        else ""
    )
    match chance.randrange(8):
        case 0 | 1:
            return client.post(f"{EDITOR}draft/{where}", _posted(chance))
        case 2:
            return client.post(f"{EDITOR}infer/{where}", _posted(chance))
        case 3:
            asked = {"document_id": text(chance).encode("utf-8", "replace").decode()}
            return client.post(f"{EDITOR}preview/{where}", {**_posted(chance), **asked})
        case 4:
            return client.post(chance.choice((ADD, f"{LIST}1/change/")), _posted(chance))
        case 5:
            return client.post(f"{LIST}import/", _import(chance))
        case 6:
            return client.post(chance.choice(PAGES), _posted(chance))
        case _:
            name, value = (
                chance.choice(PARAMETERS),
                chance.choice((text(chance).encode("utf-8", "replace").decode(), *NUMBERS)),
            )
            page = chance.choice(PAGES)
            if chance.random() < 0.3:
                page = mutated_bytes(page.encode(), chance).decode("latin1")
                page = quote(page if page.startswith("/") else f"/{page}")
            return client.get(f"{page}?{name}={quote(value)}")


def checked(client: Client, inputs: int, *, seconds: float = LIMIT_SECONDS) -> int:
    """Send so many requests, always the same ones; each is answered in words."""
    count = 0
    for number in range(inputs):
        with within(seconds):
            answer = request(client, random.Random(number))
        assert answer.status_code in OK, (number, answer.status_code)
        assert b"Traceback" not in answer.getvalue(), number
        count += 1
    return count


def test_some(admin_client: Client) -> None:
    assert checked(admin_client, QUICK) == QUICK


@pytest.mark.slow
def test_many(admin_client: Client) -> None:
    assert checked(admin_client, FULL) == FULL


CORPUS: dict[str, Callable[[Client], Any]] = {
    "an id of thousands of digits": lambda client: client.post(f"{EDITOR}draft/?id={'9' * 5000}", {}),
    "an id beyond 64 bits": lambda client: client.post(f"{EDITOR}draft/?id={'9' * 30}", {}),
    "forms without end": lambda client: client.post(f"{EDITOR}draft/", form([], **{"columns-TOTAL_FORMS": "9" * 9})),
    "no number of forms": lambda client: client.post(f"{EDITOR}draft/", form([], **{"columns-TOTAL_FORMS": "x"})),
    "a deep filter": lambda client: client.post(f"{EDITOR}draft/", form([], filter="[" * 100_000)),
    "half a character in JSON": lambda client: client.post(ADD, form([], pipeline='[{"\\ud800": 1}]')),
    "deep JSON that comes back": lambda client: client.post(ADD, form([], filter="[" * 5000)),
    "a filter that is a number": lambda client: client.post(f"{EDITOR}infer/", form([], filter="5", pipeline="true")),
    "U+0000 in a name": lambda client: client.post(f"{EDITOR}draft/", form([], name="a\0b", collection="\0")),
}


@pytest.mark.parametrize("odd", CORPUS)
def test_the_corpus(admin_client: Client, odd: str) -> None:
    with within(LIMIT_SECONDS):
        answer = CORPUS[odd](admin_client)
    assert answer.status_code in OK


@pytest.mark.parametrize("fault", [raises_key_error, hangs])
def test_a_planted_fault_is_found(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr("changesource.fields.parse", fault)
    with pytest.raises((KeyError, AssertionError)):
        checked(admin_client, QUICK, seconds=2.0)
