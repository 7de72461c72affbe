"""A fleet in several Locust processes: who has which devices, what a worker reports, and how the master merges it.

Each worker draws the whole schedule and sends for every n-th device, so that a device keeps its connection and its
radio's history in one process. Samples, snapshots and histograms travel with Locust's own reports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any, Final

from load_tests.fleet.generator import LoadGenerator, Part
from load_tests.fleet.monitor import SNAPSHOT_EVERY_S
from load_tests.report.latency import LatencyHistogram
from load_tests.report.record import Sample, Snapshot

KEY: Final = "amser"  # of our part in Locust's reports
BEGIN: Final = "amser-begin"  # message of the master: who has which part, and when the schedule starts
START_AFTER_S: Final = 1.0  # for the message to reach all workers


def parts(workers: Sequence[str], start_at: float) -> dict[str, dict[str, Any]]:
    """What the master tells each worker.

    Args:
        workers: their ids.
        start_at: of the schedule, by `time.time`; it also tells one run from the next.
    """
    return {name: {"index": index, "of": len(workers), "start_at": start_at} for index, name in enumerate(workers)}


def part_of(message: Mapping[str, Any]) -> tuple[Part, float]:
    """A worker's part, and the seconds until the schedule starts."""
    return Part(int(message["index"]), int(message["of"])), float(message["start_at"]) - time.time()


class Reporting:
    """What a worker has not yet told the master.

    Args:
        generator: of this worker.
        snapshots: of its monitor, which appends to it.
    """

    def __init__(self, generator: LoadGenerator, snapshots: Sequence[Snapshot]) -> None:
        self._generator, self._snapshots = generator, snapshots
        self._samples_told = self._snapshots_told = 0

    def report(self, finished: bool) -> dict[str, Any]:
        """Samples and snapshots since the last report, and their histogram; of types that msgpack knows."""
        statistics = self._generator.statistics
        samples, snapshots = statistics.samples[self._samples_told :], self._snapshots[self._snapshots_told :]
        self._samples_told += len(samples)
        self._snapshots_told += len(snapshots)
        latencies, statistics.latencies = statistics.latencies, LatencyHistogram()
        return {
            "samples": [astuple(each) for each in samples],
            "snapshots": [astuple(each) for each in snapshots],
            "latencies": latencies.encoded(),
            "late_starts": statistics.late_starts,
            "finished": finished,
        }


class Merged:
    """What the workers reported so far.

    Attributes:
        samples: of all.
        latencies: of good devices that were answered, from the scheduled time.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.latencies = LatencyHistogram()
        self._snapshots: dict[str, list[Snapshot]] = {}
        self._late_starts: dict[str, int] = {}
        self._finished: set[str] = set()

    def add(self, worker: str, report: Mapping[str, Any]) -> None:
        """One report of one worker."""
        self.samples += [_sample(each) for each in report["samples"]]
        self._snapshots.setdefault(worker, []).extend(Snapshot(*each) for each in report["snapshots"])
        self.latencies.add(LatencyHistogram.decoded(report["latencies"]))
        self._late_starts[worker] = report["late_starts"]
        if report["finished"]:
            self._finished.add(worker)

    @property
    def late_starts(self) -> int:
        """Of all workers."""
        return sum(self._late_starts.values())

    def is_finished(self, workers: int) -> bool:
        """Whether so many workers have told all."""
        return len(self._finished) >= workers

    @property
    def snapshots(self) -> list[Snapshot]:
        """One for every two seconds: cores and requests of all workers, added up."""
        together: dict[int, list[Snapshot]] = {}
        for snapshots in self._snapshots.values():
            of_each = {int(snapshot.at_s // SNAPSHOT_EVERY_S): snapshot for snapshot in snapshots}
            for moment, snapshot in of_each.items():
                together.setdefault(moment, []).append(snapshot)
        return [_together(together[moment]) for moment in sorted(together)]


def _sample(fields: Sequence[Any]) -> Sample:
    sample = Sample(*fields)
    return replace(sample, degraded=tuple(sample.degraded))  # msgpack knows lists alone


def _together(snapshots: Sequence[Snapshot]) -> Snapshot:
    seen = next((snapshot for snapshot in snapshots if snapshot.replicas), snapshots[0])
    in_flight, cores = (
        sum(snapshot.in_flight for snapshot in snapshots),
        sum(snapshot.generator_cpu for snapshot in snapshots),
    )
    return Snapshot(max(snapshot.at_s for snapshot in snapshots), seen.replicas, in_flight, cores, seen.memory_mb)
