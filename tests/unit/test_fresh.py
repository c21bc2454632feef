"""What ``make check-fresh`` takes from the README, and what it takes over of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import debian, fresh
from devtools.processes import ProcessError
from tests.harness.documentation import README


def test_the_readme_has_the_commands() -> None:
    steps = fresh.read_steps(README.read_text())
    assert (steps.run, steps.zero, steps.test) == ("make run", "make zero", "make test")
    assert steps.write.startswith(".venv/bin/python -c '")
    assert steps.write.count(fresh.PLACEHOLDER) == 1


@pytest.mark.parametrize("lost", ["## Try it", "make zero ", "127.0.0.1:PORT", "`make test` sets up"])
def test_a_readme_that_lost_one_is_not_followed(lost: str) -> None:
    text = README.read_text()
    assert lost in text
    with pytest.raises(ProcessError, match="Try it"):
        fresh.read_steps(text.replace(lost, "something else\n"))


def test_what_reaches_registries_is_taken_over_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    given = {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": "localhost,127.0.0.1",
        "PIP_INDEX_URL": "https://packages.example/simple",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path} https://more.example/simple",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_CERT": str(tmp_path / "bundle.pem"),
        "npm_config_registry": "https://npm.example/",
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "bundle.pem"),
        "SECRET_KEY": "not to be known there",
    }
    assert debian.outside(given) == {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": "localhost,127.0.0.1",
        "PIP_INDEX_URL": "https://packages.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.example/simple",
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
        "npm_config_registry": "https://npm.example/",
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
    }
