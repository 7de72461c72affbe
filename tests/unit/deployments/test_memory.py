"""Replicas reserve memory where there is room for one of each; on a smaller cluster they start without."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deployments.accelerator import FUSED_SHARE, GB, SHARES, actor_options, reserves_memory
from deployments.replica.resources import assigned

ALL = list(SHARES.values())
LARGEST = max(share.memory_gb for share in ALL)
WHOLE = sum(share.memory_gb for share in ALL) + LARGEST  # of each one replica, and one that an upgrade starts


def nodes(monkeypatch: pytest.MonkeyPatch, *memory_gb: float, lost_gb: float = 0.0) -> None:
    """A cluster whose nodes leave so much memory to replicas, as Ray counts it; and one that was lost."""
    each: list[dict[str, Any]] = [{"Alive": True, "Resources": {"CPU": 2.0, "memory": size * GB}} for size in memory_gb]
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [*each, {"Alive": False, "Resources": {"memory": lost_gb * GB}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"memory": sum(memory_gb) * GB})


@pytest.mark.parametrize("memory_gb", [[WHOLE], [WHOLE / 2 + LARGEST] * 2, [0.1, 0.0, WHOLE]])
def test_where_one_of_each_finds_room_all_reserve(monkeypatch: pytest.MonkeyPatch, memory_gb: list[float]) -> None:
    nodes(monkeypatch, *memory_gb)
    assert reserves_memory(ALL)


@pytest.mark.parametrize("memory_gb", [[WHOLE - 0.1], [0.3] * 100], ids=["too small", "nodes that are too small"])
def test_on_a_small_cluster_none_reserves_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, memory_gb: list[float]
) -> None:
    """A replica that asks for what no node has waits for ever and says nothing."""
    nodes(monkeypatch, *memory_gb, lost_gb=64)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        assert not reserves_memory(ALL)
    (said,) = caplog.messages
    assert said == (
        f"no replica reserves memory: one of each stage and one to replace the largest take {WHOLE:.1f} GB, "
        f"the cluster has {sum(memory_gb):.1f} GB for replicas"
    )


def test_what_a_replica_asks_for() -> None:
    assert actor_options(FUSED_SHARE, gpus=False, memory=True) == {
        "num_cpus": FUSED_SHARE.num_cpus,
        "memory": FUSED_SHARE.memory_gb * 1e9,
    }
    assert "memory" not in actor_options(FUSED_SHARE, gpus=False, memory=False)


def test_without_ray_nothing_is_reserved_and_nothing_was_given() -> None:
    assert not reserves_memory(ALL)
    assert assigned() == {}
