"""The editor of a table in Chromium, from a collection to a replica that has the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from playwright.sync_api import Page, expect
from pymongo.database import Database

from changesource import sample_data
from tests.conftest import DeploymentFactory
from tests.harness.browser import ADMIN, PHONE, Desk, axe, overflow
from tests.harness.deployment import Server
from tests.harness.reader import Reader

TABLES = "/admin/changesource/tablemapping/"
VIEWER = """
from django.contrib.auth.models import Permission, User
User.objects.create_user("viewer", password="for-tests-only", is_staff=True).user_permissions.set(
    Permission.objects.filter(codename__startswith="view_"))
User.objects.create_superuser("second", password="for-tests-only")
"""


def aside(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, in a thread that has no loop of Playwright's."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()


def sound(page: Page) -> None:
    """The page is accessible and fits its window."""
    assert axe(page) == []
    assert overflow(page) == 0


def mapped(page: Page, collection: str) -> None:
    """Open the page of a new table, and infer its columns."""
    page.goto(f"{TABLES}add/")
    page.get_by_label("Collection").fill(collection)
    page.get_by_role("button", name="Infer columns").click()
    expect(page.locator(".zs-report")).to_be_visible()


def shown_columns(page: Page) -> list[str]:
    return [box.input_value() for box in page.locator(".zs-rows .zs-column:visible .zs-name input").all()]


def published(page: Page) -> None:
    page.get_by_role("button", name="Save and publish…").click()
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_text("Published as revision")).to_be_visible()


def test_from_a_collection_to_a_replica(deployment: DeploymentFactory, mongo: Database[Any], desk: Desk) -> None:
    """Choose, infer, preview, save, publish, and see a replica receive the rows, and then what an edit does to it."""
    sample_data.load(mongo)
    server = deployment(**ADMIN).server()
    page = desk.page(server)
    page.goto(f"{TABLES}add/")
    offered = page.locator("#zs-collections option")
    expect(offered).to_have_count(4)
    assert [option.get_attribute("value") for option in offered.all()] == ["accounts", "messages", "rooms", "users"]
    sound(page)
    mapped(page, "rooms")
    assert shown_columns(page) == ["id", "type", "createdAt", "title", "members", "topic", "archived"]
    expect(page.get_by_text("string 8, missing 4")).to_be_visible()
    page.get_by_role("button", name="only channel").click()
    expect(page.get_by_text("7 columns from 4 sampled documents.")).to_be_visible()
    expect(page.get_by_label("Name*")).to_have_value("channel")
    expect(page.locator("#zs-typescript")).to_contain_text('table("channel")')
    expect(page.locator("#zs-typescript")).not_to_contain_text("optional")
    sound(page)
    page.get_by_label("The _id of a document to preview").fill("support")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".zs-row")).to_contain_text("All about support")
    sound(page)
    published(page)

    reader = Reader(server.stream_url)
    aside(reader.sync)
    assert len(reader.model.rows("channel")) == 4

    async def renamed() -> None:
        mongo["rooms"].update_one({"_id": "general"}, {"$set": {"title": "Everybody"}})
        await reader.follow(lambda: reader.model.rows("channel")[("general",)]["title"] == "Everybody")

    aside(renamed)
    page.get_by_role("link", name="channel", exact=True).click()
    expect(page.locator(".zs-finding").first).to_contain_text("The collection rooms has about 12 documents.")
    page.get_by_role("button", name="Remove").last.click()
    page.get_by_role("button", name="Save and publish…").click()
    expect(page.get_by_text("1 replica will resync about 4 rows:")).to_be_visible()
    expect(page.locator(".zs-parts")).to_contain_text("columns.archived")
    sound(page)


def test_the_keyboard_is_enough(deployment: DeploymentFactory, mongo: Database[Any], desk: Desk) -> None:
    sample_data.load(mongo)
    page = desk.page(deployment(**ADMIN).server())
    mapped(page, "accounts")
    before = shown_columns(page)
    page.get_by_role("button", name="Move", exact=True).nth(1).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown_columns(page) == [before[0], *before[2:4], before[1], *before[4:]]
    page.keyboard.press("ArrowUp")
    moved = shown_columns(page)
    # By pointer too: the last column to the top.
    page.get_by_role("button", name="Move", exact=True).last.hover()
    page.mouse.down()
    page.locator(".zs-rows .zs-column").first.hover(position={"x": 20, "y": 5})
    page.mouse.up()
    assert shown_columns(page) == [moved[-1], *moved[:-1]]
    # A column of the key that is renamed stays in it.
    page.locator(".zs-name input").nth(1).fill("accountId")
    page.get_by_role("button", name="Add column").click()
    page.keyboard.type("size")
    page.get_by_role("button", name="Expression and type of key").last.press("Enter")
    page.get_by_label("Expression instead of a field").last.fill('{"$size": "$members"}')
    expect(page.locator("#zs-typescript")).to_contain_text('.primaryKey("accountId")')
    # What is there already stays when columns are inferred again; what is gone comes back.
    page.get_by_role("button", name="Remove").nth(2).press("Enter")
    page.get_by_role("button", name="Infer columns").press("Enter")
    expect(page.get_by_text("1 added, 8 kept as they are.")).to_be_visible()
    page.get_by_role("button", name="Save draft").press("Enter")
    expect(page.locator(".zs-finding").first).to_be_visible()
    assert shown_columns(page)[0] == moved[-1]


def test_what_is_wrong_is_marked_and_not_saved(deployment: DeploymentFactory, mongo: Database[Any], desk: Desk) -> None:
    sample_data.load(mongo)
    page = desk.page(deployment(**ADMIN).server(), color_scheme="dark", viewport=PHONE)
    mapped(page, "users")
    sound(page)
    words = "Line 2, column 12 (age.$near): operator $near is not supported"
    page.get_by_label("Filter").fill('{\n  "age": { "$near": 5 }\n}')
    # While it is typed, beside the box, and the line is marked.
    expect(page.locator('[data-errors="filter"]')).to_contain_text(words)
    expect(page.locator(".zs-line-wrong")).to_have_text('  "age": { "$near": 5 }')
    expect(page.get_by_label("Filter")).to_have_attribute("aria-invalid", "true")
    sound(page)
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("Please correct the error")).to_be_visible()
    expect(page.get_by_text(words).first).to_be_visible()
    assert shown_columns(page)[0] == "id"
    page.get_by_label("Filter").fill('{"age": {"$gt": 5}}')
    page.get_by_role("button", name="Save draft").click()
    expect(page.locator(".zs-finding").first).to_be_visible()
    sound(page)


def opened(desk: Desk, server: Server, user: str) -> Page:
    page = desk.page(server, user, "for-tests-only")
    page.goto(TABLES)
    page.get_by_role("link", name="user", exact=True).click()
    expect(page.locator(".zs-finding").first).to_be_visible()
    return page


def test_a_viewer_cannot_save_and_the_second_of_two_is_told(
    deployment: DeploymentFactory, mongo: Database[Any], desk: Desk
) -> None:
    """On PostgreSQL, where the row is locked while it is saved."""
    sample_data.load(mongo)
    place = deployment("postgres", **ADMIN)
    server = place.server()
    place.manage("importmappings", str(sample_data.MAPPINGS_FILE))
    place.manage("shell", "-c", VIEWER)
    viewer = opened(desk, server, "viewer")
    for name in ("Save draft", "Save and publish…", "Infer columns", "Preview", "Add column", "Remove"):
        expect(viewer.get_by_role("button", name=name)).to_have_count(0)
    expect(viewer.locator(".zs-columns")).to_contain_text("address.city")
    sound(viewer)
    first, second = (opened(desk, server, user) for user in ("admin", "second"))
    first.get_by_role("button", name="Remove").last.click()
    first.get_by_role("button", name="Save draft").click()
    expect(first.get_by_text("was changed successfully")).to_be_visible()
    second.get_by_label("Filter").fill('{"admin": true}')
    second.get_by_role("button", name="Save draft").click()
    told = second.get_by_role("alert")
    expect(told).to_contain_text("admin saved this table while you edited it")
    expect(told).to_contain_text("columns.joinedAt")
    sound(second)
    second.get_by_role("link", name="Drop mine and show what is stored").click()
    expect(second.get_by_label("Filter")).to_have_value("{}")
    assert "joinedAt" not in shown_columns(second)
