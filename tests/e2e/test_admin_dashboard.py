"""The start page in Chromium, on a server with a real reader: it refreshes itself, whatever is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from pymongo import MongoClient

from devtools.secantusdb import SecantusDB
from tests.conftest import DeploymentFactory
from tests.harness.app import WITHOUT_HISTORY, fill
from tests.harness.browser import ADMIN, DESKTOP, PHONE, Desk, axe, overflow
from tests.harness.reader import Reader, following

SOON_MS = 15_000
# It asks for news six times as often as it does otherwise.
HURRIED = "const later = setTimeout; setTimeout = (act, ms, ...rest) => later(act, ms / 6, ...rest);"


def check_looks(page: Page) -> None:
    """Fail where the page has faults of accessibility, or does not fit: in light and dark, on a desk and a phone."""
    for dark in (True, False):
        page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", dark)
        for size in (PHONE, DESKTOP):
            page.set_viewport_size(size)
            assert axe(page) == [], (dark, size)
            assert overflow(page) == 0, (dark, size)


def test_the_start_page_lives(deployment: DeploymentFactory, desk: Desk, secantusdb: Callable[..., SecantusDB]) -> None:
    mongodb = secantusdb()
    with MongoClient[dict[str, Any]](mongodb.uri) as client:
        own = client["own"]
        fill(own, 20, others=5)
        place = deployment(**ADMIN, MONGODB_URI=mongodb.uri, MONGODB_DATABASE="own")
        place.configure(mappings=WITHOUT_HISTORY)
        server = place.server()
        page = desk.page(server)
        page.add_init_script(HURRIED)
        page.goto("/admin/")
        expect(page.get_by_text("No zero-cache has connected yet")).to_be_visible()
        page.get_by_text("The charts as a table").click()
        page.evaluate("window.neverLoadedAgain = true")

        card = page.get_by_role("article", name="phone/0")
        acked = card.locator("dt", has_text="Acked").locator("..").locator("code")
        reader = Reader(server.stream_url, app_id="phone")
        away = page.locator("#zs-advice").get_by_text("MongoDB does not answer")
        with following(reader):
            expect(card.get_by_text("streaming")).to_be_visible(timeout=SOON_MS)
            expect(acked).to_be_visible(timeout=SOON_MS)
            before = acked.inner_text()
            own["items"].insert_many([{"_id": f"fresh-{number}", "name": "x"} for number in range(50)])
            expect(acked).not_to_have_text(before, timeout=SOON_MS)
            assert acked.inner_text() > before
            rate = card.locator("dt", has_text="Rows per second").locator("..").locator("dd")
            expect(rate).not_to_have_text("0", timeout=SOON_MS)
            check_looks(page)

            mongodb.pause()
            expect(away).to_be_visible(timeout=SOON_MS)
            expect(card.get_by_text("streaming")).to_be_visible()
            # What was unfolded stays so, and nothing was loaded again.
            expect(page.locator("#zs-hour table")).to_be_visible()
            assert page.evaluate("window.neverLoadedAgain")
            started = time.monotonic()
            page.goto("/admin/", wait_until="domcontentloaded")
            assert time.monotonic() - started < 10  # by itself the driver would wait for 30 s
            expect(away).to_be_visible()
            expect(card).to_be_visible()
            assert axe(page) == []
            mongodb.resume()
            expect(away).to_have_count(0, timeout=SOON_MS)
        server.stop()
        expect(page.get_by_text("The server does not answer")).to_be_visible(timeout=SOON_MS)
