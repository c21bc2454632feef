"""Dockerfile and compose.yaml, as far as they can be told without an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from changesource.conf import read_settings
from devtools.dependencies import PRODUCTION
from devtools.processes import ProcessError
from tests.harness.containers import read_variables
from tests.harness.documentation import README, ROOT
from tests.harness.image import BASE, DOCKERFILE, ignore_rules, ignored, read_dockerfile

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
GIVEN = {
    "CHANGE_SOURCE_API_KEYS": "0123456789abcdef0123456789abcdef",
    "SECRET_KEY": "of-fifty-characters-or-more-as-they-should-be-made",
    "DJANGO_SUPERUSER_PASSWORD": "password",
    "ZERO_ADMIN_PASSWORD": "password",
}


def environment(name: str) -> dict[str, str]:
    """A service's variables, as compose fills them in from ``GIVEN``."""

    def filled(match: re.Match[str]) -> str:
        return GIVEN.get(match[1]) or {"-": match[3]}[match[2]]

    return {key: VARIABLE.sub(filled, str(value)) for key, value in SERVICES[name].get("environment", {}).items()}


def test_every_service_is_pinned_checked_and_started_again() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        if name not in OURS:
            assert re.fullmatch(r"[\w/-]+:\d+(\.\d+)*(-alpine)?", service["image"]), name
            assert service["healthcheck"]["test"][0] == "CMD", name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES
            assert how == {"condition": "service_healthy"}
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        # Nothing is open to the network that the machine is in.
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_our_variables_are_settings_and_lead_to_the_other_services(tmp_path: Path) -> None:
    assert OURS == {"zerosource"}
    service = SERVICES["zerosource"]
    assert service["deploy"] == {"replicas": 2}
    found = read_variables(environment("zerosource"), tmp_path)
    for url in (found.mongodb_uri, found.redis_url, found.database_url):
        host = re.sub(r".*@", "", str(url).split("//")[1]).split(":")[0]
        assert host in service["depends_on"]
    assert found.api_keys == (GIVEN["CHANGE_SOURCE_API_KEYS"],)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    user, password, database = (
        SERVICES["postgres"]["environment"][f"POSTGRES_{what}"] for what in ("USER", "PASSWORD", "DB")
    )
    assert found.database_url == f"postgresql://{user}:{password}@postgres:5432/{database}"
    assert "--replSet" in SERVICES["mongo"]["command"]
    assert "rs.initiate" in SERVICES["mongo"]["healthcheck"]["test"][-1]


def test_zero_cache_finds_the_servers() -> None:
    found = environment("zero-cache")
    documented = set(re.findall(r"`(ZERO_\w+)`", README.read_text()))
    assert found.keys() <= documented
    port = read_settings({"SECRET_KEY": "any"}, ROOT).port
    assert (
        found["ZERO_UPSTREAM_DB"] == f"ws://zero:{GIVEN['CHANGE_SOURCE_API_KEYS']}@zerosource:{port}/changes/v0/stream"
    )
    assert found["ZERO_LOG_LEVEL"] == "warn"


def test_what_has_to_be_given_is_said_at_the_head() -> None:
    text = (ROOT / "compose.yaml").read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    wanted = {match[1] for match in VARIABLE.finditer(text) if match[2] == "?"}
    assert wanted == GIVEN.keys()
    assert {name for name in wanted if f"{name} " in head} == wanted


def test_the_image_is_made_of_the_project_alone() -> None:
    rules = ignore_rules()
    for inside in (
        "manage.py",
        "requirements.txt",
        "requirements-tracing.txt",
        "changesource/static/changesource/admin.css",
        "templates/400.html",
    ):
        assert not ignored(Path(inside), rules), inside
        assert (ROOT / inside).is_file()
    for outside in (".env", "data/secret_key", ".git/config", "tests/conftest.py", "changesource/__pycache__/a.pyc"):
        assert ignored(Path(outside), rules), outside


def test_the_last_stage_is_as_an_image_should_be() -> None:
    build, image = read_dockerfile(DOCKERFILE.read_text())
    assert build.base == image.base == BASE
    for file in PRODUCTION:
        assert [
            arguments
            for _, arguments, _ in build.steps
            if f"-r /tmp/{file}" in arguments and "--require-hashes" in arguments
        ], file
    assert not any("requirements-dev" in arguments for _, arguments, _ in build.steps)
    assert [arguments for step, arguments, _ in image.steps if step == "COPY"] == [
        "--from=build /opt/zerosource /opt/zerosource"
    ]
    assert image.user.split(":")[0] != "0"
    assert image.user.replace(":", "").isdigit()
    assert image.ports == ["3000"]
    assert (image.entrypoint, image.command) == (["python", "manage.py"], ["serve"])
    assert image.healthcheck[0] == "python"
    assert image.environment["DATA_DIR"] == image.environment["TMPDIR"] == image.volumes[0]


@pytest.mark.parametrize("instruction", ["ADD", "ONBUILD", "SHELL"])
def test_an_instruction_that_is_not_known_is_not_passed_over(instruction: str) -> None:
    with pytest.raises(ProcessError, match=instruction):
        read_dockerfile(f"FROM {BASE}\n{instruction} a b\n")
