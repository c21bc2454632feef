"""The admin as people see it: pages of a running ``serve`` in Chromium, and what axe finds wrong with them."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page

from devtools.chromium import DESKTOP, PHONE, chromium, log_in
from tests.harness.deployment import Server

__all__ = ["ADMIN", "DESKTOP", "PHONE", "Desk", "axe", "chromium", "overflow"]

# The first admin of a deployment that has these settings: ``deployment(**ADMIN)``.
ADMIN = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_PASSWORD": "for-tests-only"}
TIMEOUT_MS = 10_000


class Desk:
    """Opens pages of the admin. A script's error on any of them fails the test at its end (see ``close``).

    So does what the page's own security policy keeps from being loaded or run, which ``refused`` lists.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.errors: list[Error] = []
        self.refused: list[str] = []

    def page(
        self,
        server: Server,
        user: str = ADMIN["DJANGO_SUPERUSER_USERNAME"],
        password: str = ADMIN["DJANGO_SUPERUSER_PASSWORD"],
        **options: Any,
    ) -> Page:
        """Return a page of the start page, logged in; each has cookies of its own.

        ``options`` are those of a browser's context, such as ``viewport=PHONE`` or ``color_scheme="dark"``.
        """
        context = self._browser.new_context(**{"base_url": server.url, "viewport": DESKTOP, **options})
        self._contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.on("pageerror", self._failed)
        page.on("console", self._said)
        log_in(page, user, password)
        return page

    def _failed(self, error: Error) -> None:
        self.errors.append(error)

    def _said(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.refused.append(message.text)

    def close(self) -> None:
        """Close all pages; fails where a script on one of them failed, or something was refused."""
        for context in self._contexts:
            context.close()
        assert not self.errors, self.errors
        assert not self.refused, self.refused


def axe(page: Page) -> list[str]:
    """Return the serious and critical faults of accessibility on the page: each rule, with where it is broken."""
    # Icons are ligatures of a font: until that is there, axe takes them for pale words.
    page.wait_for_load_state()
    page.evaluate("document.fonts.ready.then(() => true)")
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {[(node['target'], node['failureSummary']) for node in fault['nodes'][:5]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
