"""Snapshots of the cluster and of the load generator itself during a run.

A generator that is busy measures itself: its own CPU belongs to every result.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import gevent
import httpx
import psutil
from geventhttpclient import HTTPClient

from load_tests.fleet.generator import LoadGenerator
from load_tests.report.record import Snapshot

SNAPSHOT_EVERY_S: Final = 2.0
LEAST_S: Final = 0.5  # between two snapshots: CPU time is counted in hundredths of a second
APPLICATIONS: Final = "/api/serve/applications/"  # of Ray's dashboard
ACTORS: Final = "/logical/actors?ids="
DASHBOARD_TIMEOUT_S: Final = 1.5
RUNNING: Final = "RUNNING"


class ClusterState(NamedTuple):
    """Running replicas of each deployment, and the megabytes that they hold together."""

    replicas: Mapping[str, int]
    memory_mb: Mapping[str, float]


UNKNOWN: Final = ClusterState({}, {})


class Monitor:
    """Takes a snapshot every two seconds, in a greenlet of its own. A context manager.

    Args:
        generator: whose requests and CPU are recorded.
        dashboard: URL of Ray's dashboard; None asks for nothing of the cluster.

    Attributes:
        generator: as given.
        snapshots: so far.
    """

    def __init__(self, generator: LoadGenerator, dashboard: str | None = None) -> None:
        self.snapshots: list[Snapshot] = []
        self.generator = generator
        self._read_cluster: Callable[[], ClusterState] = Dashboard(dashboard).read if dashboard else lambda: UNKNOWN
        self._process = psutil.Process()
        self._last = 0.0, 0.0  # wall clock, CPU seconds
        self._greenlet: gevent.Greenlet | None = None

    def __enter__(self) -> Monitor:
        self._last = time.monotonic(), self._cpu_seconds()
        self._greenlet = gevent.spawn(self._take_snapshots)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._greenlet is not None
        self._greenlet.kill()
        if not self.snapshots or time.monotonic() - self._last[0] > LEAST_S:
            self.take_snapshot(UNKNOWN)

    @property
    def generator_cpu(self) -> float:
        """Cores, at the last snapshot."""
        return self.snapshots[-1].generator_cpu if self.snapshots else 0.0

    def take_snapshot(self, cluster: ClusterState) -> None:
        """Adds one, with what is known of the cluster."""
        (then, before), (now, cpu) = self._last, (time.monotonic(), self._cpu_seconds())
        self._last = now, cpu
        cores = (cpu - before) / max(now - then, 1e-9)
        at_s, in_flight = max(0.0, self.generator.elapsed_s), self.generator.statistics.in_flight
        self.snapshots.append(Snapshot(at_s, cluster.replicas, in_flight, cores, cluster.memory_mb))

    def _take_snapshots(self) -> None:
        while True:
            gevent.sleep(SNAPSHOT_EVERY_S)
            self.take_snapshot(self._read_cluster())

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class Dashboard:
    """Ray's dashboard, asked for the running replicas of each deployment and their memory."""

    def __init__(self, url: str) -> None:
        self._client: Any = HTTPClient.from_url(
            str(httpx.URL(url)), connection_timeout=DASHBOARD_TIMEOUT_S, network_timeout=DASHBOARD_TIMEOUT_S
        )

    def read(self) -> ClusterState:
        """Empty where the dashboard does not answer as it should; the replicas alone where it knows no actors."""
        replicas = running_replicas(self._get(APPLICATIONS))
        actors = list(itertools.chain.from_iterable(replicas.values()))
        known = self._get(ACTORS + ",".join(actors)) if actors else {}
        return ClusterState({name: len(each) for name, each in replicas.items()}, memory_mb(replicas, known))

    def _get(self, route: str) -> Mapping[str, Any]:
        try:
            response = self._client.get(route)
            content = response.read()
            return dict(json.loads(content)) if response.status_code == HTTPStatus.OK else {}
        except (OSError, ValueError, RuntimeError):  # no connection, no JSON, no HTTP
            return {}


def running_replicas(document: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """The actors that serve, of each deployment, in the answer of Ray Serve's REST API."""
    return {
        name: [replica["actor_id"] for replica in deployment.get("replicas", ()) if replica.get("state") == RUNNING]
        for application in document.get("applications", {}).values()
        for name, deployment in application.get("deployments", {}).items()
    }


def memory_mb(replicas: Mapping[str, list[str]], document: Mapping[str, Any]) -> Mapping[str, float]:
    """Resident megabytes of each deployment's actors, as far as the dashboard's answer about them knows any."""
    known = document.get("data", {}).get("actors", {})
    megabytes = {}
    for name, actors in replicas.items():
        processes = [(known.get(actor) or {}).get("processStats") or {} for actor in actors]
        resident = sum((process.get("memoryInfo") or {}).get("rss", 0) for process in processes)
        if resident:
            megabytes[name] = resident / 1e6
    return megabytes
