"""Looks at the cluster and at the generator itself during a run: whoever measures the client is to know it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
import httpx
import psutil
from geventhttpclient import HTTPClient

from load_tests.open_loop import OpenLoop
from load_tests.record import Look

LOOK_EVERY_S: Final = 2.0
LEAST_S: Final = 0.5  # of a look: CPU time is counted in hundredths of a second
APPLICATIONS: Final = "/api/serve/applications/"  # of Ray's dashboard
DASHBOARD_TIMEOUT_S: Final = 1.5
RUNNING: Final = "RUNNING"


class Watch:
    """Looks every two seconds, in a greenlet of its own. A context manager.

    Args:
        loop: what is watched.
        dashboard: URL of Ray's dashboard; None asks for no replicas.

    Attributes:
        loop: what is watched.
        looks: so far.
    """

    def __init__(self, loop: OpenLoop, dashboard: str | None = None) -> None:
        self.looks: list[Look] = []
        self.loop = loop
        self._replicas: Callable[[], Mapping[str, int]] = Dashboard(dashboard).replicas if dashboard else dict
        self._process = psutil.Process()
        self._last = 0.0, 0.0  # wall clock, CPU seconds
        self._greenlet: gevent.Greenlet | None = None

    def __enter__(self) -> Watch:
        self._last = time.monotonic(), self._cpu_seconds()
        self._greenlet = gevent.spawn(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._greenlet is not None
        self._greenlet.kill()
        if not self.looks or time.monotonic() - self._last[0] > LEAST_S:
            self.look({})

    @property
    def generator_cpu(self) -> float:
        """Cores, at the last look."""
        return self.looks[-1].generator_cpu if self.looks else 0.0

    def look(self, replicas: Mapping[str, int]) -> None:
        """Once."""
        (then, before), (now, cpu) = self._last, (time.monotonic(), self._cpu_seconds())
        self._last = now, cpu
        cores = (cpu - before) / max(now - then, 1e-9)
        self.looks.append(Look(max(0.0, self.loop.elapsed_s), replicas, self.loop.tally.in_flight, cores))

    def _watch(self) -> None:
        while True:
            gevent.sleep(LOOK_EVERY_S)
            self.look(self._replicas())

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class Dashboard:
    """Ray's dashboard, asked for the running replicas of each deployment."""

    def __init__(self, url: str) -> None:
        self._client: Any = HTTPClient.from_url(
            str(httpx.URL(url)), connection_timeout=DASHBOARD_TIMEOUT_S, network_timeout=DASHBOARD_TIMEOUT_S
        )

    def replicas(self) -> Mapping[str, int]:
        """Of each deployment; empty where the dashboard does not answer as it should."""
        try:
            response = self._client.get(APPLICATIONS)
            content = response.read()
            return running_replicas(json.loads(content)) if response.status_code == 200 else {}
        except (OSError, ValueError, RuntimeError):  # no connection, no JSON, no HTTP
            return {}


def running_replicas(document: Mapping[str, Any]) -> Mapping[str, int]:
    """Of each deployment, in the answer of Ray Serve's REST API."""
    return {
        name: sum(replica.get("state") == RUNNING for replica in deployment.get("replicas", ()))
        for application in document.get("applications", {}).values()
        for name, deployment in application.get("deployments", {}).items()
    }
