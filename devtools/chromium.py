"""Debian's Chromium, driven by Playwright, on pages of a running server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from devtools.processes import ProcessError

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 375, "height": 740}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run it.

    Playwright's loop runs in this thread meanwhile: no coroutine can be run here, nor Django's ORM be asked.
    """
    program = shutil.which("chromium")
    if program is None:
        raise ProcessError("Chromium is not installed: sh devtools/system-packages.sh chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, user: str, password: str) -> None:
    """Log in to the admin; the page shows its start page then."""
    page.goto("/admin/")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password", exact=False).first.fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
