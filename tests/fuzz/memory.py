"""The memory of every replica and worker of a cluster, and whether any of them was replaced."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psutil

from deployments.local_cluster import LocalCluster
from tests.fuzz.findings import Findings

EVERY_S: Final = 2.0
FLAT_WITHIN: Final = 0.05  # of growth over the last half
FEWEST: Final = 12  # samples of a half, to be judged at all
KINDS: Final = (  # of processes, by their command lines; those that stay are replaced by none
    (re.compile(r"^ray::ServeReplica:\w+:(\w+)"), r"\1", True),
    (re.compile(r"^ray::ProxyActor"), "proxy", True),
    (re.compile(r"^ray::ServeController"), "controller", True),
    (re.compile(r"decoding_worker"), "decoding worker", False),
)
WORKERS: Final = "decoding worker"  # replaced by design after some files, or when it has grown


@dataclass(slots=True)
class Series:
    """The memory of the processes of one kind.

    Attributes:
        megabytes: resident, together, at each look.
        most: of a single process.
        pids: that were seen.
        replaced: processes that ended and were followed by another, where that should not happen.
    """

    megabytes: list[float] = field(default_factory=list)
    most: float = 0.0
    pids: set[int] = field(default_factory=set)
    replaced: int = 0

    @property
    def growth(self) -> float | None:
        """From the third quarter to the fourth, as a share; None where there are too few looks."""
        half = self.megabytes[len(self.megabytes) // 2 :]
        if len(half) < FEWEST:
            return None
        third, fourth = half[: len(half) // 2], half[len(half) // 2 :]
        return statistics.median(fourth) / max(1e-9, statistics.median(third)) - 1


class Memory:
    """A context manager that looks every two seconds.

    Args:
        cluster: whose processes.
        findings: where a replaced process goes, and at the end one that grew.

    Attributes:
        series: by kind of process.
        at_work: what is tried now.
    """

    def __init__(self, cluster: LocalCluster, findings: Findings) -> None:
        self._cluster, self._findings = cluster, findings
        self.series: dict[str, Series] = {}
        self.at_work = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        for kind, series in self.series.items():
            growth = series.growth
            if growth is not None and growth > FLAT_WITHIN and kind != WORKERS:
                why = f"{growth:.1%} from the third quarter to the fourth; at most {series.most:.0f} MB"
                self._findings.add("memory", f"the memory of {kind} grows", why)

    def look(self) -> None:
        """Once."""
        found: dict[str, dict[int, float]] = {}
        stays: dict[str, bool] = {}
        for process in self._cluster.processes():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                for pattern, name, is_kept in KINDS:
                    if match := pattern.search(line):
                        kind = match.expand(name)
                        found.setdefault(kind, {})[process.pid] = process.memory_info().rss / 2**20
                        stays[kind] = is_kept
        for kind in self.series.keys() | found.keys():
            self._add(kind, found.get(kind, {}), stays.get(kind, kind != WORKERS))

    def _add(self, kind: str, processes: Mapping[int, float], stays: bool) -> None:
        series = self.series.setdefault(kind, Series())
        new = processes.keys() - series.pids
        if stays and series.pids and new:
            series.replaced += len(new)
            self._findings.add("crash", f"{kind} was replaced while {self.at_work} ran", f"by process {sorted(new)}")
        series.pids |= processes.keys()
        if processes:
            series.megabytes.append(sum(processes.values()))
            series.most = max(series.most, *processes.values(), 0.0)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            began = time.monotonic()
            self.look()
            self._stop.wait(max(0.0, time.monotonic() - began))  # half of the time at most
