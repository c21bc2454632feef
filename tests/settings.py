"""Django's settings for tests: the project's own, with no developer's ``.env`` and data in a temporary folder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from tests.harness.environment import blank_environment

if "DATA_DIR" not in os.environ:
    os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="zerosource-tests-")
    atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)

for _name, _value in blank_environment().items():
    os.environ.setdefault(_name, _value)

from zerosource_project.settings import *  # noqa: E402, F403
