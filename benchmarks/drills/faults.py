"""What a drill does to a cluster under load. Each returns once all is as it should be again."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.drills.processes import actors, kill, replicas, serve_replaced, until
from benchmarks.drills.redis_server import RedisServer
from deployments.accelerator import SHARES
from deployments.local_cluster import LocalCluster

RELEASE: Final = "AMSER_RELEASE"  # of runtime_env: another value starts every replica anew, in a fresh process
REPLACED_WITHIN_S: Final = 400.0  # slow cores import torch in each of ten replicas
STORE_AWAY_S: Final = 6.0  # each: standing still, then gone
NODE: Final = "second"
ON_NODE: Final = ("WhisperASR", "FusionClassifier")  # one that an answer can do without, and one that it cannot
NODE_DEATH: Final = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a drill may touch."""

    cluster: LocalCluster
    store: RedisServer | None


def redeploy(scene: Scene) -> None:
    """The same application as another release: every replica is replaced, each once its successor runs."""
    _roll(scene.cluster, released(scene.cluster.config, f"drill-{time.time_ns()}"))


def rollback(scene: Scene) -> None:
    """A release that changes settings, then the former config while it is still being rolled out."""
    former = scene.cluster.config
    scene.cluster.deploy(released(former, f"drill-{time.time_ns()}"))
    time.sleep(5)
    scene.cluster.deploy(former)
    until(lambda: _settled(scene.cluster), REPLACED_WITHIN_S, "the former release")


def bad_redeploy(scene: Scene) -> None:
    """A config that cannot start: Serve keeps what runs, and the former config is deployed again."""
    former = scene.cluster.config
    broken = copy.deepcopy(former)
    broken["applications"][0].setdefault("args", {})["word_vectors"] = "no-such-weights"
    scene.cluster.deploy(broken)
    until(lambda: scene.cluster.status().get("status") == "DEPLOY_FAILED", REPLACED_WITHIN_S, "the refusal")
    time.sleep(5)
    scene.cluster.deploy(former)
    until(lambda: _settled(scene.cluster), REPLACED_WITHIN_S, "the former release")


def kill_gateway(scene: Scene) -> None:
    """SIGKILL to a replica of the gateway."""
    victim = replicas(scene.cluster, "Ingress")[0]
    kill(victim)
    serve_replaced(scene.cluster, {victim.pid}, REPLACED_WITHIN_S)


def kill_proxy(scene: Scene) -> None:
    """SIGKILL to the head's HTTP proxy: the controller starts another one on the same port."""
    (victim,) = actors(scene.cluster, "ProxyActor")
    kill(victim)
    until(lambda: _answers(scene.cluster), REPLACED_WITHIN_S, "another proxy")


def restart_store(scene: Scene) -> None:
    """Redis stands still, is gone, and comes back with nothing in it."""
    assert scene.store is not None
    scene.store.freeze()
    time.sleep(STORE_AWAY_S)
    scene.store.stop()
    time.sleep(STORE_AWAY_S)
    scene.store.start()


def drain_node(scene: Scene) -> None:
    """A node is drained: replicas are started elsewhere before its own stop. Then it is switched off."""
    old = {each.pid for each in replicas(scene.cluster, node=NODE)}
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", f"--node-id={_node_id(scene.cluster)}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=drill"]
    command += ["--deadline-remaining-seconds=600"]
    subprocess.run(command, env=scene.cluster.environment, check=True, capture_output=True)
    serve_replaced(scene.cluster, old, REPLACED_WITHIN_S)
    kill(*scene.cluster.processes(NODE))


def lose_node(scene: Scene) -> None:
    """SIGKILL to all processes of a node at once, and nobody was asked."""
    old = {each.pid for each in replicas(scene.cluster, node=NODE)}
    kill(*scene.cluster.processes(NODE))
    serve_replaced(scene.cluster, old, REPLACED_WITHIN_S)


DRILLS: Final[Mapping[str, Callable[[Scene], None]]] = {
    "redeploy": redeploy,
    "rollback": rollback,
    "bad-redeploy": bad_redeploy,
    "gateway-killed": kill_gateway,
    "proxy-killed": kill_proxy,
    "store-restarted": restart_store,
    "node-drained": drain_node,
    "node-lost": lose_node,
}
OF_A_NODE: Final = ("node-drained", "node-lost")  # each takes the only one there is, and a cluster for itself
OF_THE_STORE: Final = "store-restarted"


def released(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A config under another name of its release; nothing else differs, and answers that are kept stay valid."""
    changed = copy.deepcopy(config)
    changed["applications"][0].setdefault("runtime_env", {}).setdefault("env_vars", {})[RELEASE] = name
    return changed


def placed_on_node(config: dict[str, Any]) -> dict[str, Any]:
    """A config whose deployments `ON_NODE` run on the node, as long as there is one."""
    changed = copy.deepcopy(config)
    for deployment in changed["applications"][0]["deployments"]:
        if deployment["name"] in ON_NODE:
            place = {"label_selector": {"node": NODE}, "fallback_strategy": [{"label_selector": {}}]}
            deployment["ray_actor_options"] = {"num_cpus": SHARES[deployment["name"]].num_cpus, **place}
    return changed


def _roll(cluster: LocalCluster, config: dict[str, Any]) -> None:
    old = {each.pid for each in replicas(cluster)}
    cluster.deploy(config)
    serve_replaced(cluster, old, REPLACED_WITHIN_S)


def _settled(cluster: LocalCluster) -> bool:
    application = cluster.status()
    listed = [each for entry in application.get("deployments", {}).values() for each in entry["replicas"]]
    return application.get("status") == "RUNNING" and all(each["state"] == "RUNNING" for each in listed)


def _answers(cluster: LocalCluster) -> bool:
    try:
        return httpx.get(f"{cluster.url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def _node_id(cluster: LocalCluster) -> str:
    listed = httpx.get(f"{cluster.dashboard}/nodes?view=summary", timeout=10).json()["data"]["summary"]
    (found,) = [
        each["raylet"]["nodeId"]
        for each in listed
        if each["raylet"].get("labels", {}).get("node") == NODE and each["raylet"]["state"] == "ALIVE"
    ]
    return str(found)
