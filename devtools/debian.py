"""Debian roots made by debootstrap, and commands that run in them as on a machine of its own.

They are isolated by namespaces of the kernel, which take their mounts and processes with them when a command ends, so
that nothing is left mounted or running. The network is this machine's. What reaches package registries from here is
taken over: the proxies and indexes of the environment and of pip, npm and apt, and the authorities that are trusted.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.processes import ManagedProcess, ProcessError

RELEASE = "bookworm"
AUTHORITIES = Path("etc/ssl/certs/ca-certificates.crt")
# The child is the first process of a namespace of its own, as in a container, and dies with us.
ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# What a command has of the environment around it: how packages are reached from here.
OUTSIDE = re.compile(
    r"^(pip_.*|npm_config_.*|.*_proxy|ssl_cert_file|node_extra_ca_certs|requests_ca_bundle|git_ssl_cainfo)$", re.I
)
AUTHORITIES_OF = re.compile(r"(^|_)(cert|cert_file|ca_certs|ca_bundle|cainfo|cafile)$", re.I)
RUN_SECONDS = 900
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The shell stays as the first process, and collects those that lose their parent, as an init does.
MACHINE = (
    'mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && mount -t devpts devpts "$0/dev/pts" '
    '&& mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm" && { chroot "$@"; exit $?; }'
)


def run(command: Sequence[str], log: Path, seconds: float = RUN_SECONDS) -> None:
    """Run to the end, with all that is said appended to ``log``; ``ProcessError`` with its end where that fails."""
    with log.open("ab") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=seconds
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ProcessError(f"{shlex.join(command)[:300]} ended with {done.returncode}:\n{tail}")


def bootstrap(root: Path, log: Path, packages: Sequence[str] = ()) -> None:
    """Make a minimal Debian in ``root``, with ``packages``, which trusts the authorities that are trusted here."""
    included = ",".join(("ca-certificates", *packages))
    mirror = [site for site, suite, _ in apt_sources() if suite == RELEASE][:1]
    run(["debootstrap", "--variant=minbase", f"--include={included}", RELEASE, str(root), *mirror], log)
    shutil.copyfile(_authorities(), root / AUTHORITIES)


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables of ``environment`` that say how packages are reached, as they are good in a root."""
    found = {name: _inside(name, value) for name, value in environment.items() if OUTSIDE.match(name)}
    return {name: value for name, value in found.items() if value}


def _inside(name: str, value: str) -> str:
    """A setting without the folders and files of this machine; but the authorities are in a root, too."""
    if AUTHORITIES_OF.search(name):
        return f"/{AUTHORITIES}"
    return " ".join(word for word in value.split() if not word.removeprefix("file://").startswith("/"))


def _authorities() -> Path:
    return Path(os.environ.get("SSL_CERT_FILE") or Path("/") / AUTHORITIES)


def apt_sources() -> list[tuple[str, str, str]]:
    """Site, suite and component of what apt has here for the release, its updates and its security updates."""
    if shutil.which("apt-get") is None:
        return []
    asked = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    found = {(site, suite, component) for site, suite, component in map(str.split, told.splitlines())}
    return sorted(one for one in found if one[1] in (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"))


class Machine:
    """A Debian in ``root`` as a newcomer finds it: ``packages`` are there, and a user who may not become root."""

    USER = "newcomer"

    def __init__(self, root: Path, log: Path, packages: Sequence[str]) -> None:
        self.root = root
        self.log = log
        self.packages = tuple(packages)

    def home(self, user: str) -> Path:
        """A user's home as it is seen from outside."""
        return self.root / "root" if user == "root" else self.root / "home" / user

    def build(self) -> None:
        """Install it, with the package clients set up as they are here."""
        bootstrap(self.root, self.log, self.packages)
        shutil.copyfile("/etc/hosts", self.root / "etc/hosts")
        if sources := apt_sources():
            lines = [f"deb {site} {suite} {component}\n" for site, suite, component in sources]
            (self.root / "etc/apt/sources.list").write_text("".join(lines))
        (self.root / "etc/apt/apt.conf.d/99outside").write_text(_apt_settings())
        (self.root / "etc/pip.conf").write_text(_pip_settings())
        run(["chroot", str(self.root), "useradd", "--create-home", "--shell", "/bin/bash", self.USER], self.log)
        if (npmrc := Path.home() / ".npmrc").exists():
            for user in (self.USER, "root"):
                shutil.copyfile(npmrc, self.home(user) / ".npmrc")

    def install(self, packages: Sequence[str]) -> None:
        """Have root install Debian packages."""
        script = f"apt-get update && apt-get install --yes --no-install-recommends {shlex.join(packages)}"
        run(self._words("root", "/", script, {"DEBIAN_FRONTEND": "noninteractive"}), self.log)

    def start(
        self, command: str, log: Path, user: str, settings: Mapping[str, str] | None = None, folder: str = "~"
    ) -> ManagedProcess:
        """Start a shell's command as ``user`` in ``folder``, with an environment of its own and ``settings``."""
        return ManagedProcess(
            self._words(user, folder, command, settings or {}), log, {"PATH": os.environ.get("PATH", os.defpath)}
        )

    def _words(self, user: str, folder: str, command: str, settings: Mapping[str, str]) -> list[str]:
        home = "/root" if user == "root" else f"/home/{user}"
        environment = {"PATH": PATH, "HOME": home, "USER": user, "LANG": "C.UTF-8", **outside(os.environ), **settings}
        words = ["/usr/bin/env", "-i", f"--chdir={folder.replace('~', home)}"]
        words += [f"{name}={value}" for name, value in environment.items()]
        inside = [f"--userspec={user}", str(self.root), *words, "/bin/sh", "-c", command]
        return [*ISOLATED, "sh", "-c", MACHINE, str(self.root), *inside]


def _apt_settings() -> str:
    """What apt is told here about fetching, such as a proxy."""
    if shutil.which("apt-config") is None:
        return ""
    told = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in told.splitlines() if re.match(r"Acquire::(https?|ftp|Retries|Check)", line))


def _pip_settings() -> str:
    """What pip's files of settings say here, as one file."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    lines = ["[global]"]
    for name, value in re.findall(r"^global\.([\w-]+)='(.*)'$", told, re.M):
        if words := _inside(name, value.replace("\\n", " ")):
            lines.append(f"{name} = {words}")
    return "\n".join(lines) + "\n"
