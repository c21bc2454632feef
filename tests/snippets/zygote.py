"""Runs ``manage.py`` quickly: in forks of a process that has imported the libraries, and nothing of ours.

Most of a command's second goes into those imports, and pages have many commands. A fork reads the page's own manage.py
and settings, in the page's folder, under the page's variables, as a process of its own would.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import runpy
import socket
import sys
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parents[2]
OURS = ("changesource", "zerosource_project", "tests", "__")
# Serving is run as it is: its start is part of what is told of.
AS_IT_IS = ("serve", "runwatcher", "shell", "dbshell")
SHIM = """\
#!{python} -SE
import os, sys
args = sys.argv[1:]
if len(args) < 2 or args[0] != "manage.py" or args[1] in {as_it_is}:
    os.execv({python!r}, [{python!r}, *args])
import json, socket
with socket.socket(socket.AF_UNIX) as way:
    way.connect({address!r})
    asked = json.dumps([args, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(way, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    way.sendall(asked)
    code = way.recv(4)
sys.exit(int.from_bytes(code, "big") if len(code) == 4 else 70)
"""


def shim(address: Path) -> str:
    """The program that stands for ``python`` on a page's path."""
    return SHIM.format(python=str(Path(sys.prefix) / "bin" / "python"), as_it_is=AS_IT_IS, address=str(address))


def libraries() -> list[str]:
    """What a command imports of others, in order; found out in a fork, since it configures Django."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.environ["DJANGO_SETTINGS_MODULE"] = "zerosource_project.settings"
        sys.path.insert(0, str(ROOT))
        django.setup()
        for name in ("django.core.management.commands.check", "changesource.checks", "changesource.services.startup"):
            importlib.import_module(name)
        with os.fdopen(writing, "wb") as out:
            pickle.dump([name for name in sys.modules if not name.startswith(OURS)], out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as found:
        names: list[str] = pickle.load(found)  # noqa: S301 - of our own fork
    os.waitpid(child, 0)
    return names


def serve(address: Path) -> None:
    """Import, then listen until it is ended."""
    for name in libraries():
        try:
            importlib.import_module(name)
        except (ImproperlyConfigured, ImportError):
            sys.modules.pop(name, None)  # it wants settings first
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(16)
        print("listening", flush=True)
        while True:
            way, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(way)
                os._exit(0)
            way.close()
            _reap()


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return


def _answer(way: socket.socket) -> None:
    head, files, _, _ = socket.recv_fds(way, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(head, "big"):
        asked += way.recv(65536)
    child = os.fork()
    if child == 0:
        os._exit(_run(*json.loads(asked), files))
    for file in files:
        os.close(file)
    _, status = os.waitpid(child, 0)
    way.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def _run(args: list[str], folder: str, environment: dict[str, str], files: list[int]) -> int:
    """Be the process that was asked for; return its exit code."""
    for target, file in enumerate(files):
        os.dup2(file, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = args
    sys.path.insert(0, folder)
    code: object = 0
    try:
        runpy.run_path(args[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
