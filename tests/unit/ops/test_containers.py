"""Image, compose file and Kubernetes manifests: what is pinned, confined and reachable from where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import serve_configs
import yaml

from deployments.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
OPS = ROOT / "ops"
KUBERNETES = "1.34"
BY_DIGEST = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
# What KubeRay 1.4 knows of each level (its API reference); pods are checked by Kubernetes' own schema
KNOWN = {
    "RayService": {"upgradeStrategy", "rayClusterDeletionDelaySeconds", "excludeHeadPodFromServeSvc", "serveService",
                   "serveConfigV2", "rayClusterConfig"},
    "RayCluster": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headServiceAnnotations", "suspend",
                   "gcsFaultToleranceOptions", "headGroupSpec", "workerGroupSpecs", "managedBy"},
    "Autoscaler": {"resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode",
                   "version", "env", "envFrom", "volumeMounts"},
    "Head": {"template", "headService", "enableIngress", "rayStartParams", "serviceType"},
    "Worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "numOfHosts", "suspend",
               "rayStartParams", "template", "scaleStrategy"},
}  # fmt: skip


def load(path: str) -> Any:
    return yaml.safe_load((OPS / path).read_text(encoding="utf-8"))


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load("compose.yaml")["services"]
    return found


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((OPS / "kubernetes" / "rayservice.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def groups() -> dict[str, dict[str, Any]]:
    """Head and worker groups, by name."""
    cluster = manifests()["RayService"]["spec"]["rayClusterConfig"]
    return {"head": cluster["headGroupSpec"], **{each["groupName"]: each for each in cluster["workerGroupSpecs"]}}


# --- Serve configs ----------------------------------------------------------------------------------------------------

STALE = "write them anew: python tests/support/serve_configs.py"


def test_serve_configs_differ_from_the_repositorys_in_what_a_container_needs() -> None:
    assert serve_configs.COMPOSE.read_text(encoding="utf-8") == serve_configs.for_compose(), STALE
    served = manifests()["RayService"]["spec"]["serveConfigV2"]
    assert served == serve_configs.for_kubernetes(), STALE


@pytest.mark.parametrize("text", [serve_configs.for_compose(), serve_configs.for_kubernetes()], ids=["compose", "k8s"])
def test_a_container_listens_and_wants_keys(text: str) -> None:
    config = yaml.safe_load(text)
    assert config["http_options"]["host"] == "0.0.0.0"
    arguments = config["applications"][0]["args"]
    assert arguments["auth"] == {"mode": "keys", "file": "/etc/amser/keys.json"}
    if "auth" in Settings.model_fields:  # deployments/access
        Settings.model_validate(arguments)


# --- Image ------------------------------------------------------------------------------------------------------------


def dockerfile() -> str:
    return (OPS / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_has_a_pinned_base_and_no_root() -> None:
    bases = {
        re.sub(r"^\S+=", "", line.split()[-1]) for line in dockerfile().splitlines() if line.startswith("ARG PYTHON")
    }
    assert len(bases) == 1
    assert all(BY_DIGEST.fullmatch(base) for base in bases)
    assert re.findall(r"^USER (.+)$", dockerfile(), flags=re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in dockerfile()


def test_the_image_copies_files_that_exist_and_that_the_ignore_file_lets_through() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    ignore = (OPS / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


# --- Compose ----------------------------------------------------------------------------------------------------------


def test_only_loopback_is_published() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []


def test_images_of_others_are_pinned_by_digest_and_ours_by_version() -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert project is not None
    images = {name: service["image"] for name, service in services().items()}
    ours = {name for name, image in images.items() if image == f"amser:{project[1]}-${{ACCELERATOR:-cpu}}"}
    assert ours == {"weights", "keys", "cluster"}
    assert {name for name in set(images) - ours if not BY_DIGEST.fullmatch(images[name])} == set()


@pytest.mark.parametrize("name", services())
def test_a_service_is_confined_and_looked_after(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert service["mem_limit"]
    lasting = service["restart"] == "unless-stopped"
    # That of the cluster is in its image
    assert lasting == (name == "cluster" or "test" in service["healthcheck"])


def test_answers_lie_in_memory_on_a_network_of_their_own() -> None:
    redis = services()["redis"]
    assert redis["networks"] == ["store"]
    assert load("compose.yaml")["networks"]["store"] == {"internal": True}
    assert {name for name, service in services().items() if "store" in service.get("networks", ())} == {
        "redis",
        "cluster",
    }
    assert "volumes" not in redis
    assert redis["command"][:5] == ["redis-server", "--save", "", "--appendonly", "no"]


def test_prometheus_reads_where_ray_lists_its_endpoints() -> None:
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yml")["scrape_configs"]}
    (listed,) = jobs["ray"]["file_sd_configs"][0]["files"]
    assert listed == "/tmp/ray/prom_metrics_service_discovery.json"
    assert "ray:/tmp/ray:ro" in services()["prometheus"]["volumes"]
    assert "ray:/tmp/ray" in services()["cluster"]["volumes"]


def test_grafana_expects_the_scrape_interval_of_prometheus() -> None:
    (source,) = load("grafana/provisioning/datasources/amser.yaml")["datasources"]
    assert source["jsonData"]["timeInterval"] == load("prometheus/prometheus.yml")["global"]["scrape_interval"]
    (provider,) = load("grafana/provisioning/dashboards/amser.yaml")["providers"]
    assert f"./grafana/amser.json:{provider['options']['path']}/amser.json:ro" in services()["grafana"]["volumes"]


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def test_the_ray_service_has_fields_that_kuberay_knows() -> None:
    spec = manifests()["RayService"]["spec"]
    cluster = spec["rayClusterConfig"]
    assert set(spec) <= KNOWN["RayService"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert set(cluster) <= KNOWN["RayCluster"]
    assert set(cluster["autoscalerOptions"]) <= KNOWN["Autoscaler"]
    assert set(cluster["headGroupSpec"]) <= KNOWN["Head"]
    assert set().union(*cluster["workerGroupSpecs"]) <= KNOWN["Worker"]
    assert cluster["rayVersion"] == ray.__version__


@pytest.mark.parametrize("name", groups())
def test_a_pod_is_one_that_kubernetes_accepts_and_is_confined(name: str) -> None:
    group = groups()[name]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": group["template"]["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    (container,) = pod["spec"]["containers"]
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert not container["image"].endswith(":latest")
    assert {"name": "keys", "mountPath": "/etc/amser", "readOnly": True} in container["volumeMounts"]


def test_gpus_are_asked_for_by_the_gpu_group_alone() -> None:
    limits = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"] for name, group in groups().items()
    }
    assert {name for name, limit in limits.items() if "nvidia.com/gpu" in limit} == {"gpu"}
    assert "cuda" in groups()["gpu"]["template"]["spec"]["containers"][0]["image"]
    assert groups()["head"]["rayStartParams"]["num-cpus"] == "0"


def test_nobody_but_the_cluster_reaches_rays_own_ports() -> None:
    policy = manifests()["NetworkPolicy"]
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    first, *others = policy["spec"]["ingress"]
    assert "ports" not in first
    assert [rule["ports"] for rule in others] == [[{"port": 8000}], [{"port": 8080}]]


# --- Every file -------------------------------------------------------------------------------------------------------


def test_there_is_no_python_and_every_yaml_and_json_is_one() -> None:
    assert list(OPS.rglob("*.py")) == []
    files = [*OPS.rglob("*.y*ml"), *OPS.rglob("*.json")]
    assert len(files) >= 9
    for file in files:
        assert list(yaml.safe_load_all(file.read_text(encoding="utf-8"))) != [None]
