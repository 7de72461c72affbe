"""The capacity search finds the capacity of queues whose capacity is known, and says what it could not find."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from answering import answering
from rich.console import Console
from scipy.optimize import brentq
from scipy.stats import binom

from load_tests.capacity import Capacity, Decision, Probe, Slice, Terms, Trial, bounds, clump_size, find_capacity
from load_tests.commands import capacity as command
from load_tests.report.record import Run, Sample

SLICE = 400  # arrivals
WARM_UP = 5  # slices
SERVED = 100.0  # a second, by the queues of these tests


def queue(draw: Callable[[np.random.Generator, int], np.ndarray], within_s: float, seed: int) -> Probe:
    """One server, Poisson arrivals; the waiting carries on from slice to slice (Lindley's recursion)."""
    rng = np.random.default_rng(seed)

    def probe(rate: float) -> Generator[Slice, None, None]:
        waiting = 0.0
        for number in count():
            gaps, service = rng.exponential(1 / rate, SLICE), draw(rng, SLICE)
            backlog = waiting + np.cumsum(np.concatenate(([0.0], service - gaps)))
            waits = backlog - np.minimum(np.minimum.accumulate(backlog), 0)
            waiting = float(waits[-1])
            if number > WARM_UP:
                yield Slice(list(waits[:-1] + service > within_s), float(gaps.sum()))

    return probe


def steady(share: float, most: float = math.inf) -> Probe:
    """Violations at a fixed share up to a rate, and nothing but violations above it; slices of 10 s."""

    def probe(rate: float) -> Generator[Slice, None, None]:
        arrivals, done = 0.0, 0
        while True:
            arrivals += 10 * rate
            due = int(arrivals) - done
            done = int(arrivals)
            wrong = round(due * share) if rate <= most else due
            spread = np.arange(due) * wrong // max(1, due)  # as far apart as can be
            violating = np.diff(spread, append=wrong).astype(bool)
            yield Slice(list(violating), 10.0, {"429 full": int(violating.sum())})

    return probe


@pytest.mark.parametrize("seed", range(4))
def test_the_capacity_of_an_mm1_queue_is_the_analytic_one(seed: int) -> None:
    """The time in an M/M/1 queue is exponential with rate served - arriving, so its p99 is ln(100) over that."""
    analytic = SERVED - math.log(100) / 0.2
    probe = queue(lambda rng, size: rng.exponential(1 / SERVED, size), 0.2, seed)
    found = find_capacity(probe, Terms(max_seconds=3000, precision=0.02), start=5)
    assert found.above is not None
    assert found.rate == pytest.approx(analytic, rel=0.05)
    assert found.above / found.rate <= 1.02


def test_the_capacity_of_an_md1_queue_is_the_analytic_one() -> None:
    services = 4  # that the wait may last: with its own, a request takes five

    def waits_longer(load: float) -> float:
        """Erlang (1909), with the time of a service as the unit."""
        terms = (
            (-load * (services - k)) ** k / math.factorial(k) * math.exp(load * (services - k))
            for k in range(services + 1)
        )
        return 1 - (1 - load) * sum(terms)

    analytic = SERVED * brentq(lambda load: waits_longer(load) - 0.01, 0.01, 0.99)
    probe = queue(lambda _, size: np.full(size, 1 / SERVED), (services + 1) / SERVED, 1)
    found = find_capacity(probe, Terms(max_seconds=3000, precision=0.02), start=300)
    assert found.rate == pytest.approx(analytic, rel=0.05)


def test_299_arrivals_without_a_violation_are_the_least_that_hold() -> None:
    assert bounds(0, 299, 0.95)[1] <= 0.01 < bounds(0, 298, 0.95)[1]
    assert Terms().least_arrivals == 299
    assert Terms(percentile=99.9).least_arrivals == 2995


@pytest.mark.parametrize(("violations", "arrivals"), [(3, 500), (1, 299), (40, 4000)])
def test_at_a_bound_what_was_seen_has_five_per_cent_probability(violations: int, arrivals: int) -> None:
    lower, upper = bounds(violations, arrivals, 0.95)
    assert binom.cdf(violations, arrivals, upper) == pytest.approx(0.05)
    assert binom.sf(violations - 1, arrivals, lower) == pytest.approx(0.05)


def test_violations_that_come_together_are_fewer_observations() -> None:
    apart, together = np.zeros(1000, bool), np.zeros(1000, bool)
    apart[::100] = together[100:110] = True
    assert clump_size(apart) == 1
    assert clump_size(together) == 10
    assert bounds(10, 1000, 0.95, 10) == bounds(1, 100, 0.95)


def test_a_clump_weighs_by_its_size() -> None:
    violating = np.zeros(100, bool)
    violating[[0, 50, 55, 60]] = True  # one alone, and three that are near to each other
    assert clump_size(violating) == (1 * 1 + 3 * 3) / 4
    assert clump_size([False] * 5) == 1


def test_bounds_of_nothing_and_of_all() -> None:
    assert bounds(0, 0, 0.95) == (0.0, 1.0)
    assert bounds(0, 100, 0.95)[0] == 0.0
    assert bounds(100, 100, 0.95)[1] == 1.0


def test_a_cluster_that_carries_nothing_is_said_to() -> None:
    found = find_capacity(steady(1.0), Terms(max_seconds=600), start=8)
    assert found.rate == 0
    assert found.above == Terms().least_rate
    assert [trial.decision for trial in found.trials] == [Decision.BREAKS] * len(found.trials)
    what, _ = command.nothing_holds(found)
    assert "carries nothing" in what
    assert "429 full" in what


def test_a_rate_that_cannot_hold_is_left_after_its_first_slice() -> None:
    found = find_capacity(steady(0.0, most=20), Terms(), start=100)
    assert found.trials[0].decision is Decision.BREAKS
    assert found.trials[0].seconds == 10


def test_a_cluster_that_carries_everything_is_tried_up_to_the_highest_rate() -> None:
    found = find_capacity(steady(0.0), Terms(max_rate=100), start=3)
    assert [trial.rate for trial in found.trials] == [3, 6, 12, 24, 48, 96, 100]
    assert (found.rate, found.above) == (100, None)
    assert "may be higher" in command.sentence(found, 500)


def test_a_probe_has_the_least_arrivals_before_it_holds() -> None:
    found = find_capacity(steady(0.0), Terms(max_rate=3), start=3)
    assert [(trial.arrivals, trial.seconds) for trial in found.trials] == [(300, 100)]


def test_a_probe_has_the_least_seconds_before_it_holds() -> None:
    found = find_capacity(steady(0.0), Terms(max_rate=100, min_seconds=60), start=100)
    assert [(trial.arrivals, trial.seconds) for trial in found.trials] == [(6000, 60)]


def test_doubling_and_halving_end_in_a_bracket_of_the_precision() -> None:
    for start in (1, 1000):
        found = find_capacity(steady(0.0, most=37), Terms(precision=0.02), start=start)
        assert found.above is not None
        assert found.rate <= 37 < found.above <= 1.02 * found.rate


def test_an_undecided_rate_is_prolonged_and_then_does_not_hold() -> None:
    """One violation in a hundred is neither shown to be too many nor shown not to be."""
    found = find_capacity(steady(0.01), Terms(max_seconds=200, max_rate=10), start=10)
    assert (found.trials[0].arrivals, found.trials[0].seconds) == (2000, 200)
    assert found.trials[0].decision is Decision.UNDECIDED
    assert found.rate < 10


def test_an_undecided_end_of_the_bracket_is_said() -> None:
    def probe(rate: float) -> Generator[Slice, None, None]:
        yield from steady(0.01 if rate > 10 else 0.0)(rate)

    found = find_capacity(probe, Terms(max_seconds=200), start=10)
    assert found.undecided
    assert "undecided" in command.sentence(found, 500)


def test_the_probe_is_closed_when_the_rate_is_decided() -> None:
    closed = []

    def probe(rate: float) -> Generator[Slice, None, None]:
        try:
            yield from steady(0.0)(rate)
        finally:
            closed.append(rate)

    find_capacity(probe, Terms(max_rate=20), start=10)
    assert closed == [10, 20]


def test_a_limit_of_the_generator_is_said_with_its_rate() -> None:
    def probe(rate: float) -> Generator[Slice, None, None]:
        while True:
            yield Slice([False] * 1000, 10, warnings=("31 arrivals were dropped",) if rate > 10 else ())

    assert find_capacity(probe, Terms(max_rate=20), start=10).warnings == ("20/s: 31 arrivals were dropped",)


@pytest.mark.parametrize(
    "wrong", [{"percentile": 100}, {"confidence": 0}, {"precision": -1}, {"max_rate": math.nan}, {"min_seconds": 700}]
)
def test_terms_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Terms(**wrong)


def test_terms_that_no_rate_can_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="allow a trial 359 s"):
        Terms(max_seconds=60, max_rate=1)


