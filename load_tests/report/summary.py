"""A run in numbers: goodput, percentiles, refusals and failures, cost by device, and whether to trust them.

Between the record of a run, and the report and the capacity search.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from load_tests.report.record import DROPPED, Run, Sample

GOOD: Final = "good"
REFUSALS: Final = frozenset({429, 503})  # of HTTP: the cluster is full, or not ready; an answer, but no goodput
OBJECTIVE_PERCENTILE: Final = 99.0  # that the objective of a run is about
QUEUE_SUFFIX: Final = "-queue"  # of a timing: waiting before the stage of that name
OF_THE_REQUEST: Final = frozenset({"queue", "total"})  # timings that are sums over the stages
BUSIEST_GENERATOR: Final = 0.8  # cores; above it, requests leave late and answers are read late
STOPPED: Final = "interrupted"  # in Run.about: true where Ctrl-C ended it
MOST_LATE_STARTS: Final = 0.01  # of the arrivals


class Outcome(StrEnum):
    """What became of an arrival."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds. NaN where nothing was answered."""

    p50: float
    p95: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What requests cost the devices of one kind, refused and failed ones too.

    Attributes:
        requests: that were sent.
        speech_s: seconds of speech in them.
        bytes_up, bytes_down: over the radio.
        joules: of the radio.
    """

    requests: int
    speech_s: float
    bytes_up: int
    bytes_down: int
    joules: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Mean milliseconds of a stage over the answers that name it."""

    compute_ms: float
    queue_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in numbers. All but `costs` and `misbehaved` is of good clients; rates are per second of the schedule.

    Attributes:
        arrivals: of the schedule.
        ok: answered.
        within: answered within the objective, counted from the scheduled time.
        offered, throughput, goodput: arrivals, answers during the schedule, and `within`, a second.
        latency, service: of the answered, from the scheduled time and from the sending time.
        drops: never sent.
        late_starts: of all clients.
        refusals, failures: by outcome, most frequent first.
        degraded: answers by what they left out, most frequent first.
        misbehaved: bad clients, by behaviour and outcome.
        costs: by hardware and radio.
        stages: in the order of the answers' timings.
        request_ms: mean of `queue` and `total` over the answers, by those names.
        generator_mean, generator_max: cores; NaN where it was not measured.
        warnings: why the measurement is not to be trusted; empty where it is.
    """

    arrivals: int
    ok: int
    within: int
    offered: float
    throughput: float
    goodput: float
    latency: Percentiles
    service: Percentiles
    drops: int
    late_starts: int
    refusals: Mapping[str, int]
    failures: Mapping[str, int]
    degraded: Mapping[str, int]
    misbehaved: Mapping[tuple[str, str], int]
    costs: Mapping[tuple[str, str], Cost]
    stages: Mapping[str, Stage]
    request_ms: Mapping[str, float]
    generator_mean: float
    generator_max: float
    warnings: tuple[str, ...]

    @property
    def refused(self) -> int:
        return sum(self.refusals.values())

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def outcome_of(sample: Sample) -> Outcome:
    """What became of an arrival. 429 and 503 are refusals, whatever their words are."""
    if sample.ok:
        return Outcome.ANSWERED
    if sample.outcome == DROPPED:
        return Outcome.DROPPED
    return Outcome.REFUSED if sample.status in REFUSALS else Outcome.FAILED


def keeps_objective(sample: Sample, objective_ms: float) -> bool:
    """Whether it was answered within the objective, counted from the scheduled time."""
    return sample.ok and sample.latency_s is not None and 1000 * sample.latency_s <= objective_ms


def percentile(values: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Nearest-rank percentiles: the least value that `q` of 100 do not exceed, never one between two samples.

    Args:
        values: shape (n,).
        q: 0 to 100, of any shape, which is the result's.

    Returns:
        NaN where `values` is empty.
    """
    ordered, wanted = np.sort(np.asarray(values, np.float64)), np.asarray(q, np.float64)
    if not ordered.size:
        return np.full(wanted.shape, np.nan)
    rank = np.ceil(np.round(wanted * ordered.size / 100, 6)).astype(int)  # 99.9 % of 1000 are 999, and no hair more
    found: NDArray[np.float64] = ordered[np.maximum(rank, 1) - 1]
    return found


