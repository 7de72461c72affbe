"""The application on a cluster of this machine, as several benchmarks measure it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measuring.command import require_weights
from benchmarks.measuring.console import status
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from deployments.settings import Settings

CONFIGS: Final = {"distributed": DEFAULT_CONFIG, "fused": DEFAULT_CONFIG.with_name("serve_config.fused.yaml")}


def require_models(*others: str) -> None:
    """Asks for every model that the application loads, and for others. Raises WeightsMissing."""
    settings = Settings()
    require_weights((settings.recognizer.weights, settings.text_encoder.model, settings.word_vectors, *others))


@contextmanager
def running(
    profile: str,
    log: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    throughput: bool = False,
    num_gpus: int | None = None,
) -> Iterator[LocalCluster]:
    """A cluster that is ready, and is gone afterwards.

    Args:
        profile: a name in `CONFIGS`.
        log: where everything goes that Ray prints.
        overrides: settings that differ. Answers are not kept: what is measured is computed, also where a benchmark
            sends the same utterance again.
        throughput: Serve's throughput mode in place of its default.
        num_gpus: None lets Ray detect them.

    Raises:
        ClusterFailed: it does not start.
    """
    chosen = {"idempotency": {"store": "none"}, **(overrides or {})}
    cluster = LocalCluster(
        CONFIGS[profile], log=log, http_port=0, num_gpus=num_gpus, overrides=chosen, throughput=throughput
    )
    with status(f"starting a cluster, {profile}") as shown, cluster:
        cluster.wait_until_ready()
        shown.stop()
        yield cluster


def cpu_seconds(cluster: LocalCluster) -> float:
    """That all processes of a cluster have used so far."""
    total = 0.0
    for process in cluster.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
