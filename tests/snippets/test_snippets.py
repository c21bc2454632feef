"""Every snippet of the documentation is run, and does what its page says; ``README.md`` beside this says how."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from devtools import node
from devtools.postgres import Postgres
from devtools.processes import free_port
from tests.conftest import MongoServer
from tests.snippets import arrangement
from tests.snippets.inline import check_page
from tests.snippets.pages import Page, pages, read
from tests.snippets.placeholders import Reader
from tests.snippets.running import Run, drop_users, has_a_way, how_to

PAGES = [read(path) for path in pages()]
MAY_BE_LEFT_OUT = 5


def named(page: Page) -> str:
    return page.name


def marks(page: Page) -> list[pytest.MarkDecorator]:
    """A page with a block that takes minutes is run with the slow tests."""
    return [pytest.mark.slow] if any("slow" in block.words for block in page.blocks) else []


@pytest.fixture(scope="module")
def samples(mongodb: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the sample data's tables, which are in MongoDB."""
    node.install()
    arrangement.fill_mongodb(mongodb.uri)
    folder = tmp_path_factory.mktemp("samples")
    arrangement.publish_samples(mongodb.uri, f"sqlite:///{folder}/zerosource.sqlite3", folder)
    return folder / "zerosource.sqlite3"


@pytest.fixture(scope="module")
def databases(
    postgres: Postgres, mongodb: MongoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[arrangement.Databases]:
    made = arrangement.Databases(postgres, mongodb.uri, tmp_path_factory.mktemp("databases"))
    yield made
    made.drop()


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with arrangement.zygote(tmp_path_factory.mktemp("zygote")) as address:
        yield address


@pytest.fixture
def reader(request: pytest.FixtureRequest, mongodb: MongoServer, tmp_path: Path) -> Reader:
    @cache
    def postgres() -> str:
        made: arrangement.Databases = request.getfixturevalue("databases")
        return made.another()

    def redis() -> str:
        return str(request.getfixturevalue("redis").url)

    key = f"zs_{secrets.token_hex(24)}"
    name = request.node.callspec.params["page"].name.removesuffix(".md").replace("/", "-").lower()
    return Reader(tmp_path / name, mongodb.uri, free_port(), free_port(span=2), key, postgres, redis)


@pytest.mark.django_db
@pytest.mark.parametrize("page", [pytest.param(page, marks=marks(page)) for page in PAGES if page.blocks], ids=named)
def test_a_page_is_so(
    page: Page,
    reader: Reader,
    samples: Path,
    zygote: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """All of its blocks; each that fails is told with its place."""
    if any(block.kind == "js mongosh" for block in page.blocks):
        drop_users(reader.mongodb())
    run = Run(page, reader, arrangement.settle(reader, samples, tmp_path / "state", zygote))
    run.run()
    for kind, count in run.counts.items():
        record_property("snippets", f"{kind}: {count}")
    assert not run.faults, "\n\n".join(run.faults)


def test_every_block_is_run_or_left_out_with_a_reason(record_property: Callable[[str, object], None]) -> None:
    blocks = [block for page in PAGES for block in page.blocks]
    assert len(blocks) > 20
    without = [how_to(block) for block in blocks if not has_a_way(block)]
    assert not without, "\n".join(without)
    left_out = [f"{block.place}: {block.left_out}" for block in blocks if block.left_out]
    for one in left_out:
        record_property("left out", one)
    assert len(left_out) <= MAY_BE_LEFT_OUT, "\n".join(left_out)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_the_text_names_is_there(page: Page) -> None:
    """Commands, options, targets, settings, codes, metrics, alerts, events, files and pages in inline code."""
    faults = list(check_page(page))
    assert not faults, "\n".join(faults)
