"""What operators do in the admin, in Chromium: keys are shown once, files come in and go out, revisions come back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import DeploymentFactory
from tests.harness.browser import ADMIN, DESKTOP, PHONE, Desk, axe, overflow
from tests.harness.deployment import Server
from tests.harness.desk import mapped

OURS = "/admin/changesource"
KEY = re.compile(r"zs_[\w-]{43}")
PEOPLE = """
from django.contrib.auth.models import Group, User
for role in ("viewer", "operator"):
    User.objects.create_user(role, password="for-tests-only", is_staff=True).groups.add(Group.objects.get(name=role))
"""
FIRST = {"tables": {"message": mapped("message"), "room": mapped("room")}, "publications": {"chat": ["message"]}}
SECOND = {"tables": {"message": mapped("message", filter={"deleted": False}), "seat": mapped("seat")}}


@pytest.fixture
def server(deployment: DeploymentFactory) -> Server:
    """A server with a viewer and an operator, and nothing mapped."""
    place = deployment(**ADMIN)
    place.manage("shell", "--no-imports", "-c", PEOPLE)
    return place.server()


def sound(page: Page) -> None:
    """Fail where the page is not accessible, or wider than its window."""
    assert axe(page) == [], page.url
    assert overflow(page) == 0, page.url


def imported(page: Page, directory: Path, data: dict[str, Any]) -> None:
    """Import these mappings as a file, as far as the question."""
    file = directory / "mappings.json"
    file.write_text(json.dumps(data))
    page.goto(f"{OURS}/tablemapping/")
    page.get_by_role("link", name="Import mappings").click()
    expect(page.get_by_label("Mappings")).to_be_visible()
    sound(page)
    page.get_by_label("Mappings").set_input_files(file)
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_role("button", name="Import and publish").or_(page.get_by_role("alert"))).to_be_visible()
    sound(page)


def selected(page: Page, model: str, action: str) -> None:
    """Run an action of a list for all that it shows."""
    page.goto(f"{OURS}/{model}/")
    for box in page.get_by_role("checkbox", name="Select record").all():
        box.check()
    page.locator("select[name=action]").select_option(label=action)
    page.get_by_role("button", name="Run").click()


def status_of(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_a_key_is_shown_once_and_revoked(server: Server, desk: Desk) -> None:
    page = desk.page(server, viewport=PHONE)
    page.goto(f"{OURS}/apikey/add/")
    page.get_by_label("Name").fill("production")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("is shown this once")).to_be_visible()
    (key,) = set(KEY.findall(page.content()))
    sound(page)
    metrics = f"{server.url}/metrics?apiKey={key}"
    assert status_of(metrics) == 200
    page.goto(f"{OURS}/apikey/")
    expect(page.get_by_text("production")).to_be_visible()
    assert KEY.findall(page.content()) == []
    page.set_viewport_size(DESKTOP)
    selected(page, "apikey", "Revoke the selected keys ...")
    expect(page.get_by_text("New connections with them are refused")).to_be_visible()
    sound(page)
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("1 revoked.")).to_be_visible()
    assert status_of(metrics) == 401


def test_files_and_revisions(server: Server, desk: Desk, tmp_path: Path) -> None:
    """An operator imports twice, compares the revisions, restores the first as the draft, and downloads the schema."""
    page = desk.page(server, "operator")
    imported(page, tmp_path, {"tables": {"message": mapped("message", colour=1)}})
    expect(page.get_by_text("ZS110 tables.message.colour")).to_be_visible()
    for data in (FIRST, SECOND):
        imported(page, tmp_path, data)
        page.get_by_role("button", name="Import and publish").click()
        expect(page.get_by_text("Imported and published as revision")).to_be_visible()
    selected(page, "mappingrevision", "Compare the two selected revisions")
    expect(page.locator("ins", has_text='{"deleted": false}')).to_be_visible()
    sound(page)
    page.goto(f"{OURS}/mappingrevision/")
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.get_by_role("link", name="Restore")).to_be_visible()
    sound(page)
    page.get_by_role("link", name="Restore").click()
    expect(page.locator("del", has_text='{"deleted": false}')).to_be_visible()
    sound(page)
    page.get_by_role("button", name="Restore as the draft").click()
    expect(page.get_by_text("Publish it to have it served")).to_be_visible()
    phone = desk.page(server, "operator", color_scheme="dark", viewport=PHONE)
    for path in (
        "tablemapping/",
        "tablemapping/import/",
        "mappingrevision/compare/",
        "mappingrevision/1/change/",
        "mappingrevision/2/restore/",
    ):
        phone.goto(f"{OURS}/{path}")
        sound(phone)
    with page.expect_download() as download:
        page.get_by_role("link", name="Zero schema (TypeScript)").click()
    text = Path(download.value.path()).read_text()
    assert 'export const seatTable = table("seat")' in text


def test_a_viewer_looks_and_changes_nothing(server: Server, desk: Desk) -> None:
    page = desk.page(server, "viewer")
    page.goto(f"{OURS}/tablemapping/")
    expect(page.get_by_role("link", name="Export mappings")).to_be_visible()
    for name in ("Import mappings", "Publish", "Review and publish", "Add table mapping"):
        assert page.get_by_role("link", name=name).or_(page.get_by_role("button", name=name)).count() == 0, name
    for path in ("tablemapping/import/", "tablemapping/add/", "apikey/add/", "mappingrevision/1/restore/"):
        answer = page.goto(f"{OURS}/{path}")
        assert answer is not None
        assert answer.status == 403, path
    assert page.goto("/admin/auth/user/").status == 403  # type: ignore[union-attr]
