"""The numbers of a run: who is counted, from which clock, and when the measurement is not to be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from load_tests.report.record import DROPPED, Run, Sample, Snapshot
from load_tests.report.summary import (
    Cost,
    Outcome,
    Stage,
    keeps_objective,
    outcome_of,
    percentile,
    summarise,
)


def sample(at_s: float = 1.0, latency_s: float = 0.1, late_s: float = 0.0, **more: Any) -> Sample:
    """An answer; scheduled, sent `late_s` later, and done `latency_s` after it was scheduled."""
    whole = {"status": 200, "outcome": "ok", "device": 0, "hardware": "phone", "radio": "lte", **more}
    return Sample(at_s, at_s + late_s, at_s + latency_s, **whole)


def dropped() -> Sample:
    return Sample(1.0, None, None, 0, DROPPED, 0, "phone", "lte")


def run_of(*samples: Sample, seconds: float = 10.0, late_starts: int = 0, cores: tuple[float, ...] = (0.2,)) -> Run:
    snapshots = tuple(Snapshot(float(number), {}, 0, used) for number, used in enumerate(cores))
    return Run("steady", "http://cluster", 0, 1, seconds, 500.0, late_starts, samples, snapshots, {})


@pytest.mark.parametrize(
    ("status", "outcome", "expected"),
    [
        (200, "ok", Outcome.ANSWERED),
        (429, "full", Outcome.REFUSED),
        (503, "not ready", Outcome.REFUSED),
        (500, "broken", Outcome.FAILED),
        (0, "no answer", Outcome.FAILED),
        (0, DROPPED, Outcome.DROPPED),
    ],
)
def test_the_outcome_of_an_arrival(status: int, outcome: str, expected: Outcome) -> None:
    assert outcome_of(sample(status=status, outcome=outcome)) is expected


def test_goodput_counts_from_the_scheduled_time() -> None:
    """An answer that took 400 ms but was sent 200 ms late kept nothing."""
    late = sample(latency_s=0.6, late_s=0.2)
    assert late.service_s == pytest.approx(0.4)
    summary = summarise(run_of(sample(latency_s=0.5), late))
    assert (summary.ok, summary.within) == (2, 1)
    assert (summary.offered, summary.throughput, summary.goodput) == (0.2, 0.2, 0.1)


def test_an_answer_on_the_objective_keeps_it() -> None:
    assert keeps_objective(sample(at_s=0.0, latency_s=0.5), 500)
    assert not keeps_objective(sample(at_s=0.0, latency_s=0.5), 499.9)


def test_an_answer_after_the_schedule_is_no_throughput() -> None:
    summary = summarise(run_of(sample(at_s=9.9, latency_s=0.4), sample(at_s=9.9, latency_s=0.05)))
    assert summary.throughput == 0.1
    assert summary.goodput == 0.2


def test_both_clocks_have_their_percentiles() -> None:
    summary = summarise(run_of(*(sample(latency_s=n / 1000 + 0.05, late_s=0.05) for n in range(1, 1001))))
    assert summary.latency.p50 == pytest.approx(550)
    assert summary.latency.p99 == pytest.approx(1040)
    assert (summary.service.p50, summary.service.p95) == pytest.approx((500, 950))
    assert (summary.service.p99, summary.service.p999) == pytest.approx((990, 999))


def test_a_percentile_is_a_sample_and_no_mean_of_two() -> None:
    assert percentile([1.0, 100.0], 50) == 1.0
    assert percentile([1.0, 100.0], 51) == 100.0
    assert math.isnan(float(percentile([], 99)))


def test_a_refusal_is_neither_a_failure_nor_goodput() -> None:
    refused = sample(latency_s=0.01, status=429, outcome="full")
    summary = summarise(run_of(sample(), refused, refused, sample(status=503, outcome="not ready")))
    assert summary.refusals == {"full": 2, "not ready": 1}
    assert (summary.refused, summary.failed, summary.within) == (3, 0, 1)
    assert summary.latency.p50 == pytest.approx(100)


def test_failures_are_counted_by_outcome_most_frequent_first() -> None:
    failures = [sample(status=500, outcome=outcome) for outcome in ("rare", "often", "often")]
    summary = summarise(run_of(*failures))
    assert list(summary.failures.items()) == [("often", 2), ("rare", 1)]
    assert math.isnan(summary.latency.p99)


def test_bad_clients_are_counted_apart() -> None:
    summary = summarise(run_of(sample(), sample(latency_s=9.0, behaviour="slow"), sample(behaviour="slow")))
    assert (summary.arrivals, summary.ok) == (1, 1)
    assert summary.misbehaved == {("slow", "ok"): 2}
    assert summary.latency.p99 == pytest.approx(100)


def test_degraded_answers_are_counted_by_what_they_left_out() -> None:
    both, one = sample(degraded=("text_encoder", "asr")), sample(degraded=("text_encoder",))
    summary = summarise(run_of(both, one))
    assert summary.degraded == {"text_encoder": 2, "asr": 1}
    assert summary.within == 2


def test_costs_are_by_hardware_and_radio_of_what_was_sent() -> None:
    cost: dict[str, Any] = {"speech_s": 2.0, "bytes_up": 1000, "bytes_down": 300, "joules": 0.5}
    refused = sample(status=429, outcome="full", **cost)
    summary = summarise(run_of(sample(**cost), refused, sample(radio="wifi", **cost), dropped()))
    assert summary.costs == {
        ("phone", "lte"): Cost(2, 4.0, 2000, 600, 1.0),
        ("phone", "wifi"): Cost(1, 2.0, 1000, 300, 0.5),
    }


def test_timings_are_computing_and_waiting_by_stage_and_sums_of_the_request() -> None:
    slow = {"asr-queue": 30.0, "asr": 300.0, "fusion": 6.0, "queue": 40.0, "total": 400.0}
    quick = {"asr-queue": 10.0, "asr": 100.0, "fusion": 2.0, "queue": 20.0, "total": 200.0}
    summary = summarise(run_of(sample(timings_ms=slow), sample(timings_ms=quick), sample()))
    assert summary.stages == {"asr": Stage(200.0, 20.0), "fusion": Stage(4.0, 0.0)}
    assert summary.request_ms == {"queue": 30.0, "total": 300.0}


def test_a_measurement_without_a_fault_is_trusted() -> None:
    run = run_of(*[sample()] * 100, late_starts=1, cores=(0.1, 0.8))
    summary = summarise(run)
    assert summary.warnings == ()
    assert summary.generator_mean == pytest.approx(0.45)
    assert summary.generator_max == 0.8


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (run_of(sample(), cores=(0.1, 0.81)), "0.81 cores"),
        (run_of(*[sample()] * 100, late_starts=2), "2.0% of the requests left late"),
        (run_of(sample(), dropped()), "1 arrivals were dropped"),
        (replace(run_of(sample()), about={"interrupted": True}), "stopped before its end"),
    ],
)
def test_a_measurement_with_a_fault_is_not_trusted(run: Run, why: str) -> None:
    (warning,) = summarise(run).warnings
    assert why in warning


def test_a_run_without_arrivals_has_a_summary() -> None:
    summary = summarise(replace(run_of(), snapshots=()))
    assert (summary.arrivals, summary.offered, summary.goodput) == (0, 0.0, 0.0)
    assert math.isnan(summary.latency.p50)
    assert math.isnan(summary.generator_max)
    assert summary.warnings == ()
