"""The processes of a cluster's actors, which a drill kills, and the replicas that Serve says run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psutil

from deployments.local_cluster import ClusterFailed, LocalCluster

POLL_S: Final = 0.1


def actors(cluster: LocalCluster, name: str, node: str | None = None) -> list[psutil.Process]:
    """The processes of a kind of actor, by the name that Ray gives them, on one node or on all."""
    found = []
    for process in cluster.processes(node):
        with suppress(psutil.Error, IndexError):  # it may have ended meanwhile
            if process.cmdline()[0].startswith(f"ray::{name}"):
                found.append(process)
    return found


def replicas(cluster: LocalCluster, deployment: str = "", node: str | None = None) -> list[psutil.Process]:
    """The processes of a deployment's replicas, or of all deployments'."""
    return actors(cluster, f"ServeReplica:amser:{deployment}", node)


def kill(*processes: psutil.Process) -> None:
    """SIGKILL to all of them at once; they are gone when this returns."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def serve_replaced(cluster: LocalCluster, old: set[int], within_s: float) -> float:
    """Seconds until none of the old replicas is left, not even to drain, and all that is wanted runs.

    Args:
        cluster: that replaces them.
        old: process ids.
        within_s: until then.

    Raises:
        ClusterFailed: it is not so in time.
    """

    def done() -> bool:
        application = cluster.status()
        listed = [each for entry in application.get("deployments", {}).values() for each in entry["replicas"]]
        left = old & {each.get("pid") for each in listed}  # one that waits for its place has none yet
        return bool(listed) and not left and application["status"] == "RUNNING"

    return until(done, within_s, "every replica replaced")


def until(condition: Callable[[], object], within_s: float, what: str) -> float:
    """Seconds until the condition holds.

    Raises:
        ClusterFailed: it does not in time.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within_s:
            raise ClusterFailed(f"not within {within_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - started
