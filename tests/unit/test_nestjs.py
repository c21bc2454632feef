"""Settings of the NestJS zero-sources server: taken under our names, refused, or said to have no meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from changesource.conf import read_settings
from changesource.exceptions import SettingError
from changesource.nestjs import LEVELS, PLACES, REFUSED, SOURCES, WITHOUT_MEANING, translate
from changesource.services.announcing import translated
from tests.harness.documentation import ROOT, table

GUIDE = ROOT / "docs" / "moving-from-nestjs.md"
TOKEN = "a-token-of-some-length"
CONFIG = f"""\
# what the server of the other project reads
db:
  uri: mongodb://db.example:27017/library?replicaSet=rs0
  publish: [books, readers]
zero:
  auth:
    token: {TOKEN}
  kv:
    provider: zqlite
    zqlite:
      file: ./watermarks.db
auth:
  jwt: {{secret: another-secret-of-theirs, tokenLifetime: 60}}
"""


def write(folder: Path, content: str = CONFIG, name: str = "config.yml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_the_file_gives_what_is_not_set(tmp_path: Path) -> None:
    write(tmp_path)
    found = read_settings({}, tmp_path)
    assert found.mongodb_uri == "mongodb://db.example:27017/library?replicaSet=rs0"
    assert (found.mongodb_database, found.api_keys) == ("library", (TOKEN,))
    assert TOKEN in found.secrets
    write(tmp_path, f"auth: {{token: {TOKEN}}}")
    assert read_settings({}, tmp_path).api_keys == (TOKEN,)
    write(tmp_path, f"{{auth: {{token: one-that-is-elsewhere}}, zero: {{auth: {{token: {TOKEN}}}}}}}")
    assert read_settings({}, tmp_path).api_keys == (TOKEN,)


def test_our_own_names_win(tmp_path: Path) -> None:
    """With another URI the database that the file names is none that it speaks of."""
    write(tmp_path, CONFIG.replace("  publish", "  db: other\n  publish"))
    assert read_settings({}, tmp_path).mongodb_database == "other"
    found = read_settings(
        {"MONGODB_URI": "mongodb://here/mine", "CHANGE_SOURCE_API_KEYS": "sixteen-letters!"}, tmp_path
    )
    assert (found.mongodb_uri, found.mongodb_database) == ("mongodb://here/mine", "mine")
    assert found.api_keys == ("sixteen-letters!",)
    assert read_settings({"MONGODB_DATABASE": "mine"}, tmp_path).mongodb_database == "mine"


def test_the_file_is_found_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, name="etc/zero.yaml")
    assert read_settings({}, tmp_path).mongodb_uri is None
    for name in ("etc/zero.yaml", str(tmp_path / "etc" / "zero.yaml")):
        assert read_settings({"CONFIG_FILE": name}, tmp_path).mongodb_database == "library"
    write(tmp_path, "CONFIG_FILE=etc/zero.yaml\n", ".env")
    assert read_settings({}, tmp_path).mongodb_database == "library"


@pytest.mark.parametrize(
    ("lines", "urls", "files"),
    [
        ("source: file", (None, None), ("etc/s.json", "etc/m.json")),
        ("source: url", ("http://app/schema", "http://app/mappings"), (None, None)),
    ],
)
def test_the_schema_comes_from_where_it_says(
    tmp_path: Path, lines: str, urls: tuple[str | None, ...], files: tuple[str | None, ...]
) -> None:
    """Files are looked for beside theirs."""
    write(
        tmp_path,
        f"schema:\n  {lines}\n  schemaUrl: http://app/schema\n  tableMappingsUrl: http://app/mappings\n"
        "  schemaFile: ./s.json\n  tableMappingsFile: m.json\n",
        "etc/config.yml",
    )
    found = read_settings({"CONFIG_FILE": "etc/config.yml"}, tmp_path)
    assert (found.schema_url, found.table_mappings_url) == urls
    assert (found.schema_file, found.table_mappings_file) == tuple(name and tmp_path / name for name in files)
    # A schema that is set by our name stands alone; the mappings still come from the file.
    found = read_settings({"CONFIG_FILE": "etc/config.yml", "SCHEMA_URL": "http://own/schema"}, tmp_path)
    assert (found.schema_url, found.schema_file) == ("http://own/schema", None)
    assert (found.table_mappings_url, found.table_mappings_file) == (urls[1], files[1] and tmp_path / files[1])


@pytest.mark.parametrize(("source", "kept"), [("url", "url"), ("FILE", "file"), ("file", "file")])
def test_schema_source_chooses(tmp_path: Path, source: str, kept: str) -> None:
    variables = {
        "SCHEMA_SOURCE": source,
        "SCHEMA_FILE": "./s.json",
        "SCHEMA_URL": "http://app/schema",
        "TABLE_MAPPINGS_FILE": "./m.json",
        "TABLE_MAPPINGS_URL": "http://app/mappings",
    }
    found = read_settings(variables, tmp_path)
    given = (found.schema_url, found.table_mappings_url), (found.schema_file, found.table_mappings_file)
    wanted = (
        (("http://app/schema", "http://app/mappings"), (None, None))
        if kept == "url"
        else ((None, None), (tmp_path / "s.json", tmp_path / "m.json"))
    )
    assert given == wanted


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("log", "INFO"), ("verbose", "DEBUG"), ("warn", "WARNING"), ("fatal", "CRITICAL"), ("debug", "DEBUG")],
)
def test_their_levels_of_the_log(tmp_path: Path, theirs: str, ours: str) -> None:
    assert read_settings({"LOG_LEVEL": theirs}, tmp_path).log_level == ours


def test_what_has_no_meaning_is_told_once_each(tmp_path: Path) -> None:
    write(tmp_path)
    variables = {"WATERMARK_STORAGE": "nats-kv", "NATS_SERVERS": "nats://u:hunter2@nats:4222", "NATS_BUCKET": ""}
    lines = translated(translate(variables, tmp_path))
    assert lines[0] == "Of NestJS      config.yml: db.uri as MONGODB_URI, zero.auth.token as CHANGE_SOURCE_API_KEYS"
    told = [line.partition(" has no meaning here: ") for line in lines[1:]]
    assert [name.split()[-1] for name, _, why in told if why] == [
        "WATERMARK_STORAGE",
        "NATS_SERVERS",
        "db.publish",
        "zero.kv",
        "auth.jwt",
    ]
    assert not any(secret in "".join(lines) for secret in (TOKEN, "hunter2", "another-secret"))
    assert translated(translate({}, tmp_path / "elsewhere")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("zero: {auth: {token: [hunter2", "config.yml is not YAML (line 1)"),
        ("- hunter2", "config.yml holds no settings"),
        ("{valid: 2025-02-30, zero: {auth: {token: hunter2}}}", "config.yml is not YAML"),
        ("{mask: 0x_, zero: {auth: {token: hunter2}}}", "config.yml is not YAML"),
        ("{a: !!bool hunter2}", "config.yml is not YAML"),
        ("{a: !!timestamp hunter2}", "config.yml is not YAML"),
        ("schema: {schemaFile: ~nobody-at-all/hunter2}", "schema.schemaFile of config.yml begins with ~"),
        ("zero: {auth: {token: 1234567890123456}}", "zero.auth.token of config.yml must be text"),
        ("zero: {auth: {token: 'hunter2,and-more-of-it'}}", "zero.auth.token of config.yml has a comma or blanks"),
        ("auth: {token: hunter2}", "auth.token of config.yml, as CHANGE_SOURCE_API_KEYS has a key of fewer than 16"),
        ("db: {uri: 'postgres://u:hunter2@h/d'}", "db.uri of config.yml, as MONGODB_URI is not a URL"),
        ("schema: {source: disk}", "schema.source is 'disk'; it must be url or file"),
        ("schema: {source: inline, inlineSchema: {}}", "schema.inlineSchema of config.yml cannot be read from here"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, content: str, words: str) -> None:
    write(tmp_path, content)
    with pytest.raises(SettingError) as caught:
        read_settings({}, tmp_path)
    line = str(caught.value)
    assert line.startswith(f"ZS101 {words}") or words in line
    assert "\n" not in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CONFIG_FILE": "none.yml"}, "none.yml cannot be read: No such file"),
        ({"SCHEMA_SOURCE": "inline"}, "by SCHEMA_FILE"),
        ({"SCHEMA_SOURCE": "disk"}, "it must be url or file"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        read_settings(variables, tmp_path)


def names(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_guide_says_what_is_so(tmp_path: Path) -> None:
    content = GUIDE.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", content, re.M | re.S)
    write(tmp_path, block)
    found = read_settings({}, tmp_path)
    assert (found.mongodb_database, found.api_keys) == ("app", ("a-token-that-zero-cache-sends",))
    assert (found.schema_file, found.table_mappings_file) == (tmp_path / "schema.json", tmp_path / "mappings.json")

    rows = {tuple(re.findall(r"[\w.]*\w", there)): here for there, here in table(GUIDE, "| There | Here |")}
    listed = {name: here for theirs, here in rows.items() for name in theirs}
    idle = {name for name, here in listed.items() if here.startswith("no meaning")}
    assert idle == set(WITHOUT_MEANING)
    assert {name for name, here in listed.items() if here.startswith("refused")} == set(REFUSED)
    assert {place for place, name in PLACES.items() if name not in listed[place]} == set()
    assert set(SOURCES) <= set(names(listed["schema.source"]))
    levels = names(listed["LOG_LEVEL"])
    assert dict(zip(levels[: len(LEVELS)], levels[len(LEVELS) :], strict=True)) == {
        theirs.lower(): ours for theirs, ours in LEVELS.items()
    }