def sample(at_s: float, latency_s: float, outcome: str = "ok", **more: object) -> Sample:
    status = 200 if outcome == "ok" else 429
    return Sample(at_s, at_s, at_s + latency_s, status, outcome, 0, "phone", "lte", **more)  # type: ignore[arg-type]


def measured(*samples: Sample) -> Run:
    return Run("steady", "http://cluster", 0, 1, 20.0, 500.0, 0, samples, (), {})


def test_late_refused_and_degraded_answers_are_violations() -> None:
    run = measured(
        sample(5, 0.5),
        sample(6, 0.51),
        sample(7, 0.1, "full"),
        sample(8, 0.1, degraded=("text_encoder",)),
    )
    found = command.measure(run, after_s=5.0, allow_degraded=False)
    assert (found.violating, found.seconds) == ([False, True, True, True], 15.0)
    assert found.reasons == {command.LATE: 1, "full": 1, "without text_encoder": 1}


def test_degraded_answers_may_be_allowed() -> None:
    run = measured(sample(1, 0.1, degraded=("text_encoder",)))
    assert command.measure(run, 0.0, allow_degraded=True).violating == [False]


def test_neither_the_warm_up_nor_bad_clients_are_counted() -> None:
    run = measured(sample(4.9, 3.0), sample(6, 3.0, behaviour="slow"), sample(7, 0.1))
    found = command.measure(run, 5.0, allow_degraded=False)
    assert found.violating == [False]