def summarise(run: Run) -> Summary:
    """A run in numbers."""
    samples = [each for each in run.samples if each.behaviour == GOOD]
    by_outcome: dict[Outcome, list[Sample]] = {kind: [] for kind in Outcome}
    for each in samples:
        by_outcome[outcome_of(each)].append(each)
    answered, drops = by_outcome[Outcome.ANSWERED], len(by_outcome[Outcome.DROPPED])
    within = sum(keeps_objective(each, run.objective_ms) for each in answered)
    during = sum(each.done_s is not None and each.done_s <= run.seconds for each in answered)
    seconds = run.seconds or float("nan")
    stages, request_ms = _timings(answered)
    cores = [snapshot.generator_cpu for snapshot in run.snapshots] or [float("nan")]
    return Summary(
        arrivals=len(samples),
        ok=len(answered),
        within=within,
        offered=len(samples) / seconds,
        throughput=during / seconds,
        goodput=within / seconds,
        latency=_percentiles([each.latency_s for each in answered]),
        service=_percentiles([each.service_s for each in answered]),
        drops=drops,
        late_starts=run.late_starts,
        refusals=_frequencies(each.outcome for each in by_outcome[Outcome.REFUSED]),
        failures=_frequencies(each.outcome for each in by_outcome[Outcome.FAILED]),
        degraded=_frequencies(stage for each in answered for stage in each.degraded),
        misbehaved=Counter((each.behaviour, each.outcome) for each in run.samples if each.behaviour != GOOD),
        costs=_costs(run.samples),
        stages=stages,
        request_ms=request_ms,
        generator_mean=float(np.mean(cores)),
        generator_max=max(cores),
        warnings=_warnings(run, drops, max(cores)),
    )


def _percentiles(seconds: Sequence[float | None]) -> Percentiles:
    measured = 1000 * np.array([each for each in seconds if each is not None], np.float64)
    return Percentiles(*percentile(measured, (50, 95, 99, 99.9)).tolist())


def _frequencies(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _costs(samples: Iterable[Sample]) -> dict[tuple[str, str], Cost]:
    kinds: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for each in samples:
        if each.sent_s is not None:
            kinds[each.hardware, each.radio].append(each)
    return {
        kind: Cost(
            requests=len(sent),
            speech_s=sum(each.speech_s for each in sent),
            bytes_up=sum(each.bytes_up for each in sent),
            bytes_down=sum(each.bytes_down for each in sent),
            joules=sum(each.joules for each in sent),
        )
        for kind, sent in sorted(kinds.items())
    }


def _timings(answered: Iterable[Sample]) -> tuple[dict[str, Stage], dict[str, float]]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for each in answered:
        for name, milliseconds in each.timings_ms.items():
            values[name].append(milliseconds)
    mean = {name: float(np.mean(found)) for name, found in values.items()}
    names = dict.fromkeys(name.removesuffix(QUEUE_SUFFIX) for name in mean if name not in OF_THE_REQUEST)
    stages = {name: Stage(mean.get(name, 0.0), mean.get(name + QUEUE_SUFFIX, 0.0)) for name in names}
    return stages, {name: mean[name] for name in sorted(OF_THE_REQUEST & mean.keys())}


def _warnings(run: Run, drops: int, busiest: float) -> tuple[str, ...]:
    found = []
    if run.about.get(STOPPED):
        found.append("it was stopped before its end: what is counted a second is too low")
    if busiest > BUSIEST_GENERATOR:
        found.append(f"the generator used {busiest:.2f} cores: above {BUSIEST_GENERATOR:g} it measures itself")
    if run.late_starts > MOST_LATE_STARTS * len(run.samples):
        share = run.late_starts / len(run.samples) if run.samples else 1.0
        found.append(f"{share:.1%} of the requests left late: the generator did not keep to the schedule")
    if drops:
        found.append(f"{drops:,} arrivals were dropped: the generator had as many requests in flight as it may have")
    return tuple(found)
