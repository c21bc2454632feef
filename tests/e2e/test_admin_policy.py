"""No page of the admin runs what was written into MongoDB, a mapping or a name, or needs such a script itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pymongo.database import Database

from devtools.processes import wait_until
from tests.conftest import DeploymentFactory
from tests.harness.browser import ADMIN, Desk

TABLES = "/admin/changesource/tablemapping/"
PLANTED = """"'><b data-planted></b><img src=x onerror="window.attacked=1"><script>window.attacked=1</script>"""
# What a template or a script would take for its end.
ENDING = "</script></textarea></select></title>" + PLANTED
HOSTILE: dict[str, Any] = {
    "tables": {
        "hostile": {
            "collection": ENDING,
            "columns": {
                "id": {"type": "string", "path": "_id"},
                "text": {"type": "string", "path": ENDING.replace(".", ""), "optional": True},
                "made": {"type": "string", "expression": {"$concat": [ENDING, "$_id"]}, "optional": True},
                "never": {"type": "number", "path": "never"},
            },
            "primaryKey": ["id"],
            "filter": {ENDING.replace(".", ""): {"$ne": ENDING + "2"}},
            "idType": "string",
            "description": ENDING,
        }
    },
}
SCRIPT = """
from django.contrib.auth.models import Group
from changesource.store import api_keys
from changesource.models import Lease, MappingRevision, RowError
planted = '''%s'''
api_keys.create(planted[:200])
Lease.objects.create(name="other", holder=planted)
Group.objects.create(name=planted[:100])
MappingRevision.objects.update(note=planted, created_by=planted)
RowError.objects.create(table=planted, document_id=planted, column=planted, reason=planted)
"""
HREFS = "Array.from(document.querySelectorAll('a[href]'), link => link.href)"
SKIPPED = re.compile(r"logout|/export/|/schema/|[?#]")


def harmless(page: Page) -> None:
    """Nothing that was planted has become a part of the page, nor run."""
    page.wait_for_load_state()
    assert page.locator("[data-planted]").count() == 0, page.url
    assert page.evaluate("window.attacked") is None, page.url


def walked(page: Page) -> set[str]:
    """Open every page that links lead to, and return their paths."""
    seen: set[str] = set()
    ahead = ["/admin/"]
    while ahead:
        path = ahead.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        harmless(page)
        here = re.compile(r"https?://[^/]+(/admin/.*)")
        found = [match[1] for link in page.evaluate(HREFS) if (match := here.match(link)) and not SKIPPED.search(link)]
        ahead += sorted(set(found) - seen)
    return seen


@pytest.fixture
def hostile(mongo: Database[Any]) -> Database[Any]:
    """Documents whose every part is an attack."""
    field = ENDING.replace(".", "")
    mongo[ENDING].insert_many([{"_id": f"{number} {ENDING}", field: ENDING, "never": ENDING} for number in range(3)])
    return mongo


def test_what_is_written_anywhere_is_shown_as_text(
    deployment: DeploymentFactory, hostile: Database[Any], desk: Desk, tmp_path: Path
) -> None:
    place = deployment(**ADMIN)
    mappings = tmp_path / "mappings.json"
    mappings.write_text(json.dumps(HOSTILE | {"publications": {"all": ["hostile"]}}))
    place.manage("importmappings", str(mappings))
    place.manage("shell", "-c", SCRIPT % PLANTED)
    server = place.server()
    page = desk.page(server)
    seen = walked(page)
    assert len(seen) > 30
    assert {"/admin/live/", f"{TABLES}1/change/", f"{TABLES}publish/", f"{TABLES}import/"} <= seen

    # The editor's answers: inferred columns, findings, a preview, and what is wrong with a text.
    page.goto(f"{TABLES}1/change/")
    expect(page.locator(".zs-finding").first).to_be_visible()
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".zs-beside").first).to_contain_text("data-planted")
    harmless(page)
    page.get_by_label("Filter").fill(json.dumps({"$" + ENDING: 1}))
    expect(page.locator('[data-errors="filter"]')).to_contain_text("data-planted")
    harmless(page)
    page.goto(f"{TABLES}add/")
    page.get_by_label("Collection").fill(ENDING)
    page.get_by_role("button", name="Infer columns").click()
    expect(page.locator(".zs-report")).to_be_visible()
    harmless(page)

    # A file by its name and content, and the difference that it makes.
    page.goto(f"{TABLES}import/")
    table = HOSTILE["tables"]["hostile"]
    changed = {"tables": {"hostile": table | {"description": ENDING + "3", "filter": {"a": ENDING}}}}
    file = {"name": f"{ENDING.replace('/', '')}.json", "mimeType": "text/json", "buffer": json.dumps(changed).encode()}
    page.get_by_label("Mappings").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("button", name="Import and publish").wait_for()
    assert "data-planted" in page.content()
    harmless(page)
    file["buffer"] = json.dumps({"tables": {ENDING: {}}}).encode()
    page.goto(f"{TABLES}import/")
    page.get_by_label("Mappings").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_text("data-planted").first).to_be_visible()
    harmless(page)

    # Messages, lists with a search, and changes as they flow.
    page.goto(f"/admin/changesource/rowerror/?q={PLANTED}")
    harmless(page)
    page.goto("/admin/live/")
    expect(page.get_by_role("status").first).to_have_text("Live")
    hostile[ENDING].insert_one({"_id": ENDING, "never": 1})
    expect(page.locator("#live summary").first).to_contain_text("data-planted")
    page.locator("#live summary").first.click()
    harmless(page)


PLANTS = (
    "<img src=x onerror='window.attacked=1'>",
    "<script>window.attacked=1</script>",
    "<a id=planted href='javascript:window.attacked=1'>x</a>",
    '<iframe src="javascript:parent.attacked=1"></iframe>',
    "<script src='https://evil.example/x.js'></script>",
    "<object data='data:text/html,x'></object>",
)
# A browser runs no script element of innerHTML, but one that comes with a fragment.
PLANT = "plant => document.body.append(document.createRange().createContextualFragment(plant))"


def test_a_planted_script_does_not_run(deployment: DeploymentFactory, desk: Desk) -> None:
    """As if some page had let it in; and the harness sees it."""
    page = desk.page(deployment(**ADMIN).server())
    for plant in PLANTS:
        page.goto("/admin/")
        assert desk.refused == []
        page.evaluate(PLANT, plant)
        if "planted" in plant:
            page.locator("#planted").evaluate("link => link.click()")
        wait_until(lambda: page.evaluate("1") and desk.refused, f"the browser's refusal of {plant}", 10)
        assert page.evaluate("window.attacked") is None, plant
        desk.refused.clear()


def test_pages_without_the_policy_would_run_it(deployment: DeploymentFactory, desk: Desk) -> None:
    """What the test above plants does run where nothing forbids it."""
    page = desk.page(deployment(**ADMIN).server(), bypass_csp=True)
    page.evaluate(PLANT, PLANTS[0])
    page.wait_for_function("window.attacked === 1")
