"""A node is lost while twelve devices talk: what ran on it comes back on the head, and nothing is lost with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from drills import config_of_drills, kill, replicas, until
from fleet_of_spools import Fleet, reasonless

from amser.client import delivery
from deployments.accelerator import SHARES
from deployments.local_cluster import LocalCluster

NODE: Final = "second"
ON_NODE: Final = ("WhisperASR", "FusionClassifier")  # one that an answer can do without, and one that it cannot
# The head declares a node dead that has missed so many in a row; Ray's own are five of 3 s
HEALTH_CHECKS: Final = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    for name, value in HEALTH_CHECKS.items():
        monkeypatch.setenv(name, value)
    there_or_anywhere = {"label_selector": {"node": NODE}, "fallback_strategy": [{"label_selector": {}}]}
    placed = {name: {"ray_actor_options": {"num_cpus": SHARES[name].num_cpus, **there_or_anywhere}} for name in ON_NODE}
    config = config_of_drills(tmp_path, **placed)
    log = tmp_path / "cluster.log"
    with LocalCluster(config, log=log, num_gpus=0, num_cpus=2, http_port=0, nodes=[NODE]) as running:
        running.wait_until_ready()
        yield running


def test_a_lost_node_costs_time_and_no_utterance(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.1)
    lost = {name: [process.pid for process in replicas(cluster, name, NODE)] for name in ON_NODE}
    assert [len(pids) for pids in lost.values()] == [1, 1]
    with Fleet(cluster.url, tmp_path) as fleet:
        fleet.wait_for(fleet.size // 3)
        killed = cluster.processes(NODE)
        kill(*killed)
        back_s = until(
            lambda: all(_runs_elsewhere(cluster, name, pids) for name, pids in lost.items()), 180, "replicas"
        )
        tally = fleet.tally()
    with capsys.disabled():
        print(f"\nA node lost, {len(killed)} processes killed: {tally}; all stages back after {back_s:.1f} s")
    tally.assert_each_has_one_answer()
    assert reasonless(tally) == Counter()
    assert cluster.processes(NODE) == []
    assert all(len(replicas(cluster, name)) == 1 for name in ON_NODE)  # on the head


def _runs_elsewhere(cluster: LocalCluster, deployment: str, lost: list[int]) -> bool:
    entry = cluster.status().get("deployments", {}).get(deployment, {"replicas": []})
    running = [replica["pid"] for replica in entry["replicas"] if replica["state"] == "RUNNING"]
    return bool(running) and not set(running) & set(lost)
