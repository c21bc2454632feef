"""The Dockerfile without a container engine: its own instructions, carried out in Debian roots made by debootstrap.

What an engine would add is left out: layers, networks, signatures. What it would isolate is isolated by namespaces
of the kernel, which take their mounts with them when the process ends, so that nothing is left mounted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devtools.debian import ISOLATED, RELEASE, bootstrap, outside, run
from devtools.node import PROJECT
from devtools.processes import PROC, ManagedProcess, ProcessError

DOCKERFILE = PROJECT / "Dockerfile"
BASE = f"debian:{RELEASE}-slim"


@dataclass
class Stage:
    """One FROM and what follows: ``steps`` are RUN and COPY in order, each with its arguments and the ENV of before."""

    base: str
    name: str = ""
    steps: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def read_dockerfile(text: str) -> list[Stage]:
    """Return the stages. Fails at what it does not know, rather than leaving something out."""
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        arguments = rest.strip()
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            stages.append(Stage(base, name))
            continue
        stage = stages[-1]
        match instruction:
            case "RUN" | "COPY":
                stage.steps.append((instruction, arguments, dict(stage.environment)))
            case "ENV":
                stage.environment |= dict(word.split("=", 1) for word in shlex.split(arguments))  # type: ignore[misc]
            case "USER":
                stage.user = arguments
            case "WORKDIR":
                stage.workdir = arguments
            case "VOLUME":
                stage.volumes.append(arguments)
            case "EXPOSE":
                stage.ports.append(arguments)
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(arguments)
            case "CMD":
                stage.command = json.loads(arguments)
            case "HEALTHCHECK":
                stage.healthcheck = json.loads(arguments[arguments.index("CMD") + len("CMD") :])
            case _:
                raise ProcessError(f"The Dockerfile has {instruction}, which is not known here.")
    return stages


def ignored(path: Path, rules: Sequence[str]) -> bool:
    """Whether .dockerignore's ``rules`` leave out ``path``, relative to the project: the last that fits says so."""
    found = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = path.parts if rule.startswith("**/") else path.parts[:1]
        if pattern == "*" or any(Path(part).match(pattern) for part in parts):
            found = not rule.startswith("!")
    return found


def ignore_rules() -> list[str]:
    """The rules of .dockerignore."""
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class Image:
    """What the Dockerfile makes, as a root file system in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages = read_dockerfile(DOCKERFILE.read_text())
        self.final = self.stages[-1]

    @property
    def root(self) -> Path:
        """The root of the last stage."""
        return self._root(self.final)

    def _root(self, stage: Stage) -> Path:
        return self.folder / f"stage-{self.stages.index(stage)}"

    def build(self) -> None:
        """Carry out every stage."""
        base = self.folder / "base"
        bootstrap(base, self.folder / "build.log")
        for stage in self.stages:
            assert stage.base == BASE, f"{stage.base}: only {BASE} can be had here"
            run(["cp", "-a", str(base), str(self._root(stage))], self.folder / "build.log")
            for instruction, arguments, environment in stage.steps:
                if instruction == "COPY":
                    self._copy(stage, arguments)
                else:
                    self._shell(stage, arguments, environment)

    def _copy(self, stage: Stage, arguments: str) -> None:
        words, sources = shlex.split(arguments), PROJECT
        if words[0].startswith("--from="):
            name = words.pop(0).removeprefix("--from=")
            sources = self._root(next(stage for stage in self.stages if stage.name == name))
        source, target = words
        start, end = sources / source.lstrip("/"), self._root(stage) / target.lstrip("/")
        end.parent.mkdir(parents=True, exist_ok=True)
        rules = ignore_rules()

        def left_out(folder: str, names: list[str]) -> list[str]:
            if sources != PROJECT:
                return []
            return [name for name in names if ignored((Path(folder) / name).relative_to(PROJECT), rules)]

        if start.is_dir():
            shutil.copytree(start, end, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        else:
            assert not left_out(str(start.parent), [start.name]), f"{source} is left out by .dockerignore"
            shutil.copy2(start, end)

    def _shell(self, stage: Stage, command: str, environment: Mapping[str, str]) -> None:
        own = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        own |= outside(os.environ)
        words = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in {**own, **environment}.items())]
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        inside = ["sh", "-c", script, str(self._root(stage)), *words, "/bin/sh", "-c", command]
        run([*ISOLATED, *inside], self.folder / "build.log")

    def container(self, volume: Path, log: Path, settings: Mapping[str, str], *command: str) -> Container:
        """Start the image as an engine would with ``--read-only``: ``volume`` is what is mounted at VOLUME."""
        stage, root = self.final, self.root
        (mountpoint,) = stage.volumes
        if not volume.exists():
            # As an engine fills a new volume: with the owner and the mode that the image has there.
            shutil.copytree(root / mountpoint.lstrip("/"), volume)
            kept = (root / mountpoint.lstrip("/")).stat()
            os.chown(volume, kept.st_uid, kept.st_gid)
        script = (
            'mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --bind "$1" "$0$2" '
            '&& mount -o remount,bind,ro "$0" && shift 2 && exec chroot "$@"'
        )
        environment = {**stage.environment, **settings}
        words = [f"--userspec={stage.user}", str(root), "/usr/bin/env", "-i", f"--chdir={stage.workdir}"]
        words += [f"{name}={value}" for name, value in environment.items()]
        words += [*stage.entrypoint, *(command or stage.command)]
        path = {"PATH": os.environ["PATH"]}
        return Container([*ISOLATED, "sh", "-c", script, str(root), str(volume), mountpoint, *words], log, path)

    def health(self, settings: Mapping[str, str]) -> int:
        """Run the HEALTHCHECK as the image's user; return its exit code."""
        stage = self.final
        environment = [f"{name}={value}" for name, value in {**stage.environment, **settings}.items()]
        inside = [f"--userspec={stage.user}", str(self.root), "/usr/bin/env", "-i", *environment, *stage.healthcheck]
        return subprocess.run(["chroot", *inside], capture_output=True, check=False, timeout=30).returncode


class Container(ManagedProcess):
    """A running image."""

    @property
    def first(self) -> int:
        """The number that its first process has out here."""
        children = (PROC / str(self.pid) / "task" / str(self.pid) / "children").read_text().split()
        return int(children[0])

    def status(self, name: str) -> list[str]:
        """A line of the first process's /proc/PID/status, such as Uid."""
        text = (PROC / str(self.first) / "status").read_text()
        return next(line.split()[1:] for line in text.splitlines() if line.startswith(f"{name}:"))

    def mounts(self) -> dict[str, set[str]]:
        """The options of each mount below its root, by its place there."""
        lines = (PROC / str(self.first) / "mountinfo").read_text().splitlines()
        return {fields[4]: set(fields[5].split(",")) for fields in map(str.split, lines)}


@contextmanager
def image(folder: Path) -> Iterator[Image]:
    """Build the image in ``folder``, which is removed afterwards, whatever happens."""
    folder.mkdir(parents=True)
    try:
        made = Image(folder)
        made.build()
        yield made
    finally:
        # No device of the root may be left, nor a file that its user may not remove.
        shutil.rmtree(folder)
