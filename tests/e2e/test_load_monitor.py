"""What the fleet sees of a real cluster while it loads it."""

from __future__ import annotations

import time

from deployments.local_cluster import LocalCluster
from load_tests.fleet.monitor import UNKNOWN, Dashboard

STAGES = {"Ingress", "MelReconstruction", "WhisperASR", "TextEmbedding", "Roberta", "FusionClassifier"}


def test_replicas_and_their_memory_are_seen(cluster: LocalCluster) -> None:
    dashboard, deadline = Dashboard(cluster.dashboard), time.monotonic() + 30
    seen = UNKNOWN
    while set(seen.memory_mb) != STAGES and time.monotonic() < deadline:  # a node reports every few seconds
        time.sleep(0.5)
        seen = dashboard.read()
    assert seen.replicas == dict.fromkeys(STAGES, 1)
    assert set(seen.memory_mb) == STAGES
    assert seen.memory_mb["WhisperASR"] > seen.memory_mb["Ingress"] > 10
