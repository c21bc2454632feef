"""Pages for programs: the status, the mappings and the schema, and their description held against real answers."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from openapi_spec_validator import validate
from pymongo.database import Database

from changesource import VERSION
from changesource.mapping.formats import read_specification, write_specification
from changesource.services.advice import Code
from devtools.processes import wait_until
from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS, fill
from tests.harness.deployment import Server
from tests.harness.documentation import ROOT, table
from tests.harness.reader import Reader, following

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "a-key-of-sixteen-characters-or-more"
SECRETS = (KEY, "query-t0ken", "zs-passw0rd")
DESCRIPTION = json.loads((ROOT / "changesource" / "openapi.json").read_text())
PUBLISHED = ("/metadata/tables", "/metadata/schemas")


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def data(self) -> Any:
        return json.loads(self.body)


def asked(server: Server, path: str, method: str = "GET", key: str = KEY, **headers: str) -> Answer:
    """Ask as a script does, with the key as HTTP Basic's password; names of headers have ``_`` for ``-``."""
    login = {"Authorization": f"Basic {b64encode(f'any:{key}'.encode()).decode()}"} if key else {}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(server.url + path, method=method, headers=login | given)  # noqa: S310 - our own server
    try:
        with urlopen(request, timeout=20) as answer:  # noqa: S310
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
    except HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read().decode())


