"""kubectl for pages, without a cluster: what it would create or apply is made by the real one and held against schemas.

For other commands, what they name must be in ``deploy/kubernetes``, and what they run in a pod a command of manage.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.37"
RESOURCE = re.compile(r"^(?P<kind>deploy(?:ment)?|service|svc|hpa|configmap|cm|pdb)(?:\.apps)?/(?P<name>[\w.-]+)$")
KINDS = {"deploy": "Deployment", "svc": "Service", "hpa": "HorizontalPodAutoscaler", "cm": "ConfigMap"}
KINDS |= {"pdb": "PodDisruptionBudget", "deployment": "Deployment", "service": "Service", "configmap": "ConfigMap"}


def real(*args: str) -> list[dict[str, Any]]:
    """The manifests that kubectl itself writes. Raises ``CalledProcessError``."""
    pinned = Path(sys.executable).parent / "kubectl"
    binary = str(pinned) if pinned.exists() else shutil.which("kubectl", path="/usr/local/bin:/usr/bin:/bin")
    assert binary is not None, "kubectl is not installed"
    done = subprocess.run([binary, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def validate(manifests: list[dict[str, Any]]) -> None:
    """Fails at a manifest that Kubernetes would refuse."""
    for manifest in manifests:
        # kubectl writes it of what does not exist yet, and the schemas know it as a time alone.
        if manifest["metadata"].get("creationTimestamp", "") is None:
            del manifest["metadata"]["creationTimestamp"]
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        print(f"{manifest['kind'].lower()}/{manifest['metadata']['name']} created")


def deployed() -> set[tuple[str, str]]:
    """Kind and name of all that the overlays make."""
    overlays = (ROOT / "deploy" / "kubernetes" / "overlays").iterdir()
    return {(one["kind"], one["metadata"]["name"]) for path in overlays for one in real("kustomize", str(path))}


def main(args: list[str]) -> None:
    """Do what can be done of a command. Fails where it is wrong."""
    if args[0] == "create":
        validate(real(*args, "--dry-run=client", "-o", "yaml"))
        return
    if args[0] == "apply":
        what = ["kustomize", args[args.index("-k") + 1]] if "-k" in args else [*args, "--dry-run=client", "-o", "yaml"]
        validate(real(*what))
        return
    named = [match for match in map(RESOURCE.match, args) if match]
    assert named, f"nothing is known of `kubectl {' '.join(args)}`"
    for match in named:
        assert (KINDS[match["kind"]], match["name"]) in deployed(), f"deploy/kubernetes has no {match[0]}"
    if "--" in args:
        inside = args[args.index("--") + 1 :]
        assert inside[:2] == ["python", "manage.py"], f"nothing is known of {inside}"
        subprocess.run([sys.executable, ROOT / "manage.py", inside[2], "--help"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (AssertionError, kubernetes_validate.ValidationError) as error:
        sys.exit(f"kubectl: {error}")
