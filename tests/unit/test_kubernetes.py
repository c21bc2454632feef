"""deploy/kubernetes: what `kubectl kustomize` builds of it is what Kubernetes takes, and what zerosource needs."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.harness.containers import read_variables
from tests.harness.documentation import ROOT
from tests.harness.image import DOCKERFILE, read_dockerfile

KUBERNETES = ROOT / "deploy" / "kubernetes"
FORMS = ("all-in-one", "split")
OLDEST, NEWEST = "1.30", "1.37"
Manifest = dict[str, Any]
# What the README has operators make, by `kubectl create secret`, with what each key may hold.
SECRETS = {
    ("mongo-secret", "uri"): "mongodb://zero:secret@mongo:27017/app?replicaSet=rs0",
    ("change-source-secret", "api-keys"): "0123456789abcdef0123456789abcdef",
    ("change-source-secret", "secret-key"): "of-fifty-characters-or-more-as-they-should-be-made",
    ("change-source-secret", "database-url"): "postgresql://zero:secret@postgres:5432/zero",
    ("change-source-secret", "redis-url"): "redis://redis:6379/0",
}


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder, without a word of warning; by the kubectl that is pinned."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=FORMS)
def built(request: pytest.FixtureRequest) -> list[Manifest]:
    """Every manifest of a form."""
    return kustomize(KUBERNETES / "overlays" / request.param)


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each Deployment's pod template, and its one container."""
    for deployment in of_kind(manifests, "Deployment"):
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        yield template, container


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector, or a Service's plain one, fits these labels."""
    if not {"matchLabels", "matchExpressions"} & selector.keys():
        return bool(selector) and selector.items() <= labels.items()
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def variables(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """The environment that Kubernetes would make; a variable of the pod that only others refer to is left out."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        (config,) = [
            one for one in of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        found |= config["data"]
    for entry in container["env"]:
        if "value" in entry:
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], entry["value"])
        elif "secretKeyRef" in entry["valueFrom"]:
            reference = entry["valueFrom"]["secretKeyRef"]
            found[entry["name"]] = SECRETS[reference["name"], reference["key"]]
        else:
            assert entry["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
            found[entry["name"]] = "10.1.2.3"
    found.pop("POD_IP", None)
    return found


def validate(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for version in (OLDEST, NEWEST):
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_kubernetes_takes_it(built: list[Manifest]) -> None:
    assert len(built) >= 6
    validate(built)


def test_the_base_is_valid_by_itself() -> None:
    files = [path for path in (KUBERNETES / "base").iterdir() if path.name != "kustomization.yaml"]
    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    assert {path.name for path in files} == set(kustomization["resources"])
    validate([yaml.safe_load(path.read_text()) for path in files])


def test_a_manifest_that_is_wrong_is_found() -> None:
    """What the check above rests on: what is misspelt, left out, or of another type is refused."""
    right = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())
    for place, value in (("replica", 3), ("replicas", "three"), ("selector", None), ("template", None)):
        wrong = copy.deepcopy(right)
        wrong["spec"][place] = value
        if value is None:
            del wrong["spec"][place]
        with pytest.raises(kubernetes_validate.ValidationError):
            validate([wrong])


def test_the_deployment_that_was_asked_for(built: list[Manifest]) -> None:
    """Its name, image, secret, and, where no autoscaler says how many, three pods."""
    deployment = of_kind(built, "Deployment")[0]
    _, container = next(pods(built))
    assert (deployment["metadata"]["name"], container["name"]) == ("change-source", "change-source")
    assert container["image"] == "zero-source-mongodb:latest"
    uri = {"name": "MONGODB_URI", "valueFrom": {"secretKeyRef": {"name": "mongo-secret", "key": "uri"}}}
    assert uri in container["env"]
    scalers = of_kind(built, "HorizontalPodAutoscaler")
    assert deployment["spec"].get("replicas") == (None if scalers else 3)
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] == "change-source"
        assert scaler["spec"]["minReplicas"] >= 3
        assert container["resources"]["requests"]["cpu"], "a share of it is what is scaled by"


def test_selectors_find_the_pods_that_they_are_for(built: list[Manifest]) -> None:
    labels = {
        deployment["metadata"]["name"]: deployment["spec"]["template"]["metadata"]["labels"]
        for deployment in of_kind(built, "Deployment")
    }

    def found(selector: Manifest) -> set[str]:
        return {name for name, own in labels.items() if selects(selector, own)}

    for deployment in of_kind(built, "Deployment"):
        assert found(deployment["spec"]["selector"]) == {deployment["metadata"]["name"]}
        (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert found(spread["labelSelector"]) == {deployment["metadata"]["name"]}
    (service,), (budget,) = of_kind(built, "Service"), of_kind(built, "PodDisruptionBudget")
    assert found(service["spec"]["selector"]) == found(budget["spec"]["selector"]) == {"change-source"}
    (policy,) = of_kind(built, "NetworkPolicy")
    assert found(policy["spec"]["podSelector"]) == labels.keys()


def test_every_variable_is_a_setting_and_is_taken(built: list[Manifest], tmp_path: Path) -> None:
    for _, container in pods(built):
        found = read_variables(variables(container, built), tmp_path)
        assert found.mongodb_uri == SECRETS["mongo-secret", "uri"]
        assert not found.debug
        if container["args"] == ["serve"]:
            # Its own watcher and SQLite: then mappings come from elsewhere, and keys from the environment.
            assert found.redis_url is None
            assert found.has_managed_source
        else:
            assert found.redis_url
            assert found.database_url.startswith("postgresql://")
        if container["args"][0] == "serve":
            assert found.api_keys
            assert "10.1.2.3" in found.allowed_hosts
    assert sorted(container["args"] for _, container in pods(built)) in (
        [["serve"]],
        [["runwatcher"], ["serve", "--no-watcher"]],
    )


def test_ports_and_outgoing_ports(built: list[Manifest], tmp_path: Path) -> None:
    _, container = next(pods(built))
    (port,) = container["ports"]
    settings = read_variables(variables(container, built), tmp_path)
    assert port["containerPort"] == settings.port
    (service,) = of_kind(built, "Service")
    assert [(one["port"], one["targetPort"]) for one in service["spec"]["ports"]] == [(settings.port, port["name"])]
    (policy,) = of_kind(built, "NetworkPolicy")
    (incoming,) = policy["spec"]["ingress"]
    assert [one["port"] for one in incoming["ports"]] == [port["name"]]
    outgoing = {one["port"] for rule in policy["spec"]["egress"] for one in rule["ports"]}
    stores = {5432, 6379} if settings.redis_url else set()
    assert outgoing == {53, 27017, 80, 443} | stores
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_prometheus_finds_every_pod_by_the_docs(built: list[Manifest], tmp_path: Path) -> None:
    """The rules keep each pod by its labels and its port, at which its metrics are."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "kubernetes.md").read_text(), re.M | re.S)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    for template, container in pods(built):
        (port,) = container["ports"]
        labels = {re.sub(r"\W", "_", name): value for name, value in template["metadata"]["labels"].items()}
        told = {f"__meta_kubernetes_pod_label_{name}": value for name, value in labels.items()}
        told["__meta_kubernetes_pod_container_port_name"] = port["name"]
        for rule in job["relabel_configs"]:
            (source,) = rule["source_labels"]
            assert rule["action"] == "keep"
            assert re.fullmatch(rule["regex"], told[source])
        found = read_variables(variables(container, built), tmp_path)
        served = found.watcher_metrics_port if container["args"] == ["runwatcher"] else found.port
        assert port["containerPort"] == served


def test_nothing_is_lost_by_a_rolling_update(built: list[Manifest]) -> None:
    """A pod goes once another is ready, serves on until nobody is sent to it, and has the time to end."""
    deployment = of_kind(built, "Deployment")[0]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    template, container = next(pods(built))
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    readiness = container["readinessProbe"]
    assert waits >= 5
    assert template["spec"]["terminationGracePeriodSeconds"] >= waits + 15
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= 10
    startup = container["startupProbe"]
    # The database is waited for up to a minute, then the mappings.
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


def test_pods_may_do_no_more_than_they_need(built: list[Manifest]) -> None:
    image = read_dockerfile(DOCKERFILE.read_text())[-1]
    (account,) = of_kind(built, "ServiceAccount")
    assert not account["automountServiceAccountToken"]
    for template, container in pods(built):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        own = pod["securityContext"]
        assert f"{own['runAsUser']}:{own['runAsGroup']}" == image.user
        assert own["fsGroup"] == own["runAsGroup"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert (mount["name"], [mount["mountPath"]]) == (volume["name"], image.volumes)
        assert container["resources"]["limits"]["memory"]
        assert pod["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("form", FORMS)
def test_the_overlay_of_the_docs_builds(form: str, tmp_path: Path) -> None:
    """With an image of one's own, a namespace, and settings, on either form."""
    (block,) = re.findall(r"^ +```yaml\n(.*?)^ +```", (ROOT / "docs" / "kubernetes.md").read_text(), re.M | re.S)
    text = textwrap.dedent(block).replace("overlays/all-in-one", f"overlays/{form}")
    shutil.copytree(KUBERNETES, tmp_path / "zerosource" / "deploy" / "kubernetes")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(text)
    manifests = kustomize(tmp_path / "mine")
    validate(manifests)
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"zero"}
    for _, container in pods(manifests):
        assert container["image"].startswith("images.example/")
        found = read_variables(variables(container, manifests), tmp_path)
        assert (found.schema_url, found.table_mappings_url) == ("http://app/schema", "http://app/mappings")
