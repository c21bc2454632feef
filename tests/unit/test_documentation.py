"""The documentation says what is so: settings, errors, values, operators and links.

Its snippets are run by ``tests/snippets``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import generate_latest

from changesource import VERSION, exceptions
from changesource.conf import Settings, read_settings
from changesource.exceptions import SettingError, ZerosourceError
from changesource.mapping import filters, literals, values
from changesource.mapping.expressions import operators
from changesource.mapping.formats import COLUMN_KEYS, KEYS
from changesource.mapping.pipelines import STAGES
from changesource.metrics import CatchUp, Retry
from devtools import screenshots
from tests.harness.documentation import DOCS, JSON_FORMS, METRICS_HEAD, README, ROOT, table
from tests.harness.scraping import metrics_of

PAGES = (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md")))

INDEX = DOCS / "README.md"
SETTINGS = DOCS / "settings.md"
SETTINGS_HEAD = "| Name | Default | Bound | What it does |"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def json_blocks(page: Path) -> list[bytes]:
    """The content of the page's code blocks of JSON."""
    return [block.encode() for block in re.findall(r"^```json\b[^\n]*\n(.*?)^```", page.read_text(), re.M | re.S)]


def outside_code(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The page's headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ +(.+)$", outside_code(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def variable(field: str) -> str:
    """The environment variable of a field of ``Settings``."""
    return "CHANGE_SOURCE_API_KEYS" if field == "api_keys" else field.upper()


def shown_default(found: Settings, field: str) -> str:
    """A default as the page of settings writes it."""
    value = getattr(found, field)
    if field == "secret_key":
        return "kept in DATA_DIR"
    if field == "data_dir":
        return str(value.name)
    if value is None or value == ():
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(value)
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    return text.removesuffix(".0").replace(str(found.data_dir), "DATA_DIR")


def test_every_setting_is_documented_with_its_default(tmp_path: Path) -> None:
    found = read_settings({}, tmp_path)
    documented = {row[0].strip("`"): row[1].replace("`", "") for row in table(SETTINGS, SETTINGS_HEAD)}
    assert documented == {variable(field.name): shown_default(found, field.name) for field in fields(Settings)}
    assert len(documented) == len(table(SETTINGS, SETTINGS_HEAD))


def test_documented_bounds_of_settings_hold(tmp_path: Path) -> None:
    checked = 0
    for name, _, bound, _ in table(SETTINGS, SETTINGS_HEAD):
        if not (ends := re.fullmatch(r"(\d+) to (\d+)", bound)):
            continue
        setting, low, high = name.strip("`"), int(ends[1]), int(ends[2])
        for inside in (low, high):
            read_settings({setting: str(inside)}, tmp_path)
        for outside in (low - 1, high + 1):
            with pytest.raises(SettingError, match=setting):
                read_settings({setting: str(outside)}, tmp_path)
        checked += 1
    assert checked >= 6


def test_every_metric_is_documented() -> None:
    """What a running server shows is held against the same table in ``test_metrics``."""
    page = ROOT / "docs" / "metrics.md"
    documented = {name.strip("`"): kind for name, kind, _, says in table(page, METRICS_HEAD) if says}
    assert documented == metrics_of(generate_latest().decode())
    assert [what for what in (*get_args(Retry), *get_args(CatchUp)) if f"`{what}`" not in page.read_text()] == []


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def tree(kind: type[ZerosourceError]) -> Iterator[type[ZerosourceError]]:
    """The class and all under it."""
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def test_every_error_code_is_documented() -> None:
    rows = table(ROOT / "docs" / "errors.md", "| Code | Meaning | Retried | What to do |")
    documented = {code.strip("`"): (retried, bool(meaning), bool(remedy)) for code, meaning, retried, remedy in rows}
    ours = {kind for kind in tree(exceptions.ZerosourceError) if kind.__module__ == exceptions.__name__}
    assert documented == {kind.code: ("yes" if kind.retryable else "no", True, True) for kind in ours}
    assert len(documented) == len(rows) == len(ours)


def test_the_table_of_values_is_the_codes_own() -> None:
    own = [line for line in (values.__doc__ or "").splitlines() if line.startswith("|")]
    assert len(own) > 15
    assert "\n".join(own) in (ROOT / "docs" / "values.md").read_text()


def test_every_filter_operator_is_documented() -> None:
    text = (ROOT / "docs" / "filters.md").read_text()
    operators = (*filters.TOP_LEVEL, *filters.FIELD_OPERATORS, *literals.VALUES)
    assert [operator for operator in operators if f"`{operator}`" not in text] == []


def test_every_stage_and_expression_is_documented() -> None:
    pages = {"pipelines.md": STAGES, "expressions.md": operators()}
    for name, names in pages.items():
        text = (ROOT / "docs" / name).read_text()
        assert [one for one in names if f"`{one}`" not in text and f"`{one}`:" not in text] == [], name


def test_every_key_of_a_mapping_is_documented() -> None:
    heads = {
        "| Key of a table | Default | What it says |": KEYS,
        "| Key of a column | Default | What it says |": COLUMN_KEYS,
    }
    for head, keys in heads.items():
        named = [name for cell, *_ in table(JSON_FORMS, head) for name in re.findall(r"`(\w+)`", cell)]
        assert sorted(named) == sorted(keys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = outside_code(page)
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert file.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def linked_from(page: Path) -> set[Path]:
    """The files that the page links."""
    targets = {target.partition("#")[0] for target in LINK.findall(outside_code(page))}
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_is_in_the_index() -> None:
    listed = {page.resolve() for page in PAGES if page != INDEX and page.parent in (ROOT, DOCS)}
    assert listed <= linked_from(INDEX)
    assert INDEX in linked_from(README)


def test_screenshots_are_kept_and_small() -> None:
    """Those that the command makes, and no others."""
    kept = {path.stem: path.stat().st_size for path in screenshots.FOLDER.iterdir()}
    assert kept.keys() == {shot.name for shot in screenshots.SHOTS}
    assert max(kept.values()) <= screenshots.MAX_BYTES
