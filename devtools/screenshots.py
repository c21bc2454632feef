"""Makes ``docs/screenshots``: a server with the sample data and a few replicas, and pages of its admin.

``python -m devtools.screenshots [NAME ...]``; without names, all of ``SHOTS``. To show another page, add it there.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError
from urllib.request import urlopen

from bson import ObjectId
from playwright.sync_api import Browser, Page
from pymongo import MongoClient

from changesource.sample_data import MAPPINGS_FILE, ROOMS
from devtools.bench.reading import Connection, SourceEnded
from devtools.chromium import DESKTOP, PHONE, chromium, log_in
from devtools.node import PROJECT
from devtools.processes import ManagedProcess, free_port

FOLDER = PROJECT / "docs" / "screenshots"
MANAGE = [sys.executable, str(PROJECT / "manage.py")]
USER, PASSWORD = "admin", "for-screenshots-only"
MAX_BYTES = 150_000
PAUSES = (0.02, 0.1, 0.05, 0.2)

# An hour as it might have been, since nobody waits for one.
HISTORY = """
import math
from django.utils import timezone
from changesource.models import ReplicaMinute, Watermark
from changesource.store import minutes, watermarks
now = timezone.now()
watermarks.begin_sync("staging", 0, ["chat"], "")
watermarks.note_progress("staging", 0, watermarks.Progress("disconnected"))
for number, replica in enumerate(Watermark.objects.filter(kind="replica").order_by("app_id")):
    for ago in range(1, 60):
        minute = minutes.of(now) - ago
        wave = 1.2 + math.sin(ago / 7 + number) + 0.3 * math.sin(ago * 2.3 + number)
        rows = int(max(0.1, wave) * (900, 120, 480)[number])
        lag_ms = 0 if ago % 17 else 1000 * (ago % 4 + 1)
        if replica.app_id != "staging" or ago > 25:
            minutes.add(replica, minute, rows, lag_ms)