@cache
def validator_of(path: str, status: str, kind: str) -> Draft202012Validator:
    """What an answer is held against; ``KeyError`` where it is not described."""
    answer = DESCRIPTION["paths"][path]["get"]["responses"][status]
    if "$ref" in answer:
        answer = DESCRIPTION["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = answer["content"][kind]["schema"] if "content" in answer else {"const": ""}
    whole = {**schema, "components": DESCRIPTION["components"]}
    return Draft202012Validator(whole, format_checker=FormatChecker())


def is_as_described(answer: Answer, path: str) -> None:
    """Fail unless the answer is one that the description knows, headers included."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    content = answer.data if kind == "application/json" else answer.body
    validator_of(path, str(answer.status), kind).validate(content)


def test_the_description_is_valid_and_of_all_pages() -> None:
    validate(DESCRIPTION)
    described = set(DESCRIPTION["paths"])
    urls = (ROOT / "changesource" / "urls.py").read_text()
    pages = {f"/{page}" for page in re.findall(r'path\("([^"]+)"', urls)} - {"/changes/v0/stream"}
    assert described == pages | {"/healthz", "/readyz"}
    codes = DESCRIPTION["components"]["schemas"]["Attention"]["properties"]["code"]["enum"]
    assert codes == list(get_args(Code))
    rows = table(ROOT / "docs" / "metadata.md", "| Code | Severity | Means |")
    assert [row[0].strip("`") for row in rows] == codes


def test_the_description_refuses_what_is_otherwise() -> None:
    """So that what follows can fail."""
    validator = validator_of("/metadata/status", "200", "application/json")
    for wrong in ({}, {"at": "now"}):
        with pytest.raises(ValidationError):
            validator.validate(wrong)
    with pytest.raises(KeyError):
        validator_of("/metadata/status", "404", "text/plain")
    problem = validator_of("/metadata/tables", "404", "text/plain")
    with pytest.raises(ValidationError):
        problem.validate("<html>")


def test_every_answer_is_as_described(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    fill(mongo, 5, others=5)
    place = deployment(DEBUG="0", CHANGE_SOURCE_API_KEYS=KEY)
    empty = place.server()
    for path in (*PUBLISHED, "/readyz"):
        answer = asked(empty, path)
        assert answer.status == 503
        is_as_described(answer, path)
    found = asked(empty, "/metadata/status")
    is_as_described(found, "/metadata/status")
    assert "nothing-published" in [one["code"] for one in found.data["attention"]]
    empty.stop()
    place.configure(mappings=MAPPINGS)
    server = place.server()
    wait_until(lambda: asked(server, "/metadata/status").data["watcher"], "the watcher", 20)
    with following(Reader(f"{server.stream_url}?apiKey={KEY}", "shop", ("people",))):
        wait_until(lambda: states_of(server) == ["streaming"], "the replica", 30)
        for path in DESCRIPTION["paths"]:
            answer = asked(server, path)
            assert answer.status == 200, path
            is_as_described(answer, path)
            if not path.endswith("z"):
                for key in ("", "wrong"):
                    refused = asked(server, path, key=key)
                    assert refused.status == 401, path
                    is_as_described(refused, path)
                assert "no-store" in answer.headers["Cache-Control"]
                headers = asked(server, path, "HEAD")
                assert (headers.status, headers.body) == (200, "")
        (replica,) = asked(server, "/metadata/status").data["replicas"]
    assert (replica["app_id"], replica["publications"]) == ("shop", ["people"])
    assert replica["sent"]["watermark"] >= replica["acked"]["watermark"]
    assert replica["snapshot"]["rows"] == replica["snapshot"]["documents"] == 10
    served_as_described(server)


def states_of(server: Server) -> list[str]:
    return [one["state"] for one in asked(server, "/metadata/status").data["replicas"]]


def served_as_described(server: Server) -> None:
    """Conditional requests, publications, and what the pages say of what is published."""
    status, description = (asked(server, f"/metadata/{name}").data for name in ("status", "openapi.json"))
    assert status["version"] == description["info"]["version"] == VERSION
    assert status["mappings"]["tables"] == sorted(MAPPINGS["tables"])
    assert status["mappings"]["source"]["origin"].endswith("table_mappings_file.json")
    specification = read_specification(MAPPINGS)
    assert asked(server, "/metadata/tables").data == {**write_specification(specification), "revision": 1}
    part = asked(server, "/metadata/tables?publication=people").data
    assert set(part["tables"]) == {"note", "user"}
    assert part["publications"] == {"people": ["note", "user"]}
    read_specification(part)
    tags = set()
    for path in PUBLISHED:
        for query in ("", "?publication=people"):
            tag = asked(server, path + query).headers["ETag"]
            assert re.fullmatch('"[0-9a-f]{32}"', tag)
            tags.add(tag)
            for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
                for method in ("GET", "HEAD"):
                    same = asked(server, path + query, method, If_None_Match=given)
                    assert (same.status, same.body, same.headers["ETag"]) == (304, "", tag)
            assert asked(server, path + query, If_None_Match='"other"').status == 200
            assert asked(server, path + query, "HEAD").headers["ETag"] == tag
            assert asked(server, path + query, key="", If_None_Match=tag).status == 401
        unknown = asked(server, f"{path}?publication=none")
        assert unknown.status == 404
        is_as_described(unknown, path)
    assert len(tags) == 4


@contextmanager
def stopped(server: Server, mongo: Database[Any]) -> Iterator[None]:
    """A replica that is stopped at a document, of whose ``_id`` the admin says something."""
    with following(Reader(f"{server.stream_url}?apiKey={KEY}", "stopper")):
        wait_until(lambda: "streaming" in states_of(server), "the replica", 30)
        mongo["items"].insert_one({"_id": "id-of-a-d0cument", "name": None})
        wait_until(lambda: "stopped" in states_of(server), "the stop", 30)
        yield


def test_the_status_has_no_documents_and_no_secrets(deployment: DeploymentFactory, mongo: Database[Any]) -> None:
    """A replica is stopped, rows are in error, and the mappings cannot be read: the words of these are elsewhere."""
    fill(mongo, 5, others=5)
    mappings = deepcopy(MAPPINGS)
    mappings["tables"]["item"]["errorPolicy"] = "stop"
    place = deployment(RELOAD_SECONDS="1", CHANGE_SOURCE_API_KEYS=KEY, OPEN_METRICS="on")
    place.configure(mappings=mappings)
    server = place.server()
    server.stop()
    # By the database that knows the mappings, with a URL at which nobody is.
    place.environment["TABLE_MAPPINGS_FILE"] = ""
    url = "http://any:zs-passw0rd@127.0.0.1:1/m?token=query-t0ken"
    server = place.server(TABLE_MAPPINGS_URL=url)
    mongo["notes"].insert_one({"_id": "an0ther-d0cument"})
    with stopped(server, mongo):
        wait_until(lambda: asked(server, "/metadata/status").data["row_errors"], "the row error", 20)
        answer = asked(server, "/metadata/status")
    is_as_described(answer, "/metadata/status")
    found = {one["code"]: one["names"] for one in answer.data["attention"]}
    assert found["replica-stopped"] == ["stopper/0"]
    assert found["row-errors"] == ["item", "note"]
    assert found["mappings-failed"] == []
    assert answer.data["mappings"]["source"]["origin"] == "http://127.0.0.1:1/m"
    assert answer.data["severity"] == "error"
    assert "id-of-a-d0cument" in server.log_text()
    for word in (*SECRETS, "d0cument"):
        assert word not in answer.body


def test_without_mongodb_the_status_answers_in_time(
    deployment: DeploymentFactory, secantusdb: Callable[..., SecantusDB]
) -> None:
    mongodb = secantusdb()
    server = deployment(MONGODB_URI=mongodb.uri, MONGODB_DATABASE="own", OPEN_METRICS="on").server()
    assert asked(server, "/metadata/status").data["mongodb"]["code"] is None
    mongodb.pause()
    started = time.monotonic()
    wait_until(lambda: asked(server, "/metadata/status").data["mongodb"]["code"] == "ZS300", "the outage", 20)
    answer = asked(server, "/metadata/status")
    assert time.monotonic() - started < 15
    is_as_described(answer, "/metadata/status")
    assert [one["code"] for one in answer.data["attention"]] == ["mongodb-away", "nothing-published"]
    mongodb.resume()