def a_search() -> Capacity:
    return find_capacity(steady(0.0, most=37), Terms(max_seconds=100), start=8)


def test_the_json_holds_every_trial() -> None:
    found = a_search()
    document = json.loads(command.as_json(found, "http://cluster", 500))
    assert document["rate"] == found.rate
    assert [trial["decision"] for trial in document["trials"]] == [trial.decision.value for trial in found.trials]
    assert document["terms"]["percentile"] == 99
    assert {"command", "hardware", "versions", "measured"} <= document.keys()


@pytest.mark.parametrize(("name", "magic"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")])
def test_the_plot_has_the_format_of_its_name(tmp_path: Path, name: str, magic: bytes) -> None:
    command.plot(a_search(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def run_command(monkeypatch: pytest.MonkeyPatch, carries: float, *arguments: str) -> tuple[int, list[Run]]:
    """The command, over a cluster that answers in 100 ms up to a rate and refuses all above it."""
    runs = []

    def run_scenario(scenario: command.Scenario, url: str, *, devices: int | None, seed: int, language: str) -> Run:
        assert (devices, language) == (None, "en")
        seconds, rate = scenario.arrivals.seconds, scenario.arrivals.base
        outcome = "ok" if rate <= carries else "full"
        samples = (sample(number / rate, 0.1, outcome) for number in range(int(seconds * rate)))
        about = {"interrupted": False}
        runs.append(Run(scenario.name, url, seed, 1, seconds, scenario.objective_ms, 0, tuple(samples), (), about))
        return runs[-1]

    monkeypatch.setattr(command, "run_scenario", run_scenario)
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    with answering() as url:
        options = parser.parse_args(["capacity", "--url", url, "--slo-p99-ms", "500", *arguments])
        return options.run(options), runs


def test_the_command_prints_writes_and_probes_with_a_seed_for_each_slice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "capacity.json"
    code, runs = run_command(monkeypatch, 30, "--start", "10", "--json", str(file), "--seed", "7")
    document = json.loads(file.read_text())
    assert code == 0
    assert document["rate"] <= 30 < document["above"]
    assert [run.seed for run in runs] == list(range(7, 7 + len(runs)))
    assert {run.seconds for run in runs} == {35.0}
    assert f"carries {document['rate']:.4g} a second with 99 % within 500 ms" in capsys.readouterr().out


def test_the_command_fails_with_the_reason_where_nothing_is_carried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = run_command(monkeypatch, 0)
    assert code == 1
    assert "carries nothing" in (said := capsys.readouterr().err)
    assert "full (" in said


def test_the_table_of_trials_breaks_no_word_at_80_columns() -> None:
    rows, reasons = command._table(), {command.LATE: 4000, "429 Too Many Requests": 3}
    rows.add_row(
        *command._cells(Trial(123.4567, 123_456, 4567, 3.2, 60, reasons, (), 0.0123, 0.0456, Decision.UNDECIDED))
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(rows)
    assert isinstance(console.file, io.StringIO)
    assert {"violations", "undecided", "1.23%–4.56%", *command.LATE.split()} <= set(console.file.getvalue().split())


def test_a_trial_without_arrivals_has_no_share() -> None:
    assert math.isnan(Trial(1, 0, 0, 1, 0, {}, (), 0, 1, Decision.UNDECIDED).share)
