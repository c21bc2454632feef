"""The admin in Chromium: it has its style, is accessible in light and dark, and fits a phone."""

from __future__ import annotations

from typing import Literal

from playwright.sync_api import expect

from tests.conftest import DeploymentFactory
from tests.harness.browser import ADMIN, DESKTOP, PHONE, Desk, axe, overflow

LISTS = ("tablemapping", "publication", "mappingrevision", "managedcontent", "watermark", "rowerror", "lease", "apikey")
PAGES = ("", *(f"changesource/{name}/" for name in LISTS), "changesource/apikey/add/", "auth/user/", "auth/user/add/")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
FORMS = ("changesource/publication/add/", "auth/user/1/change/", "auth/group/add/", "password_change/")


def test_pages_are_accessible_and_fit_a_phone(deployment: DeploymentFactory, desk: Desk) -> None:
    """With DEBUG off too, static files come from where they are installed."""
    page = desk.page(deployment(**ADMIN, DEBUG="0").server())
    for path in (*PAGES, *FORMS):
        page.goto(f"/admin/{path}")
        assert page.evaluate("getComputedStyle(document.body).fontFamily").startswith("Inter"), path
        assert "MongoDB for Zero" in (page.locator("#nav-sidebar").text_content() or "")
        for dark, size in ((False, DESKTOP), (True, PHONE)):
            page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", dark)
            page.set_viewport_size(size)
            assert axe(page) == [], (path, size)
            assert overflow(page) == 0, (path, size)
    expect(page.locator("html.dark")).to_have_count(1)
    # What the machine prefers decides that at the start of a page.
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.goto("/admin/")
        expect(page.locator("html.dark")).to_have_count(int(scheme == "dark"))


def test_a_page_that_is_not_there_looks_like_the_others(deployment: DeploymentFactory, desk: Desk) -> None:
    server = deployment(**ADMIN).server()
    for options in ({}, {"color_scheme": "dark", "viewport": PHONE}):
        page = desk.page(server, **options)
        answer = page.goto("/admin/nothing/")
        assert answer is not None
        assert answer.status == 404
        assert page.evaluate("getComputedStyle(document.body).fontFamily").startswith("Inter")
        assert axe(page) == []
        assert overflow(page) == 0


def test_a_planted_fault_is_found(deployment: DeploymentFactory, desk: Desk) -> None:
    page = desk.page(deployment(**ADMIN).server())
    for fault in ("<img src='x.png'>", "<p style='color: #ccc; background: #fff'>Too pale</p>"):
        page.goto("/admin/")
        assert axe(page) == []
        page.locator("#content").evaluate("(place, fault) => place.insertAdjacentHTML('afterbegin', fault)", fault)
        assert len(axe(page)) == 1, fault


def test_menus_are_reached_by_the_keyboard(deployment: DeploymentFactory, desk: Desk) -> None:
    page = desk.page(deployment(**ADMIN).server())
    menu = page.get_by_role("button", name="admin", exact=False).last
    menu.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Dark").focus()
    page.keyboard.press("Space")
    expect(page.locator("html.dark")).to_be_visible()
    page.get_by_role("button", name="Log out").press("Enter")
    expect(page.get_by_role("heading", name="logged out")).to_be_visible()
