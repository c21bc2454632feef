"""What runs the snippets finds what is wrong with them, and says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from devtools.processes import ProcessError
from tests.conftest import MongoServer
from tests.harness.documentation import README
from tests.snippets import formats, kubectl, npm, outputs
from tests.snippets.elsewhere import check_runs
from tests.snippets.inline import check_code, check_page
from tests.snippets.pages import Block, parse, read
from tests.snippets.placeholders import Reader, fill
from tests.snippets.recipes import Recipes
from tests.snippets.running import Run, has_a_way, how_to
from tests.snippets.shell import Shell, commands, first_words, serves

PAGE = """\
# One

<!-- run by tests/e2e/test_clean_clone.py::test_make_run_then_make_zero -->

```sh
make run
```

# Two

1. In a list

   ```json documents collection=people
   {"_id": 1}
   ```

<!-- not run: it takes a friend -->
```text
hello
```

```yaml file=a.yaml
a: 1
```
"""
RECIPE = """\
```json mapping
{"person": {"collection": "people", "columns": {"id": {"type": "string", "path": "_id"}}, "primaryKey": ["id"]}}
```
```json documents
[{"_id": "ada"}, {"_id": "bob"}]
```
```json rows
[{"id": "bob"}, {"id": "ada"}]
```
"""


def block(text: str, language: str = "sh", **more: Any) -> Block:
    return Block("docs/page.md", 3, language, more.pop("words", ()), {}, text, 0, **more)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    folder = tmp_path / "page"
    folder.mkdir()
    uri = "mongodb://127.0.0.1:27018/?retryWrites=false"
    return Reader(folder, uri, 3111, 4111, "zs_key", lambda: "postgresql://real/one", lambda: "redis://real/0")


@pytest.fixture
def shell(reader: Reader, tmp_path: Path) -> Shell:
    return Shell(reader.folder, tmp_path / "state", {"PATH": "/usr/local/bin:/usr/bin:/bin"})


def test_blocks_are_read_with_their_places_and_what_is_said_of_them() -> None:
    one, two, three, four = parse("docs/page.md", PAGE).blocks
    assert (one.place, one.run_by) == (
        "docs/page.md:6",
        "tests/e2e/test_clean_clone.py::test_make_run_then_make_zero",
    )
    assert (two.kind, two.options, two.text) == ("json documents", {"collection": "people"}, '{"_id": 1}\n')
    assert (three.left_out, three.kind) == ("it takes a friend", "text")
    assert (four.kind, four.left_out, four.run_by) == ("yaml file", "", "")
    assert one.section < two.section == four.section
    with pytest.raises(AssertionError, match=r"docs/page\.md:1: the block has no end"):
        parse("docs/page.md", "```sh\nls\n")


@pytest.mark.parametrize("fence", ["", "json", "text", "js", "ts", "sql", "json recipe", "toml file=a.toml"])
def test_a_block_that_nothing_runs_is_told(fence: str) -> None:
    (found,) = parse("docs/page.md", f"a\n\n```{fence}\nx\n```\n").blocks
    assert not has_a_way(found)
    assert how_to(found).startswith("docs/page.md:4: nothing runs ```")


def test_commands_are_told_apart() -> None:
    text = "# first\nls \\\n  -l\n\necho 'a\nb'  # c\ncat <<X\n$(x\nX\nfor a in 1 2; do\n  echo $a\ndone\n"
    found = [(one.line, one.text.splitlines()[0]) for one in commands(text, 1)]
    assert found == [(2, "ls \\"), (5, "echo 'a"), (7, "cat <<X"), (10, "for a in 1 2; do")]
    with pytest.raises(AssertionError, match="line 1: the command has no end"):
        list(commands("echo 'a\n", 1))
    assert first_words("A=1 docker run -d x # y") == "docker run"
    assert [
        serves(one) for one in ("A=1 python manage.py serve # x", "python manage.py serve --help", "node a.mjs &")
    ] == [
        "manage.py serve",
        "",
        "&",
    ]


def test_a_shell_keeps_what_was_set_and_tells_what_failed(shell: Shell, reader: Reader) -> None:
    shell.run("one=1; export TWO=2; mkdir inner; cd inner")
    assert shell.run('echo "$one $TWO $(basename "$PWD") $(sh -c \'echo "[$one]$TWO"\')"').said() == "1 2 inner []2\n"
    with pytest.raises(ProcessError, match="ended with 3: out"):
        shell.run("echo out; (exit 3)")
    assert shell.variable("one") == "1"
    process = shell.run(
        "sh -c 'trap \"echo Traceback; exit 0\" TERM; echo up; while :; do read -t 1 x; done' &"
    ).process
    assert process is not None
    assert shell.close()
    assert process.exit_code is not None


def test_what_stands_for_something_is_replaced(reader: Reader) -> None:
    assert fill("export MONGODB_URI='mongodb://u:p@db.example/app?replicaSet=rs0'", reader) == (
        "export MONGODB_URI='mongodb://127.0.0.1:27018/app?retryWrites=false'"
    )
    assert (
        fill("ws://zero:KEY@HOST:3000/changes/v0/stream", reader) == "ws://zero:zs_key@127.0.0.1:3111/changes/v0/stream"
    )
    assert fill("curl http://localhost:3000/healthz", reader) == "curl http://127.0.0.1:3111/healthz"
    assert fill("SECRET_KEY=KEY ALLOWED_HOSTS=zerosource.example", reader) == (
        "SECRET_KEY=zs_key ALLOWED_HOSTS=zerosource.example"
    )
    assert fill("DATABASE_URL=postgresql://user:secret@db.example/zerosource", reader).endswith("real/one")
    with pytest.raises(AssertionError, match=r"app\.example stands for nothing"):
        fill("curl http://app.example/x", reader)


@pytest.mark.parametrize(
    ("expected", "said", "lacks"),
    [
        ("made: a\n...\nend", "made:  a\nx\nend\n", ""),
        ("key zs_... is made", "key zs_123 is made", ""),
        ("two\none", "one\ntwo", "one"),
        ("made: a", "made: a, b", "made: a"),
    ],
)
def test_an_output_that_differs_is_told(expected: str, said: str, lacks: str) -> None:
    assert outputs.lacking(expected, said) == lacks


@pytest.mark.parametrize(
    ("expected", "found", "shape", "fits"),
    [
        ({"a": [1, "x..."]}, {"a": [1, "xyz"]}, False, True),
        ({"a": 1}, {"a": 2}, False, False),
        ({"a": 1}, {"a": 2.5}, True, True),
        ({"a": 1}, {"a": "2"}, True, False),
        ({"a": 1}, {"a": True}, True, False),
        ({"a": 1}, {"a": 1, "b": 2}, True, False),
        ([1], [1, 2], False, False),
        ([1], [1, 2], True, True),
        ([1, 2], [1], True, False),
        ({"a": {}}, {"a": {"b": 1}}, True, False),
    ],
)
def test_json_that_differs_is_told(expected: Any, found: Any, shape: bool, fits: bool) -> None:
    assert (outputs.different(expected, found, shape=shape) == "") == fits


@pytest.mark.parametrize(
    "text",
    [
        "manage.py importmapings",
        "python manage.py serve --prt 1",
        "importmapings",
        "exportschema --form json",
        "make rum",
        "make chaos SED=7",
        "MAX_ROW_BYTE",
        "MAX_ROWS_*",
        "ZERO_UPSTRAEM_DB",
        "ZS999",
        "zerosource_row_total",
        "ZerosourceGone",
        "docs/nothing.md",
        "nothing.py",
        "deploy/kubernets",
        "/helthz",
        "/metadata/nothing",
        "connection refusd",
    ],
)
def test_inline_code_that_names_nothing_is_told(text: str) -> None:
    with pytest.raises(AssertionError):
        check_code(text)
    (told,) = check_page(parse("docs/page.md", f"a\n\nSee `{text}` and `{text.lower()[:1]}`.\n"))
    assert told.startswith(f"docs/page.md:3: `{text}`: ")


@pytest.mark.parametrize(
    "line",
    [
        "WARNING changesource.consumers: connection refused app_id=shop",
        "INFO changesource.refusals: connection refused app_id=shop",
        "WARNING changesource.refusals: connection refused sop=1",
        "WARNING changesource.refusals: connection refusd app_id=shop",
        '{"level": "WARNING", "logger": "changesource.refusals", "event": "connection refused"}',
        "connection refused",
    ],
)
def test_a_line_that_nothing_logs_is_told(line: str) -> None:
    with pytest.raises(AssertionError):
        outputs.check_logged(line)


@pytest.mark.parametrize(
    ("run_by", "text", "why"),
    [
        ("tests/e2e/test_nothing.py::test_it", "make run", "there is no tests/e2e/test_nothing.py"),
        ("tests/e2e/test_clean_clone.py::test_it", "make run", "has no test_it"),
        ("tests/e2e/test_clean_clone.py", "make run", "say which test"),
        ("tests/e2e/test_clean_clone.py::test_make_run_then_make_zero", "make screenshots", "'make screenshots'"),
    ],
)
def test_a_test_that_does_not_run_a_block_is_told(run_by: str, text: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_runs(block(text, run_by=run_by))


def test_manifests_metrics_units_and_packages_that_are_wrong_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProcessError):
        formats.check_yaml("scrape_configs: [{job: a}]", tmp_path)
    with pytest.raises(AssertionError, match="nothing here reads"):
        formats.check_yaml("a: 1", tmp_path)
    with pytest.raises(ProcessError):
        formats.check_promql("rate(zerosource_rows_total", tmp_path)
    with pytest.raises(AssertionError, match="zerosource_row_total"):
        formats.check_promql("rate(zerosource_row_total[1m])", tmp_path)
    with pytest.raises(AssertionError, match="there is no command serv"):
        formats.check_unit("[Service]\nExecStart=/opt/python manage.py serv\n")
    with pytest.raises(AssertionError, match="deploy/kubernetes has no deploy/nothing"):
        kubectl.main(["logs", "deploy/nothing"])
    with pytest.raises(AssertionError, match="devtools pins no left-pad"):
        npm.main(["install", "left-pad"])
    with pytest.raises(AssertionError, match="here"):
        npm.main(["install", "@rocicorp/zero@0.9"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("", "", ""),
        ('"ada"}]\n', '"eve"}]\n', "the rows are "),
        (', {"id": "ada"}', "", "the rows are "),
        ('"path": "_id"', '"pth": "_id"', "ZS110"),
        ('"columns"', '"colums"', "ZS110"),
    ],
)
def test_a_recipe_that_gives_other_rows_is_told(
    mongodb: MongoServer, mongo: Database[Any], old: str, new: str, why: str
) -> None:
    page = parse("docs/page.md", RECIPE.replace(old, new, 1) if old else RECIPE)
    recipes = Recipes(mongodb.uri, mongo.name, page.blocks)
    told = ""
    try:
        for one in page.blocks:
            recipes.run(one)
        recipes.finish()
    except Exception as error:  # noqa: BLE001 - whatever is told
        told = str(error)
    assert why in told if why else told == ""


def test_all_that_is_wrong_in_a_page_is_told_at_once(shell: Shell, reader: Reader) -> None:
    text = "```sh\ntrue\nfalse\nexit 4\n```\n\n```json file=a.json\n{\n```\n\n```text output\nx\n```\n"
    run = Run(parse("docs/page.md", text), reader, shell)
    run.run()
    places = [fault.split(": ")[0] for fault in run.faults]
    assert places == ["docs/page.md:3", "docs/page.md:4", "docs/page.md:8", "docs/page.md:12"]
    assert run.counts == {"sh": 1}
    assert json.dumps(sorted(run.counts)) == '["sh"]'


def test_the_readme_has_blocks() -> None:
    assert len(read(README).blocks) > 5
