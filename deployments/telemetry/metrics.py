"""What Prometheus gets, as `ray_amser_…` (docs/operators.md has the table).

No label carries what a client chose freely: routes, codecs, stages, emotions and the kinds of problems are lists of
ours. Outside a replica the metrics go nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import psutil
from ray.serve import metrics

# Seconds, around the objective of 3 s and up to the longest deadline
REQUEST_S: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30)
STAGE_S: Final = (0.001, 0.0025, 0.005, *REQUEST_S)
# Ray's agent rebuilds the sum of a histogram from the middles of its buckets: those of the first are whole numbers
BATCH_SIZES: Final = (*(0.5 + many for many in range(9)), 12.5, 16.5, 24.5, 32.5, 48.5, 64.5)
BATCH_FRAMES: Final = (100, 200, 400, 800, 1500, 3000, 6000, 12_000, 24_000)
# Of what was predicted: above 1 the answer came later than admission control expected of 98 in 100
OUTCOME_RATIOS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5)

GATEWAY: Final = "gateway"  # in place of a stage


class _Nowhere:
    """A metric that nobody wants."""

    def _nothing(self, *_: object) -> None:
        pass

    inc = set = observe = _nothing


class Instruments:
    """Makes the metrics of one process; where they are switched off, ones that go nowhere."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled

    def counter(self, name: str, description: str, labels: Sequence[str]) -> Any:
        """Prometheus calls it `ray_NAME_total`."""
        return metrics.Counter(name, description, tuple(labels)) if self._enabled else _Nowhere()

    def gauge(self, name: str, description: str, labels: Sequence[str]) -> Any:
        """A value that goes up and down."""
        return metrics.Gauge(name, description, tuple(labels)) if self._enabled else _Nowhere()

    def histogram(self, name: str, description: str, labels: Sequence[str], bounds: Iterable[float]) -> Any:
        """Counts by size; `bounds` are the upper ends of its buckets."""
        if not self._enabled:
            return _Nowhere()
        return metrics.Histogram(name, description, [float(each) for each in bounds], tuple(labels))


class RequestMetrics:
    """Of the gateway: requests, and what each stage took as the gateway saw it."""

    def __init__(self, make: Instruments) -> None:
        self.requests = make.counter("amser_requests", "Requests by what came of them.", ("route", "outcome", "reason"))
        self.request_seconds = make.histogram(
            "amser_request_seconds", "From a request's headers to its answer.", ("route", "outcome"), REQUEST_S
        )
        self.stage_seconds = make.histogram(
            "amser_stage_seconds", "Computing of a stage for a request: that of its whole batch.", ("stage",), STAGE_S
        )
        self.stage_queue_seconds = make.histogram(
            "amser_stage_queue_seconds", "Waiting for a stage, and the way there and back.", ("stage",), STAGE_S
        )
        self.speech_seconds = make.counter("amser_speech_seconds", "Speech that was answered.", ("codec",))
        self.body_bytes = make.counter("amser_body_bytes", "Bodies that held a readable utterance.", ("codec",))
        self.degraded = make.counter("amser_degraded", "Answers that had to do without a stage.", ("missing",))
        self.deadline_missed = make.counter(
            "amser_deadline_missed", "Stages that were not done when the time for them was over.", ("stage",)
        )
        self.emotions = make.counter("amser_emotions", "Answers by their emotion.", ("emotion", "uncertain"))


class BatchMetrics:
    """Of a replica that computes batches."""

    def __init__(self, make: Instruments) -> None:
        self._size = make.histogram("amser_batch_size", "Requests of a batch.", ("stage",), BATCH_SIZES)
        self._frames = make.histogram(
            "amser_batch_frames", "Log-Mel frames of a batch, 10 ms each.", ("stage",), BATCH_FRAMES
        )

    def computed(self, stage: str, size: int, frames: int | None) -> None:
        """A batch was computed; None for a stage that does not read frames."""
        tags = {"stage": stage}
        self._size.observe(size, tags)
        if frames is not None:
            self._frames.observe(frames, tags)


@cache
def batch_metrics(enabled: bool) -> BatchMetrics:
    """Those of this process."""
    return BatchMetrics(Instruments(enabled))


class ReplicaMemory:
    """Resident memory of this process, under the name of one part of it."""

    def __init__(self) -> None:
        self._owner = ""
        self._gauge: Any = None

    def belongs_to(self, owner: str) -> None:
        """The process is shown as this part alone, whichever others are in it (the fused profile)."""
        self._owner = owner

    def show(self, part: str) -> None:
        """Says how much it is now, unless the process is another part's. Serve's health checks come here, every 5 s."""
        if self._owner in ("", part):
            if self._gauge is None:
                self._gauge = metrics.Gauge(
                    "amser_replica_memory_bytes", "Resident memory of a replica's process.", ("stage",)
                )
            self._gauge.set(psutil.Process().memory_info().rss, {"stage": part})


replica_memory: Final = ReplicaMemory()