"""


@dataclass(frozen=True)
class Shot:
    """A page and how it is shown; ``prepare`` does something on it before the picture is taken."""

    name: str
    path: str
    scheme: Literal["light", "dark"] = "light"
    phone: bool = False
    prepare: Callable[[Page], object] | None = None
    whole: bool = False


def open_a_change(page: Page) -> None:
    """On the live page, wait until it is full of changes, and open one."""
    lines = page.locator("#live summary")
    lines.nth(20).wait_for()
    lines.nth(3).click()
    page.locator("#live pre").first.wait_for()


TO_ITS_TOP = "place => window.scrollTo(0, place.getBoundingClientRect().top + window.scrollY - 90)"


def infer(page: Page) -> None:
    """In the editor, have the columns of a collection proposed."""
    page.get_by_label("Collection").fill("rooms")
    page.get_by_role("button", name="Infer columns").click()
    page.locator(".zs-report").wait_for()
    page.locator("#id_name").fill("room")
    page.locator("#zs-typescript").get_by_text("roomTable").wait_for()
    page.locator("#zs-infer").evaluate(TO_ITS_TOP)


def preview(page: Page) -> None:
    """Go on to documents beside their rows."""
    infer(page)
    page.get_by_label("The _id of a document to preview").fill("general")
    page.get_by_role("button", name="Preview").click()
    page.locator(".zs-beside").wait_for()
    page.locator("#zs-preview-heading").evaluate(TO_ITS_TOP)


def edit_a_table(page: Page) -> None:
    """Open a table, drop a column, and go on to publishing."""
    page.get_by_role("link", name="user", exact=True).click()
    page.get_by_role("button", name="Remove").last.click()
    page.get_by_role("button", name="Save and publish…").click()
    page.get_by_text("will resync about").wait_for()


def choose_a_file(page: Page) -> None:
    """On the page that imports, as far as the question."""
    table = json.loads(MAPPINGS_FILE.read_text())["tables"]["message"]
    table["filter"] = {"deleted": {"$ne": True}}
    table["columns"]["room"] = {"type": "string", "path": "roomId", "optional": True}
    content = json.dumps({"tables": {"message": table}}).encode()
    page.get_by_label("Mappings").set_input_files({"name": "mappings.json", "mimeType": "text/json", "buffer": content})
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("button", name="Import and publish").wait_for()


SHOTS = (
    Shot("overview", "/admin/"),
    Shot("overview-dark", "/admin/", scheme="dark"),
    Shot("overview-phone", "/admin/", phone=True, whole=True),
    Shot("live", "/admin/live/", prepare=open_a_change),
    Shot("live-phone", "/admin/live/", scheme="dark", phone=True, prepare=open_a_change),
    Shot("tables", "/admin/changesource/tablemapping/"),
    Shot("import", "/admin/changesource/tablemapping/import/", prepare=choose_a_file),
    Shot("editor", "/admin/changesource/tablemapping/add/", prepare=infer),
    Shot("editor-phone", "/admin/changesource/tablemapping/add/", scheme="dark", phone=True, prepare=infer),
    Shot("preview", "/admin/changesource/tablemapping/add/", prepare=preview),
    Shot("publish", "/admin/changesource/tablemapping/", prepare=edit_a_table),
)


class Sample:
    """A server with the sample data, replicas that follow it, and somebody who writes."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "serve.log"
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {
            **kept,
            "DATA_DIR": str(directory / "data"),
            "DEBUG": "1",
            "MONGODB_URI": "",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SUPERUSER_USERNAME": USER,
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have all run, with an hour of history."""
        with ExitStack() as stack:
            server = ManagedProcess(
                [*MANAGE, "serve", "--port", str(self.port), "--sample-data"], self._log, self._environment, PROJECT
            )
            stack.callback(server.stop)
            server.wait_until(self._is_ready, "the server", 60)
            found = re.search(r"^MongoDB +(\S+)", server.log_text(), re.MULTILINE)
            client: MongoClient[dict[str, Any]] = MongoClient(found[1] if found else "")
            stack.callback(client.close)
            stack.callback(self._end)
            for app_id in ("mobile", "web"):
                self._start(self._follow, app_id)
            self._start(self._write, client)
            time.sleep(3)
            shell = ManagedProcess([*MANAGE, "shell", "--no-imports", "-c", HISTORY], self._log, self._environment)
            if shell.wait(60):
                raise RuntimeError(shell.log_tail())
            time.sleep(8)
            yield

    def _is_ready(self) -> bool:
        with suppress(URLError, OSError), urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _follow(self, app_id: str) -> None:
        """Follow as zero-cache does."""
        stream = f"ws://127.0.0.1:{self.port}/changes/v0/stream"
        synced = Connection(stream, app_id)
        while not synced.counts.commits:
            synced.read()
        synced.socket.close()
        counts = synced.counts
        following = Connection(stream, app_id, counts.watermark, counts.replica_version)
        following.socket.settimeout(0.2)
        while not self._stop.is_set():
            with suppress(TimeoutError, SourceEnded):
                following.read()
        following.socket.close()

    def _write(self, client: MongoClient[dict[str, Any]]) -> None:
        """Write messages, and one that does not fit its table."""
        messages = client["test"]["messages"]
        kept = messages.find_one({}) or {}
        messages.insert_one({**kept, "_id": "not-an-object-id"})
        number = 0
        while not self._stop.wait(PAUSES[number % len(PAUSES)]):
            number += 1
            room = ROOMS[number % len(ROOMS)][0]
            messages.insert_one({**kept, "_id": ObjectId(), "roomId": room, "createdAt": datetime.now(UTC)})


def take(browser: Browser, url: str, shot: Shot, folder: Path) -> Path:
    """Take one picture; ``ValueError`` where it is larger than ``MAX_BYTES``."""
    context = browser.new_context(base_url=url, viewport=PHONE if shot.phone else DESKTOP, color_scheme=shot.scheme)
    try:
        page = context.new_page()
        log_in(page, USER, PASSWORD)
        page.goto(shot.path)
        page.wait_for_load_state("networkidle")
        if shot.prepare is not None:
            shot.prepare(page)
        path = folder / f"{shot.name}.png"
        page.screenshot(path=path, full_page=shot.whole)
    finally:
        context.close()
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes")
    return path


def main(names: list[str]) -> None:
    """Take the pictures of these names, or all."""
    unknown = set(names) - {shot.name for shot in SHOTS}
    if unknown:
        sys.exit(f"There is no {', '.join(sorted(unknown))}; there are: {json.dumps([shot.name for shot in SHOTS])}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zerosource-screenshots-") as directory:
        sample = Sample(Path(directory))
        with sample.running(), chromium() as browser:
            for shot in SHOTS:
                if not names or shot.name in names:
                    print(take(browser, sample.url, shot, FOLDER).relative_to(PROJECT), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
