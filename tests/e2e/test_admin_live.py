"""The live page in Chromium: changes in MongoDB show within a second, filtered, paused and read."""

from __future__ import annotations

import json
import re
import time
from statistics import median
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from pymongo.database import Database

from tests.conftest import DeploymentFactory
from tests.harness.app import MAPPINGS
from tests.harness.browser import ADMIN, PHONE, Desk, axe, overflow
from tests.harness.deployment import Server

MAX_LINES = 500
SCRIPT = "<img src=x onerror='document.title=1'><script>document.title=1</script>"


@pytest.fixture
def server(deployment: DeploymentFactory) -> Server:
    """A server with nothing in MongoDB yet."""
    place = deployment(**ADMIN)
    place.configure(mappings=MAPPINGS)
    return place.server()


def opened(desk: Desk, server: Server, **options: Any) -> Page:
    """The page, once a watcher is heard."""
    page = desk.page(server, **options)
    page.goto("/admin/")
    if options.get("viewport") != PHONE:
        page.get_by_role("link", name="Live changes").click()
    page.goto("/admin/live/")
    expect(page.get_by_role("status").first).to_have_text("Live")
    # A heartbeat: the layer brings what the watcher says.
    expect(lines(page).first).to_be_visible()
    return page


def choose(page: Page, table: str = "All tables", key: str = "") -> None:
    """Set the filter, and wait until it holds; nothing is shown then."""
    page.get_by_label("Table").select_option(table)
    page.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")


def lines(page: Page) -> Locator:
    return page.get_by_role("log").get_by_role("listitem")


def changes(page: Page) -> Locator:
    """The lines that are changes, the newest first."""
    return lines(page).filter(has=page.locator("summary"))


def test_changes_show_within_a_second_and_are_filtered_and_read(
    server: Server, desk: Desk, mongo: Database[Any]
) -> None:
    page = opened(desk, server)
    took = []
    for number in range(5):
        began = time.monotonic()
        mongo["items"].insert_one({"_id": f"a{number}", "name": "first"})
        expect(changes(page).first).to_contain_text(f'id: "a{number}"')
        took.append(time.monotonic() - began)
    # The machine may have other things to do now and then.
    assert median(took) < 1, took
    expect(changes(page).first).to_have_text(re.compile('insert item id: "a4" .*first'))
    mongo["rooms"].insert_one({"_id": 7, "kind": "chat", "title": "talk"})
    expect(changes(page).first).to_contain_text("talk")
    # By table: what is there goes, and only its own come.
    choose(page, "item")
    expect(lines(page)).to_have_count(0)
    mongo["rooms"].insert_one({"_id": 8, "kind": "chat", "title": "unwanted"})
    mongo["items"].insert_one({"_id": "b", "name": "wanted"})
    expect(changes(page)).to_have_count(1)
    expect(changes(page).first).to_contain_text("wanted")
    # By key, in all tables.
    choose(page, key="8")
    expect(lines(page)).to_have_count(0)
    mongo["items"].insert_one({"_id": "88", "name": "8"})
    mongo["rooms"].update_one({"_id": 8}, {"$set": {"title": "changed"}})
    # The room is another table's as well, whose filter it fails.
    expect(changes(page)).to_have_text([re.compile("update chat id: 8 .*changed"), re.compile("delete channel id: 8")])
    # By the keyboard: the line opens, which pauses the page.
    choose(page)
    mongo["items"].delete_one({"_id": "88"})
    expect(changes(page).first).to_contain_text("delete")
    mongo["items"].insert_one({"_id": "88", "name": "8"})
    expect(changes(page).first).to_contain_text("insert")
    summary = changes(page).first.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(changes(page).first.locator("pre")).to_have_count(2)
    [change, frame] = changes(page).first.locator("pre").all_inner_texts()
    row = {"id": "88", "name": "8", "count": None, "tags": None}
    assert json.loads(change) == {"type": "insert", "table": "item", "key": {"id": "88"}, "value": row}
    assert frame.startswith('["data",{"tag":"insert","relation":')
    assert json.loads(frame)[1]["new"] == row
    # Paused, it counts; afterwards it says how many.
    go_on = page.get_by_role("button", name="Go on")
    expect(go_on).to_have_attribute("aria-pressed", "true")
    before = changes(page).count()
    mongo["items"].insert_many([{"_id": f"p{n}", "name": "passed"} for n in range(30)])
    expect(page.get_by_text("30 not shown")).to_be_visible()
    assert changes(page).count() == before
    go_on.click()
    expect(page.get_by_text("30 changes passed")).to_be_visible()
    mongo["items"].insert_one({"_id": "c", "name": "goes on"})
    expect(changes(page).first).to_contain_text("goes on")


def test_a_flood_is_shown_in_part_and_the_page_stays_small(server: Server, desk: Desk, mongo: Database[Any]) -> None:
    page = opened(desk, server)
    end, number = time.monotonic() + 30, 0
    while lines(page).count() < MAX_LINES:
        assert time.monotonic() < end
        mongo["items"].insert_many([{"_id": f"f{number + n}", "name": "flood"} for n in range(200)])
        number += 200
    expect(page.get_by_text("changes are not shown here").first).to_be_visible()
    # Others come and go all the while.
    missed = page.locator("[data-figure=missed]").inner_text()
    mongo["items"].insert_many([{"_id": f"g{n}", "name": "flood"} for n in range(1000)])
    expect(page.locator("[data-figure=missed]")).not_to_have_text(missed)
    assert lines(page).count() == MAX_LINES
    choose(page, key="end")
    mongo["items"].insert_one({"_id": "end", "name": "quiet again"})
    expect(changes(page).first).to_contain_text("quiet again")


def test_what_documents_hold_stays_text_and_the_page_is_accessible(
    server: Server, desk: Desk, mongo: Database[Any]
) -> None:
    dark_phone = opened(desk, server, color_scheme="dark", viewport=PHONE)
    light = opened(desk, server)
    mongo["items"].insert_one({"_id": SCRIPT, "name": SCRIPT, "tags": [{SCRIPT: SCRIPT}]})
    mongo["items"].insert_one({"_id": "long", "name": "x" * 40_000})
    mongo["items"].update_one({"_id": SCRIPT}, {"$set": {"count": 1}})
    mongo["rooms"].insert_one({"_id": 1, "kind": "chat", "title": "t"})
    mongo["rooms"].drop()
    mongo["items"].delete_one({"_id": SCRIPT})
    for page in (light, dark_phone):
        expect(page.get_by_role("log")).to_contain_text("truncate")
        expect(changes(page).first).to_contain_text("delete")
        for line in changes(page).filter(has_text=re.compile("onerror|xxx|40,")).all():
            line.locator("summary").click()
        assert SCRIPT in "".join(page.locator("pre").all_inner_texts())
        expect(page.get_by_text(re.compile("the first 16,384 of"))).to_be_visible()
        assert page.locator("#live img, #live script").count() == 0
        assert page.title() != "1"
        assert axe(page) == []
        assert overflow(page) == 0


def test_the_page_says_what_ails_it_and_comes_back(deployment: DeploymentFactory, desk: Desk) -> None:
    place = deployment(**ADMIN)
    place.configure(mappings=MAPPINGS)
    server = place.server("--no-watcher")
    page = desk.page(server)
    page.goto("/admin/live/")
    status = page.get_by_role("status").first
    expect(status).to_contain_text("No watcher is heard")
    assert axe(page) == []
    server.stop()
    expect(status).to_contain_text("The connection is lost")
    place.server(port=server.port)
    expect(status).to_have_text("Live", timeout=15_000)
