"""The policy in a real Ray controller, over stand-ins of three stages: they sleep, and count as the real ones do.

The real stages would bring a gigabyte of models for every step of the scaling. The head imports this file as
`test_autoscaling_on_ray:build`, so what it imports here is what every replica imports: no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.local_cluster import LocalCluster
from deployments.replica.resources import assigned

STAGES = ("Ingress", "WhisperASR", "FusionClassifier")
WORK_S = 0.2  # of each stage for a request
GPUS, CPUS = 1, 4
MOST_REPLICAS = 3
CLIENTS = 12
POLL_S = 0.1
TARGETS_ARE_LATE_S = 1.0  # in the dashboard, on a machine that is busy

api = FastAPI()


class Counting:
    """What a stage counts for the policy."""

    def __init__(self, _next: DeploymentHandle | None = None) -> None:
        self._next = _next
        self._counts = {"admitted": 0.0, "inside": 0.0, "served": 0.0, "busy_s": 0.0}

    def record_autoscaling_stats(self) -> dict[str, float]:
        return self._counts | assigned()

    async def work(self) -> None:
        self._counts["admitted"] += 1
        self._counts["inside"] += 1
        await asyncio.sleep(WORK_S)
        self._counts["served"] += 1
        self._counts["busy_s"] += WORK_S
        if self._next is not None:
            await self._next.work.remote()
        self._counts["inside"] -= 1


@serve.deployment(name="Ingress")
@serve.ingress(api)
class Gateway(Counting):
    @api.get("/readyz")
    async def readyz(self) -> str:
        return "ready"

    @api.post("/")
    async def answer(self) -> str:
        await self.work()
        return "answered"


def build(args: dict[str, Any]) -> serve.Application:
    """The chain of stand-ins, with the shares of the real stages."""
    from deployments.accelerator import SHARES, actor_options

    del args
    bound: Any = None
    for name in reversed(STAGES):
        stand_in: Any = Gateway if name == "Ingress" else serve.deployment(Counting)
        options = actor_options(SHARES[name], gpus=True)
        bound = stand_in.options(name=name, ray_actor_options=options).bind(*([bound] if bound else []))
    application: serve.Application = bound
    return application


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    here = Path(__file__)
    monkeypatch.setenv("PYTHONPATH", f"{here.parents[2]}:{here.parent}")
    scaling = {
        "min_replicas": 1,
        "max_replicas": MOST_REPLICAS,
        "metrics_interval_s": 1,
        "look_back_period_s": 3,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
    }
    application = {
        "name": "amser",
        "route_prefix": "/",
        "import_path": "test_autoscaling_on_ray:build",
        "autoscaling_policy": {
            "policy_function": "deployments.autoscaling:WholeApplication",
            "policy_kwargs": {"service_s": dict.fromkeys(STAGES, WORK_S), "objective": {"latency_s": 1.0}},
        },
        "deployments": [{"name": name, "max_ongoing_requests": 50, "autoscaling_config": scaling} for name in STAGES],
    }
    config = tmp_path / "serve_config.yaml"
    config.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [application]}))
    with LocalCluster(config, log=tmp_path / "cluster.log", num_gpus=GPUS, num_cpus=CPUS, http_port=0) as running:
        running.wait_until_ready(90)
        yield running


def targets(cluster: LocalCluster) -> dict[str, int]:
    """Replicas that Ray's controller wants of each stage."""
    return {name: entry["target_num_replicas"] for name, entry in cluster.status()["deployments"].items()}


def waiting(cluster: LocalCluster) -> dict[str, tuple[int, int]]:
    """Stages that do not have what is wanted of them: replicas that serve, and replicas wanted, at one moment."""
    found = {}
    for name, entry in cluster.status()["deployments"].items():
        serving = sum(replica["state"] == "RUNNING" for replica in entry["replicas"])
        if serving != entry["target_num_replicas"]:
            found[name] = (serving, entry["target_num_replicas"])
    return found


def ask_until(cluster: LocalCluster, ends_at: float) -> int:
    with httpx.Client(timeout=30) as client:
        answers = 0
        while time.monotonic() < ends_at:
            answers += client.post(cluster.url).is_success
        return answers


def test_no_stage_waits_for_another_to_grow_and_the_gpu_is_never_overbooked(cluster: LocalCluster) -> None:
    from deployments.accelerator import SHARES
    from deployments.autoscaling import DECISION_EVERY_S

    idle = targets(cluster)
    assert idle == dict.fromkeys(STAGES, 1)
    history = [(time.monotonic(), idle)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        ends_at = time.monotonic() + 14
        answered = [clients.submit(ask_until, cluster, ends_at) for _ in range(CLIENTS)]
        while time.monotonic() < ends_at:
            history.append((time.monotonic(), targets(cluster)))
            time.sleep(POLL_S)
        assert sum(each.result() for each in answered) > 100
    grown = [next(at for at, now in history if now[name] > 1) for name in STAGES]
    # A decision that falls into the first moments of the load sees a part of it, the next one sees it whole
    assert max(grown) - min(grown) < 2 * DECISION_EVERY_S + TARGETS_ARE_LATE_S, history
    final = history[-1][1]
    # All six replicas with a share take 9/8 of the GPU; which one is left out is decided by hundredths of a second
    assert final["Ingress"] == MOST_REPLICAS
    assert sorted((final["WhisperASR"], final["FusionClassifier"])) == [MOST_REPLICAS - 1, MOST_REPLICAS]
    for _, now in history:
        assert sum(count * SHARES[name].num_gpus for name, count in now.items()) <= GPUS + 1e-6
    for (_, before), (_, after) in pairwise(history):  # no replica ends so that another stage gets its place
        assert all(after[name] >= before[name] for name in STAGES), history
    # What was asked for found its place: nothing waits for a share of a GPU for ever
    deadline = time.monotonic() + 30
    while (lacking := waiting(cluster)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert not lacking
